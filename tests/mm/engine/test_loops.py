"""An iteration is an update of a given number of images, however many fit at once."""

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

import projects.openimages.mm  # noqa: F401
from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine import loops
from projects.openimages.mm.engine.config import load_config
from projects.openimages.mm.engine.loops import _mean
from projects.openimages.mm.engine.processes import number_of_processes
from projects.openimages.mm.engine.recipe_size import (
    batches_per_update,
    scale_learning_rate,
    set_images_per_update,
    unfit_learning_rate,
)
from tests.helpers import REPOSITORY, run_tool

MAIN, DEMO = (REPOSITORY / 'configs' / f'oi_mask_rcnn_r50{name}.py' for name in ('', '_demo'))


def test_a_value_that_some_batches_lack_is_averaged_over_the_others():
    """As the share of objects filed rightly, in a batch without an object."""
    found = _mean([{'loss': torch.tensor(1.)},
                   {'loss': torch.tensor(3.), 'acc': torch.tensor(50.)}])
    assert found == {'loss': torch.tensor(2.), 'acc': torch.tensor(50.)}


class Square(BaseModel):
    """A weight that learns from numbers."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, inputs, data_samples=None, mode='loss'):
        numbers = torch.tensor(inputs, dtype=torch.float32)
        return {'loss': (self.weight * numbers - 3).square().mean()}


class Numbers:
    """0, 1, 2 .. as a data set."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return {'inputs': index}

    def get_cat2imgs(self):
        """One class has nine tenths of the numbers."""
        return {0: list(range(36)), 1: list(range(36, 40))}


class Record(Hook):
    """What each update saw, and with which learning rate."""

    def __init__(self):
        self.updates = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.updates.append((runner.iter, data_batch['inputs'], outputs['loss'].item(),
                             runner.optim_wrapper.get_lr()['lr'][0], runner.model.weight.item()))


def train(folder, batch_size, images=None, *, iters=8, accumulate=1, sampler=None, **options):
    """Eight updates with a warm-up of three and a drop after six; what the hook saw."""
    record = Record()
    runner = Runner(
        Square(), str(folder), experiment_name=f'{folder}{options}', custom_hooks=[record],
        train_dataloader={
            'batch_size': batch_size, 'dataset': Numbers(), 'num_workers': 0,
            'sampler': sampler or {'type': 'InfiniteSampler', 'shuffle': True},
            'collate_fn': {'type': 'pseudo_collate'}},
        train_cfg={'type': 'mmdet.ResumableTrainLoop', 'max_iters': iters,
                   'images_per_update': images},
        param_scheduler=[
            {'type': 'LinearLR', 'start_factor': 0.2, 'by_epoch': False, 'end': 3},
            {'type': 'MultiStepLR', 'by_epoch': False, 'milestones': [6]}],
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 1e-3}, 'accumulative_counts': accumulate},
        default_hooks={'checkpoint': {'type': 'CheckpointHook', 'by_epoch': False, 'interval': 2}},
        randomness={'seed': 5}, **options)
    runner.train()
    return record.updates


def assert_same(updates, expected):
    """The same images and rates, and losses and weights up to the rounding of sums."""
    for got, wanted in zip(updates, expected, strict=True):
        number, images, loss, rate, weight = wanted
        assert got == (number, images, pytest.approx(loss, rel=1e-5), rate,
                       pytest.approx(weight, rel=1e-5))


@pytest.fixture(scope='module')
def large(tmp_path_factory):
    """Eight images at once."""
    return train(tmp_path_factory.mktemp('large'), 8)


@pytest.mark.parametrize('batch_size', [1, 2, 4])
def test_few_images_at_once_are_the_same_training(large, tmp_path, batch_size):
    """The same images meet the same learning rates, losses and weights, update by update."""
    rates = [rate for *_, rate, _ in large]
    assert len(set(rates)) == 4 and rates[-1] == pytest.approx(1e-4)
    assert_same(train(tmp_path, batch_size, 8), large)
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == [
        'iter_2.pth', 'iter_4.pth', 'iter_6.pth', 'iter_8.pth']


def test_the_stock_way_to_accumulate_moves_the_rate_within_an_update(large, tmp_path):
    """Otherwise the loop's own is needed no more."""
    updates = train(tmp_path, 2, iters=8 * 4, accumulate=4)
    assert len({rate for *_, rate, _ in updates[:4]}) > 1


def test_a_training_that_accumulates_is_resumed_with_the_images_and_rates_it_had_left(
        large, tmp_path):
    train(tmp_path / 'whole', 2, 8)
    rest = train(tmp_path / 'more', 2, 8, resume=True,
                 load_from=str(tmp_path / 'whole' / 'iter_4.pth'))
    assert_same(rest, large[4:])


