"""Checkpoints of any source are read without running what is in them, or refused in one line."""

import argparse
import datetime
import pickle
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict

from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine.checkpoints import (
    check_class_count,
    check_resumable,
    load_weights,
    read_checkpoint,
    weights_of,
)
from tests.helpers import assert_one_line_error, run_tool

WEIGHTS = {'a.weight': torch.zeros(1000)}
DEMO = 'configs/oi_mask_rcnn_r50_demo.py'


class FileToucher:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({'state_dict': WEIGHTS, 'extra': FileToucher(tmp_path / 'ran')}, tmp_path / 'in.pth')
    with pytest.raises(UserError, match=r'in\.pth: .*could run any program'):
        read_checkpoint(tmp_path / 'in.pth')
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize(('name', 'content', 'message'), [
    ('in.pth', b'', 'not a whole checkpoint'),
    ('in.pth', b'hello', 'not a whole checkpoint'),
    ('in.pth', pickle.dumps({'model': {}}, protocol=2), 'not a whole checkpoint'),
    ('in.pkl', pickle.dumps({'model': {}}, protocol=2), 'a bare pickle'),
])
def test_other_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_checkpoint(tmp_path / name)


def test_half_a_checkpoint_is_refused(tmp_path):
    torch.save({'state_dict': WEIGHTS}, tmp_path / 'in.pth')
    whole = (tmp_path / 'in.pth').read_bytes()
    (tmp_path / 'in.pth').write_bytes(whole[:len(whole) // 2])
    with pytest.raises(UserError, match='not a whole checkpoint'):
        read_checkpoint(tmp_path / 'in.pth')


def test_a_damaged_checkpoint_is_refused(tmp_path):
    """torch.load itself does not compare the checksums that torch.save has written."""
    path = tmp_path / 'in.pth'
    torch.save({'state_dict': {'a.weight': torch.full((1000,), 7.)}}, path)
    content = bytearray(path.read_bytes())
    content[content.index(np.full(9, 7, np.float32).tobytes()) + 2] ^= 1
    path.write_bytes(content)
    assert torch.load(path)['state_dict']['a.weight'].unique().numel() == 2
    with pytest.raises(UserError, match=r'in\.pth: damaged: archive/data/0|damaged: in/data/0'):
        read_checkpoint(path)


def test_a_checkpoint_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(WEIGHTS, tmp_path / 'in.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_checkpoint(tmp_path / 'in.pth').keys() == WEIGHTS.keys()


NOT_WEIGHTS = {
    'numbers': [np.float32(1.5), np.int8(3), np.uint16(4), np.float16(0.5), np.bool_(True)],
    'texts': [np.str_('text'), np.bytes_(b'bytes'), np.array(['a', 'bc'])],
    'options': argparse.Namespace(lr=0.1, out=Path('/a/b')),
    'config': ConfigDict(model={'depth': [50, 101]}),
    'counts': defaultdict(list, {'a': [1]}),
    'time': datetime.datetime(2019, 7, 1, 12, 30, tzinfo=datetime.UTC)}


def test_what_training_programs_store_beside_weights_is_read(tmp_path):
    torch.save({'state_dict': WEIGHTS, 'meta': NOT_WEIGHTS, 'of config': Config({'a': 1})},
               tmp_path / 'in.pth')
    found = read_checkpoint(tmp_path / 'in.pth')
    meta = found['meta']
    assert all(meta[key] == NOT_WEIGHTS[key] for key in ('numbers', 'config', 'counts', 'time'))
    assert all(map(np.array_equal, meta['texts'], NOT_WEIGHTS['texts']))
    assert vars(meta['options']).keys() == {'lr', 'out'} and str(meta['options'].out) == '/a/b'
    assert found['of config'].values == {'a': 1}


def test_names_of_numpy_1_are_read(tmp_path):
    """Its module was called ``core``."""
    torch.save({'state_dict': WEIGHTS, 'n': np.float64(2.5), 'a': np.arange(3)}, tmp_path / 'new')
    with zipfile.ZipFile(tmp_path / 'new') as new, zipfile.ZipFile(tmp_path / 'old', 'w') as old:
        for name in new.namelist():
            content = new.read(name)
            old.writestr(name, content.replace(b'numpy._core.', b'numpy.core.'))
            assert b'numpy._core.' in content or not name.endswith('data.pkl')
    found = read_checkpoint(tmp_path / 'old')
    assert found['n'] == 2.5 and found['a'].tolist() == [0, 1, 2]


@pytest.mark.parametrize(('raised', 'message'), [
    (MemoryError(), 'not enough memory'),
    (RuntimeError('[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can\'t allocate '
                  'memory: you tried to allocate 9 bytes.'), 'not enough memory'),
    (AttributeError("Can't get attribute 'Options' on <module '__main__'>"), 'cannot be read: Can'),
    (torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB.'), 'not enough memory')])
def test_what_the_machine_lacks_is_no_fault_of_the_file(tmp_path, monkeypatch, raised, message):
    torch.save(WEIGHTS, tmp_path / 'in.pth')

    def fail(*_, **__):
        raise raised

    monkeypatch.setattr(torch, 'load', fail)
    with pytest.raises(UserError, match=rf'in\.pth: {message}'):
        read_checkpoint(tmp_path / 'in.pth')


def test_tensors_of_a_gpu_are_read_without_one(tmp_path, monkeypatch):
    torch.save(WEIGHTS, tmp_path / 'new')
    with zipfile.ZipFile(tmp_path / 'new') as new, zipfile.ZipFile(tmp_path / 'old', 'w') as old:
        for name in new.namelist():  # 'cpu' stands as text of three letters in the pickle
            old.writestr(name, new.read(name).replace(b'\x03\x00\x00\x00cpu',
                                                      b'\x06\x00\x00\x00cuda:3'))
    assert read_checkpoint(tmp_path / 'old', None)['a.weight'].device.type == 'cpu'
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(UserError, match=r'old: cannot be read: .*CUDA device'):
        read_checkpoint(tmp_path / 'old', lambda storage, place: torch.serialization
                        .default_restore_location(storage, place))


def test_a_trusted_file_is_read_whatever_is_in_it(tmp_path, monkeypatch):
    for name in ('in.pth', 'other.pth'):
        torch.save({'state_dict': WEIGHTS, 'extra': FileToucher(tmp_path / f'ran {name}')},
                   tmp_path / name)
    with pytest.raises(UserError, match='TRUSTED_CHECKPOINTS='):
        read_checkpoint(tmp_path / 'in.pth')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TRUSTED_CHECKPOINTS', 'none.pth:in.pth')
    assert read_checkpoint(tmp_path / 'in.pth')['state_dict'].keys() == WEIGHTS.keys()
    assert (tmp_path / 'ran in.pth').exists()
    with pytest.raises(UserError, match='could run any program'):
        read_checkpoint(tmp_path / 'other.pth')
    assert not (tmp_path / 'ran other.pth').exists()


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r'none\.pth: no such file'):
        read_checkpoint(tmp_path / 'none.pth')


WITHOUT_WEIGHTS = [
    ({'state_dict': None}, 'its state_dict is of type NoneType'),
    ({'state_dict': {}}, 'its state_dict is empty'),
    ({'model': 3}, 'its model is of type int'),
    ({'state_dict': {'a': torch.zeros(1), 'b': [1, 2]}}, "its state_dict has 'b': list"),
    ({'state_dict': {'a': np.zeros(2)}}, "its state_dict has 'a': ndarray"),
    ({'state_dict': {0: torch.zeros(1)}}, 'its state_dict has 0: Tensor'),
    ({'epoch': 3}, "the checkpoint has 'epoch': int"),
    ({}, 'the checkpoint is empty'), ([], 'the checkpoint is of type list'),
    (None, 'the checkpoint is of type NoneType'),
    (torch.zeros(3), 'the checkpoint is of type Tensor')]


@pytest.mark.parametrize(('content', 'message'), WITHOUT_WEIGHTS)
def test_checkpoint_without_weights_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / 'in.pth')
    with pytest.raises(UserError, match=rf'in\.pth: .*{message}, expected names and tensors'):
        read_checkpoint(tmp_path / 'in.pth')


@pytest.mark.parametrize('checkpoint', [WEIGHTS, {'model': WEIGHTS, 'optimizer': None},
                                        {'state_dict': WEIGHTS, 'meta': {}}])
def test_weights_are_found_wherever_they_are_kept(tmp_path, checkpoint):
    torch.save(checkpoint, tmp_path / 'in.pth')
    assert weights_of(read_checkpoint(tmp_path / 'in.pth')).keys() == WEIGHTS.keys()


@pytest.mark.parametrize('command', [
    ['tools/trim_checkpoint.py', '{checkpoint}', '{out}'],
    ['tools/test.py', DEMO, '{checkpoint}'],
    ['tools/predict.py', DEMO, '{checkpoint}', '{image}', '--out', '{out}'],
    ['tools/train.py', DEMO, '--cfg-options', 'data_root={data}', 'load_from={checkpoint}'],
    ['tools/train.py', DEMO, '--resume', '{checkpoint}', '--cfg-options', 'data_root={data}']])
def test_every_command_says_it_in_one_line(tmp_path, demo_root, command):
    torch.save({'state_dict': None}, tmp_path / 'in.pth')
    image = next((demo_root / 'images' / 'test').glob('*.jpg'))
    result = run_tool(*(part.format(checkpoint=tmp_path / 'in.pth', out=tmp_path / 'out.pth',
                                    data=demo_root, image=image) for part in command))
    assert_one_line_error(result, 'in.pth: its state_dict is of type NoneType')
    assert not (tmp_path / 'out.pth').exists()


def test_weights_alone_are_nothing_to_resume_from():
    with pytest.raises(UserError, match=r'in\.pth: has no iter, .*load_from=FILE'):
        check_resumable({'state_dict': WEIGHTS, 'meta': {'scheme': 'torchvision'}}, 'in.pth')
    with pytest.raises(UserError, match='has no message_hub'):
        check_resumable({'state_dict': WEIGHTS, 'meta': {'iter': 1, 'epoch': 0}}, 'in.pth')
    check_resumable({'meta': {'iter': 1, 'epoch': 0}, 'message_hub': {}}, 'in.pth')


class Head(torch.nn.Module):
    """A box head of so many classes and other outputs."""

    def __init__(self, num_classes, others):
        super().__init__()
        self.num_classes = num_classes
        self.fc_cls = torch.nn.Linear(4, num_classes + others)


@pytest.mark.parametrize('others', [0, 1, 2])
def test_another_class_count_is_said_with_the_option_that_helps(others):
    model = torch.nn.ModuleDict({'stages': torch.nn.ModuleList([Head(300, others)])})
    weights = {'stages.0.fc_cls.weight': torch.zeros(80 + others, 4)}
    with pytest.raises(UserError, match=r'for 80 classes.* for 300: .*num_classes=80'):
        check_class_count(model, weights, 'in.pth')
    model.stages[0] = Head(80, others)
    check_class_count(model, weights, 'in.pth')


def test_a_classifier_of_another_loss_is_no_other_class_count():
    model = torch.nn.ModuleDict({'head': Head(300, 0)})
    with pytest.raises(UserError, match=r'has 301 outputs and the config\'s 300: .*another loss'):
        check_class_count(model, {'head.fc_cls.weight': torch.zeros(301, 4)}, 'in.pth')


def test_weights_that_fill_a_part_of_the_model_are_refused():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    whole = {name: torch.ones_like(tensor) for name, tensor in model.state_dict().items()}
    del whole['1.num_batches_tracked']  # of no use in a test, and older than some checkpoints
    load_weights(model, {f'module.{name}': tensor for name, tensor in whole.items()}, 'in.pth')
    assert (model[0].weight == 1).all() and (model[1].running_mean == 1).all()
    with pytest.raises(UserError, match=r'in\.pth: .* fills 4 of the model\'s 6 tensors; '
                                        r'0\.weight is \(9, 2\), expected \(3, 2\), '
                                        r'1\.running_mean is missing$'):
        load_weights(model, {**{name: tensor for name, tensor in whole.items()
                                if name != '1.running_mean'}, '0.weight': torch.ones(9, 2)},
                     'in.pth')


@pytest.mark.parametrize('command', [
    ['tools/test.py', DEMO, '{checkpoint}', '--submission', '{out}'],
    ['tools/predict.py', DEMO, '{checkpoint}', '{image}', '--out', '{out}']])
def test_a_checkpoint_of_another_model_is_no_submission_without_detections(tmp_path, demo_root,
                                                                         command):
    torch.save({'state_dict': WEIGHTS, 'meta': {'CLASSES': ('Cat',)}}, tmp_path / 'in.pth')
    image = next((demo_root / 'images' / 'test').glob('*.jpg'))
    result = run_tool(*(part.format(checkpoint=tmp_path / 'in.pth', out=tmp_path / 'out.csv',
                                    image=image) for part in command))
    assert_one_line_error(result, 'in.pth: does not fit the config: it fills 0 of the model\'s ',
                          'backbone.conv1.weight is missing', ' more')
    assert not (tmp_path / 'out.csv').exists()
