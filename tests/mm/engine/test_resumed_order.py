"""Which seed the order of a resumed training is made from."""

import numpy as np
import pytest
from mmengine.runner import Runner

import projects.openimages.mm  # noqa: F401
from tests.mm.engine.test_mmengine_internals import Line, Numbers


class Lying(Numbers):
    """Numbers that are images wider than high."""

    def is_portrait(self):
        return np.zeros(len(self), bool)


def read_in_training(folder, max_iters, own_seed, **options):
    """What is read in iterations of two images; the runner's seed is drawn."""
    sampler = {'type': 'InfiniteSampler'} | ({} if own_seed is None else {'seed': own_seed})
    runner = Runner(
        Line(), str(folder), train_dataloader={
            'batch_size': 2, 'dataset': Lying(), 'sampler': sampler, 'num_workers': 0,
            'batch_sampler': {'type': 'ResumableAspectRatioBatchSampler'},
            'collate_fn': {'type': 'default_collate'}},
        train_cfg={'type': 'ResumableTrainLoop', 'max_iters': max_iters},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}}, experiment_name=str(folder),
        default_scope='mmdet', default_hooks={
            'checkpoint': {'type': 'CheckpointHook', 'by_epoch': False, 'interval': 2}}, **options)
    runner.train()
    return runner.train_dataloader.dataset.read, runner.seed


@pytest.mark.parametrize('own_seed', [None, 7])
def test_a_resumed_training_goes_on_in_the_same_order(tmp_path, own_seed):
    first, seed = read_in_training(tmp_path / 'first', 2, own_seed)
    resumed, _ = read_in_training(tmp_path / 'resumed', 6, own_seed, resume=True,
                                  load_from=str(tmp_path / 'first' / 'iter_2.pth'))
    whole, _ = read_in_training(tmp_path / 'whole', 6, own_seed, randomness={'seed': seed})
    assert len(first) == 4 and len(whole) == 12
    assert first == whole[:4] and resumed == whole[4:]
    if own_seed is not None:
        other, _ = read_in_training(tmp_path / 'other', 6, own_seed, randomness={'seed': seed + 1})
        assert other == whole  # the sampler's own seed alone says what is read
