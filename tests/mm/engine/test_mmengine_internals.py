"""What is relied on inside MMEngine, held against the installed package.

A failure here says that MMEngine has changed: look at the part of ``mmengine_internals`` that the
test is about, and at whether it is still needed.
"""

import functools
import http.server
import inspect
import os
import threading
from types import SimpleNamespace

import pytest
import torch
from mmdet.datasets.samplers import AspectRatioBatchSampler
from mmengine.dataset import InfiniteSampler
from mmengine.dist import utils as dist_utils
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import (
    CheckpointLoader,
    FlexibleRunner,
    IterBasedTrainLoop,
    Runner,
    load_checkpoint,
)
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner import loops as mmengine_loops
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from mmengine.utils import dl_utils
from torch import nn
from torch.utils.data import DataLoader

from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine.checkpoints import check_resumable, local_file, read_checkpoint
from projects.openimages.mm.engine.mmengine_internals import (
    base_files,
    start_where_the_sampler_is,
)
from projects.openimages.mm.engine.options import RUNNER_OPTIONS
from tests.helpers import assert_one_line_error, run_here
from tests.mm.engine.test_checkpoints import WEIGHTS, FileToucher


class Line(BaseModel):
    """A model of one weight."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs, data_samples=None, mode='loss'):
        return {'loss': self.layer(inputs.float()[:, None]).sum()}


class Numbers:
    """A data set that remembers what was read from it."""

    def __init__(self):
        self.read = []

    def __len__(self):
        return 100

    def __getitem__(self, index):
        self.read.append(index)
        return {'inputs': index}


def train(folder, max_iters, **options):
    """Train the line from a sampler with a drawn seed; a checkpoint after every iteration."""
    loader = {'batch_size': 2, 'dataset': Numbers(), 'sampler': {'type': 'InfiniteSampler'},
              'collate_fn': {'type': 'default_collate'}, 'num_workers': 0}
    runner = Runner(
        Line(), str(folder), train_dataloader=loader, experiment_name=str(folder),
        train_cfg={'by_epoch': False, 'max_iters': max_iters},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}}, randomness={'seed': None},
        default_hooks={'checkpoint': {'type': 'CheckpointHook', 'by_epoch': False, 'interval': 1}},
        **options)
    runner.train()
    return runner


# ------------------------------------------------------------------------ loaders of checkpoints

def test_the_stock_loader_of_local_files_runs_what_is_in_them(tmp_path):
    """Otherwise load_from_local is needed no more, but for the text of the config."""
    torch.save({'state_dict': WEIGHTS, 'extra': FileToucher(tmp_path / 'ran')}, tmp_path / 'in.pth')
    mmengine_checkpoint.load_from_local(str(tmp_path / 'in.pth'), 'cpu')
    assert (tmp_path / 'ran').exists()


def test_mmengine_reads_local_files_through_ours(tmp_path):
    torch.save({'state_dict': WEIGHTS, 'extra': FileToucher(tmp_path / 'ran')}, tmp_path / 'in.pth')
    with pytest.raises(UserError, match='could run any program'):
        load_checkpoint(nn.Linear(1, 1), str(tmp_path / 'in.pth'))
    assert not (tmp_path / 'ran').exists()


@pytest.fixture
def spiked(tmp_path):
    """A checkpoint to resume from whose config writes a file when it is run."""
    train(tmp_path / 'work', 1)
    checkpoint = torch.load(tmp_path / 'work' / 'iter_1.pth', weights_only=False)
    checkpoint['meta']['config'] = f'open({str(tmp_path / "ran")!r}, "w")'
    torch.save(checkpoint, tmp_path / 'spiked.pth')
    return tmp_path / 'spiked.pth'


def test_resuming_does_not_run_the_config_in_the_checkpoint(spiked, tmp_path):
    runner = train(tmp_path / 'more', 2, load_from=str(spiked), resume=True)
    assert runner.iter == 2 and not (tmp_path / 'ran').exists()


def test_a_run_with_a_one_cycle_schedule_is_resumed(tmp_path):
    """It stores a method of its own."""
    one_cycle = {'type': 'OneCycleLR', 'eta_max': 0.5, 'total_steps': 4, 'by_epoch': False}
    whole = train(tmp_path / 'whole', 4, param_scheduler=one_cycle)
    resumed = train(tmp_path / 'more', 4, param_scheduler=one_cycle, resume=True,
                    load_from=str(tmp_path / 'whole' / 'iter_2.pth'))
    rates = [runner.message_hub.get_scalar('train/lr').data[0].tolist()
             for runner in (whole, resumed)]
    assert len(rates[0]) == 4 and len(set(rates[0])) == 4
    assert rates[0] == rates[1]


def test_the_stock_loader_lets_resuming_run_it(spiked, tmp_path, monkeypatch):
    monkeypatch.setitem(CheckpointLoader._schemes, '', mmengine_checkpoint.load_from_local)
    train(tmp_path / 'more', 2, load_from=str(spiked), resume=True)
    assert (tmp_path / 'ran').exists()


def test_a_checkpoint_of_mmengine_can_be_read_and_resumed_from(spiked):
    checkpoint = read_checkpoint(spiked)
    hub = MessageHub('read')
    hub.load_state_dict(checkpoint['message_hub'])
    assert isinstance(hub.get_scalar('train/loss').current(), float)
    check_resumable(checkpoint, spiked)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """An address whose files are those of a folder."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    (tmp_path / 'files').mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / 'files')
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield SimpleNamespace(folder=tmp_path / 'files',
                              address=f'http://127.0.0.1:{server.server_port}')
        server.shutdown()