def rare_images(updates) -> list[int]:
    """How many of the first and of the second half's images are of the class of four."""
    half = len(updates) // 2
    return [sum(number >= 36 for _, images, *_ in part for number in images)
            for part in (updates[:half], updates[half:])]


@pytest.mark.parametrize(('batch_size', 'images'), [(8, None), (2, 8)])
def test_soft_sampling_changes_at_its_part_of_the_schedule(tmp_path, batch_size, images):
    """From a tenth of the images to half of them, after 160 of 320, however they are batched."""
    soft = {'type': 'mmdet.SoftClassAwareSampler', 'power': 1, 'power_after': 0, 'switch_at': 0.5}
    before, after = rare_images(train(tmp_path, batch_size, images, iters=40, sampler=soft))
    assert 6 < before < 30 and 60 < after < 100


def test_the_schedule_counts_the_images_of_all_processes(tmp_path, monkeypatch):
    """Beside a second process the 320 images of this one are the schedule's first half."""
    monkeypatch.setattr(loops, 'get_world_size', lambda: 2)
    soft = {'type': 'mmdet.SoftClassAwareSampler', 'power': 1, 'power_after': 0, 'switch_at': 0.5}
    assert sum(rare_images(train(tmp_path, 8, iters=40, sampler=soft))) < 60


@pytest.mark.parametrize(('images', 'batch_size', 'processes', 'expected'), [
    (None, 2, 3, 1), (16, 2, 1, 8), (16, 2, 8, 1), (16, 1, 4, 4)])
def test_as_many_batches_are_taken_as_make_up_the_images(images, batch_size, processes, expected):
    assert batches_per_update(images, batch_size, processes) == expected


@pytest.mark.parametrize(('images', 'batch_size', 'processes'), [(16, 3, 1), (16, 4, 8), (0, 1, 1)])
def test_images_that_batches_do_not_make_up_are_an_error(images, batch_size, processes):
    with pytest.raises(UserError, match=f'{images} images .*batches of {batch_size}'):
        batches_per_update(images, batch_size, processes)


def test_accumulating_twice_is_an_error(tmp_path):
    with pytest.raises(UserError, match='accumulative_counts'):
        train(tmp_path, 2, 8, accumulate=2)
    cfg = load_config(MAIN, {'optim_wrapper.accumulative_counts': 2})
    with pytest.raises(UserError, match='one of them'):
        set_images_per_update(cfg, 16)


def test_the_number_of_images_is_the_config_s_unless_given():
    cfg = load_config(MAIN)
    set_images_per_update(cfg, None)
    assert cfg.train_cfg.images_per_update == 16
    set_images_per_update(cfg, 32)
    assert cfg.train_cfg.images_per_update == 32


@pytest.mark.parametrize(('options', 'images', 'processes', 'rate'), [
    ({}, None, 8, 0.02), ({}, None, 1, 0.0025), ({}, 16, 1, 0.02), ({}, 32, 1, 0.04),
    ({'optim_wrapper.accumulative_counts': 8}, None, 1, 0.02),
    ({'optim_wrapper.accumulative_counts': 2}, None, 2, 0.01),
    ({'train_dataloader.batch_size': 4}, None, 8, 0.04)])
def test_the_learning_rate_follows_the_images_of_an_update(options, images, processes, rate):
    cfg = load_config(MAIN, options)
    if images:
        set_images_per_update(cfg, images)
    fits = not unfit_learning_rate(cfg, processes)
    assert fits is (rate == 0.02)
    assert f'{rate:g}' in scale_learning_rate(cfg, processes)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(rate)
    assert not cfg.auto_scale_lr.enable  # MMEngine's would scale once more


@pytest.mark.parametrize(('launcher', 'variable'), [
    ('pytorch', 'WORLD_SIZE'), ('slurm', 'SLURM_NTASKS'), ('mpi', 'OMPI_COMM_WORLD_SIZE')])
def test_the_number_of_processes_is_known_before_they_join(monkeypatch, launcher, variable):
    monkeypatch.setenv(variable, '8')
    assert number_of_processes(launcher) == 8
    assert number_of_processes('none') == 1


def test_the_command_makes_one_update_of_so_many_images(demo_root, tmp_path):
    result = run_tool(
        'tools/train.py', DEMO, '--images-per-update', '--work-dir', tmp_path, '--cfg-options',
        f'data_root={demo_root}', 'train_dataloader.batch_size=2', 'val_cfg=None',
        'val_dataloader=None', 'val_evaluator=None', 'default_hooks.checkpoint.save_best=None',
        'default_hooks.logger.interval=1', 'train_cfg.max_iters=1',
        'train_dataloader.dataset.pipeline.2.scale=(64,48)')
    assert result.returncode == 0, result.stderr[-2000:]
    said = result.stdout + result.stderr
    assert 'takes 2 batches of 2 images' in said and 'Iter(train) [1/1]' in said
    assert 'warning: an update' not in said
