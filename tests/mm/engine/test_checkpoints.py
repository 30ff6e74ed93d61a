"""Checkpoints of any source are read without running what is in them, or refused in one line."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine.checkpoints import (
    check_class_count,
    check_resumable,
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
