"""A published checkpoint: weights, classes and settings, and nothing of the training."""

import hashlib

import pytest
import torch
from mmdet.apis import init_detector

from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine.checkpoints import load_weights, read_checkpoint, weights_of
from projects.openimages.mm.engine.publishing import publish
from tests.helpers import run_main


def read(path):
    return torch.load(path, weights_only=True)


def test_the_weights_are_kept_and_the_training_is_left_out(trained, published):
    before = torch.load(trained.checkpoint, weights_only=False)
    after = read(published)
    assert set(after) == {'state_dict', 'meta'} and 'optimizer' in before
    assert list(after['state_dict']) == list(before['state_dict'])
    for name, tensor in before['state_dict'].items():
        assert torch.equal(after['state_dict'][name], tensor)
    assert after['state_dict']._metadata == before['state_dict']._metadata
    assert after['meta']['dataset_meta'] == before['meta']['dataset_meta']
    assert len(after['meta']['dataset_meta']['classes']) == 300
    assert 'max_iters=3' in after['meta']['cfg'] and 'seed' not in after['meta']
    assert published.stat().st_size < 0.4 * trained.checkpoint.stat().st_size


def test_the_name_has_the_files_digest_and_a_second_time_gives_the_same(trained, published,
                                                                       tmp_path):
    assert published.name == f'model-{hashlib.sha256(published.read_bytes()).hexdigest()[:8]}.pth'
    assert publish(trained.checkpoint, tmp_path / 'again.pth').read_bytes() == \
        published.read_bytes()


def test_it_fills_the_model_and_brings_its_classes(trained, published):
    """``tools/test.py`` takes it in ``test_results``."""
    detector = init_detector(str(trained.config), str(published), device='cpu')
    load_weights(detector, weights_of(read_checkpoint(published)), published)
    assert detector.dataset_meta['classes'] == read(published)['meta']['dataset_meta']['classes']


def test_a_slice_of_a_larger_tensor_does_not_take_all_of_it_along(tmp_path):
    torch.save({'state_dict': {'a': torch.zeros(1_000_000)[:4]}, 'meta': {'CLASSES': ('Cat',)}},
               tmp_path / 'in.pth')
    path = publish(tmp_path / 'in.pth', tmp_path / 'out.pth')
    assert path.stat().st_size < 5000 and read(path)['meta'] == {'CLASSES': ('Cat',)}


def test_mistakes_are_one_line(trained, tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match=r'ends in \.pth'):
        run_main(monkeypatch, 'tools/publish_model.py', trained.checkpoint, tmp_path / 'out.pt')
    torch.save({'state_dict': {'a': torch.zeros(1)}}, tmp_path / 'bare.pth')
    with pytest.raises(UserError, match='does not say its classes'):
        publish(tmp_path / 'bare.pth', tmp_path / 'out.pth')
    run_main(monkeypatch, 'tools/publish_model.py', trained.checkpoint, tmp_path / 'out.pth')
    with pytest.raises(UserError, match=r'none\.pth: no such file'):
        run_main(monkeypatch, 'tools/publish_model.py', tmp_path / 'none.pth', tmp_path / 'o.pth')
    [path] = tmp_path.glob('out-*.pth')
    assert str(path) in capsys.readouterr().out