def test_fetched_checkpoints_are_read_as_carefully(served, tmp_path):
    torch.save(WEIGHTS, served.folder / 'good.pth')
    torch.save({'state_dict': WEIGHTS, 'extra': FileToucher(tmp_path / 'ran')},
               served.folder / 'bad.pth')
    found = CheckpointLoader.load_checkpoint(f'{served.address}/good.pth', 'cpu')
    assert found.keys() == WEIGHTS.keys()
    with pytest.raises(UserError, match=r'cache/.*bad\.pth: .*could run any program'):
        CheckpointLoader.load_checkpoint(f'{served.address}/bad.pth', 'cpu')
    assert not (tmp_path / 'ran').exists()
    with pytest.raises(UserError, match=r'none\.pth: cannot be fetched'):
        CheckpointLoader.load_checkpoint(f'{served.address}/none.pth', 'cpu')


def test_a_checkpoint_is_fetched_once_and_again_if_it_came_in_part(served):
    torch.save(WEIGHTS, served.folder / 'in.pth')
    whole = (served.folder / 'in.pth').read_bytes()
    (served.folder / 'in.pth').write_bytes(whole[:-100])
    with pytest.raises(UserError, match=r'http://.*in\.pth: not a whole checkpoint'):
        local_file(f'{served.address}/in.pth')
    (served.folder / 'in.pth').write_bytes(whole)
    found = local_file(f'{served.address}/in.pth')
    assert read_checkpoint(found).keys() == WEIGHTS.keys()
    (served.folder / 'in.pth').unlink()
    assert local_file(f'{served.address}/in.pth') == found
    assert local_file('some/in.pth') == 'some/in.pth'


def test_start_weights_are_made_from_an_address_too(served, tmp_path):
    result = run_here('tools/trim_checkpoint.py', f'{served.address}/none.pth', tmp_path / 'out')
    assert_one_line_error(result, f'{served.address}/none.pth: cannot be fetched')


def test_weights_are_loaded_from_wherever_they_are_kept(tmp_path):
    """MMEngine alone looks for ``state_dict`` only, and would load nothing."""
    layer = nn.Linear(1, 1)
    torch.save({'model': {'weight': torch.ones(1, 1), 'bias': torch.ones(1)}}, tmp_path / 'in.pth')
    load_checkpoint(layer, str(tmp_path / 'in.pth'))
    assert layer.weight == layer.bias == 1


def test_the_stock_function_runs_what_it_has_fetched(served, tmp_path):
    torch.save({'state_dict': WEIGHTS, 'extra': FileToucher(tmp_path / 'ran')},
               served.folder / 'bad.pth')
    dl_utils.load_url(f'{served.address}/bad.pth', map_location='cpu', progress=False)
    assert (tmp_path / 'ran').exists()


@pytest.mark.parametrize('prefix', ['torchvision://', 'open-mmlab://', 'mmcls://'])
def test_the_loaders_of_model_zoos_fetch_through_ours(prefix, monkeypatch):
    """Each turns the name into an address and asks ``load_url``."""
    asked = []
    monkeypatch.setattr(mmengine_checkpoint, 'load_url', lambda url, **_: asked.append(url) or {})
    for table in ('get_torchvision_models', 'get_external_models', 'get_mmcls_models'):
        monkeypatch.setattr(mmengine_checkpoint, table, lambda: {'net': 'https://x/net.pth'})
    CheckpointLoader.load_checkpoint(f'{prefix}net')
    assert asked == ['https://x/net.pth']


