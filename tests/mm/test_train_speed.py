"""The benchmark of training trains the same model by every arm, stock parts in the stock one."""

from argparse import Namespace

import pytest
import torch

from benchmarks.train_speed import ARMS, make_config, train
from projects.openimages.mm.engine.config import build_model

ARGS = Namespace(iterations=2, warm=1, batch_size=2, workers=0)


@pytest.fixture(scope='module')
def root(demo_root, tmp_path_factory):
    """The demo data, in a folder to write into."""
    folder = tmp_path_factory.mktemp('speed')
    for path in demo_root.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


@pytest.mark.parametrize('gpu', [False, True])
def test_the_stock_arm_has_nothing_of_ours_and_the_same_weights(root, gpu):
    configs = {arm: make_config(arm, root, gpu, ARGS) for arm in ARMS}
    used = {key: configs['stock'][key] for key in ('model', 'train_dataloader', 'train_cfg')}
    for name in ('IgnoreAware', 'BoxMask', 'Rle', 'PackInstances', 'OpenImages', 'Resumable'):
        assert name in str(configs['ours']) and name not in str(used), name
    assert configs['stock'].optim_wrapper.type == ('AmpOptimWrapper' if gpu else 'OptimWrapper')
    assert configs['fast'].optim_wrapper.type == 'Bfloat16OptimWrapper'
    assert configs['recipe-fast'].optim_wrapper.type == 'Bfloat16OptimWrapper'
    assert configs['recipe'].model.roi_head.type == 'FederatedRoIHead'
    assert configs['compiled'].model.data_preprocessor.type == 'BucketPreprocessor'
    if not gpu:
        stock, ours = (build_model(configs[arm]).state_dict() for arm in ('stock', 'ours'))
        assert {name: value.shape for name, value in stock.items()} == {
            name: value.shape for name, value in ours.items()}


@pytest.mark.skipif(torch.cuda.is_available(), reason='times the CPU')
def test_an_arm_gives_its_figures(root):
    found = {arm: train(arm, root, False, ARGS) for arm in ('stock', 'fast', 'recipe-fast')}
    for figures in found.values():
        assert set(figures) == {'images a second', 'cpu s an image', 'memory', 'loss'}
        assert all(value > 0 for value in figures.values())
    assert found['fast']['loss'] == pytest.approx(found['stock']['loss'], rel=0.2)