# --------------------------------------------------------------------------------------- loops

def train_loop(batch_sampler):
    runner = SimpleNamespace(visualizer=SimpleNamespace(), val_loop=None, model=nn.Identity(),
                             call_hook=lambda *_, **__: None)
    loop = IterBasedTrainLoop(runner, DataLoader(Numbers(), batch_sampler=batch_sampler), 5)
    loop._iter = 3
    loop.run_iter = lambda batch: setattr(loop, '_iter', loop._iter + 1)
    return loop


def batches_of_two():
    sampler = InfiniteSampler(Numbers(), shuffle=False)
    sampler.dataset.get_data_info = lambda index: {'width': 2, 'height': 1}
    return AspectRatioBatchSampler(sampler, 2)


def test_the_loop_reads_nothing_before_the_batch_sampler_has_moved():
    loop = train_loop(batches_of_two())
    assert loop.dataloader.dataset.read == []
    start_where_the_sampler_is(loop)
    loop.run()
    assert loop.dataloader.dataset.read == [0, 1, 2, 3]  # iterations 3 and 4, from the start


def test_the_stock_loop_loads_what_it_skips():
    """Otherwise start_where_the_sampler_is, and our batch sampler, are needed no more."""
    loop = train_loop(batches_of_two())
    loop.dataloader_iterator._can_skip_without_loading = lambda: False  # as with workers
    loop.run()
    assert loop.dataloader.dataset.read == list(range(10))


def test_the_public_option_would_warn_that_the_order_is_lost(monkeypatch):
    said = []
    monkeypatch.setattr(mmengine_loops, 'print_log', lambda text, **_: said.append(text))
    loop = train_loop(batches_of_two())
    loop.fast_forward_on_resume = True
    loop.run()
    assert 'may affect reproducibility' in ''.join(said)


def test_resuming_takes_the_seed_after_the_samplers_are_built(spiked, tmp_path):
    """So ResumableTrainLoop gives it to the sampler; and it stands in ``runner.seed``."""
    seed = torch.load(spiked, weights_only=False)['meta']['seed']
    seen = []

    class Look(Hook):
        def before_train(self, runner):
            seen.append((runner.seed, runner.train_dataloader.sampler.seed))

    train(tmp_path / 'more', 2, load_from=str(spiked), resume=True, custom_hooks=[Look()])
    [(of_runner, of_sampler)] = seen
    assert of_runner == seed != of_sampler


# ---------------------------------------------------------------------------- runner, processes

def test_an_evaluator_is_content_without_metrics():
    evaluator = Evaluator([])
    evaluator.process([{'x': 1}], None)
    assert evaluator.metrics == [] and evaluator.evaluate(1) == {}


def test_joining_processes_needs_a_gpu(monkeypatch):
    """Otherwise join_without_gpu is needed no more."""
    class SetDeviceError(Exception):
        pass

    def set_device(device):
        raise SetDeviceError

    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr(torch.cuda, 'set_device', set_device)
    with pytest.raises(SetDeviceError):
        dist_utils.init_dist('pytorch', backend='gloo')


def test_the_bases_of_a_config_are_found_one_by_one(tmp_path):
    for name, text in (('far', ''), ('near', "_base_ = 'far.py'"), ('beside', ''),
                       ('own', "_base_ = ['near.py', 'beside.py']")):
        (tmp_path / f'{name}.py').write_text(text)
    found = list(base_files(str(tmp_path / 'own.py')))
    assert [os.path.basename(path) for path in found] == ['near.py', 'far.py', 'beside.py']


def test_runners_read_the_options_that_a_config_may_leave_out():
    source = inspect.getsource(Runner) + inspect.getsource(FlexibleRunner) \
        + "'tta_model' 'tta_pipeline' 'runner_type'"  # of MMDetection's tools
    assert [name for name in RUNNER_OPTIONS if f"'{name}'" not in source] == []


def test_activation_checkpointing_freezes_what_it_is_applied_to():
    """Otherwise it can be an option like the others."""
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    turn_on_activation_checkpointing(model, '0')
    model(torch.ones(1, 1)).sum().backward()
    assert model[0].weight.grad is None and model[1].weight.grad is not None


def test_the_config_of_the_runner_names_its_checkpoint():
    """The dump compares that of two runs."""
    assert "load_from=cfg.get('load_from')" in inspect.getsource(Runner.from_cfg)
