from itertools import islice

import numpy as np
import pytest
from mmengine.dataset import DefaultSampler, InfiniteSampler

from projects.openimages.mm.datasets.samplers import (
    InfiniteClassAwareSampler,
    ResumableAspectRatioBatchSampler,
)


class Images:
    """Class 0 in 90 images, class 1 in 3, class 2 in none; every third image is upright."""

    @property
    def metainfo(self):
        return {'classes': ('common', 'rare', 'never')}

    def __len__(self):
        return 93

    def get_cat2imgs(self):
        return {0: np.arange(90), 1: np.arange(90, 93), 2: np.arange(0)}

    def is_portrait(self):
        return np.arange(93) % 3 == 0


class ImagesOneByOne:
    """The same images, for a sampler that knows MMDetection's interface only."""

    metainfo = Images.metainfo
    __len__ = Images.__len__

    def get_cat_ids(self, idx):
        return [int(idx >= 90)]

    def get_data_info(self, idx):
        return {'width': 2, 'height': 3 if idx % 3 == 0 else 1}


def take(sampler, count):
    return list(islice(sampler, count))


def test_classes_take_turns_however_rare():
    drawn = take(InfiniteClassAwareSampler(Images(), seed=0), 400)
    assert 180 <= sum(idx >= 90 for idx in drawn) <= 220


def test_the_order_goes_on_beyond_an_epoch():
    drawn = take(InfiniteClassAwareSampler(Images(), seed=0), 3 * 93)
    epochs = [drawn[:93], drawn[93:186], drawn[186:]]
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize('count', [0, 1, 92, 93, 94, 400])
def test_skip_continues_the_uninterrupted_order(count):
    whole = take(InfiniteClassAwareSampler(Images(), seed=5), count + 50)
    resumed = InfiniteClassAwareSampler(Images(), seed=5)
    resumed.skip(count)
    assert take(resumed, 50) == whole[count:]


@pytest.mark.parametrize('count', [0, 1, 40, 200])
def test_skipped_batches_continue_the_uninterrupted_order(count):
    def batches():
        return ResumableAspectRatioBatchSampler(InfiniteClassAwareSampler(Images(), seed=5), 4)

    whole = take(batches(), count + 10)
    resumed = batches()
    resumed.skip_batches(count)
    assert take(resumed, 10) == whole[count:]


def test_a_batch_is_all_upright_or_all_lying():
    sampler = ResumableAspectRatioBatchSampler(InfiniteClassAwareSampler(Images(), seed=1), 4)
    for batch in take(sampler, 60):
        assert len(batch) == 4 and len({idx % 3 == 0 for idx in batch}) == 1


def test_columns_and_single_items_give_the_same_batches():
    by_column, one_by_one = (
        take(ResumableAspectRatioBatchSampler(InfiniteClassAwareSampler(images, seed=2), 4), 60)
        for images in (Images(), ImagesOneByOne()))
    assert by_column == one_by_one


def test_nothing_to_learn_is_said():
    class Empty(Images):
        def get_cat2imgs(self):
            return {0: np.arange(0), 1: np.arange(0), 2: np.arange(0)}

    with pytest.raises(ValueError, match='no image'):
        InfiniteClassAwareSampler(Empty(), seed=0)


def of_process(kind, rank, world_size, **options):
    """A sampler as one of several processes has it."""
    sampler = kind(Images(), seed=5, **options)
    sampler.rank, sampler.world_size = rank, world_size
    if hasattr(sampler, 'total_size'):
        sampler.num_samples = -(-93 // world_size)
        sampler.total_size = sampler.num_samples * world_size
    return sampler


KINDS = [InfiniteClassAwareSampler, InfiniteSampler, DefaultSampler]


@pytest.mark.parametrize('kind', KINDS)
def test_all_processes_have_one_orientation_a_step_and_share_what_one_would_draw(kind):
    world_size = 3  # the epochs of 93 images come out even
    parts = [take(ResumableAspectRatioBatchSampler(of_process(kind, rank, world_size), 2), 40)
             for rank in range(world_size)]
    whole = take(ResumableAspectRatioBatchSampler(of_process(kind, 0, 1), 2 * world_size), 40)
    steps = list(zip(*parts, strict=True))
    full = [step for step in steps if all(len(batch) == 2 for batch in step)]
    assert len(full) > 10
    for step, together in zip(steps, whole, strict=False):
        dealt = [batch[place] for place in range(len(step[0])) for batch in step]
        assert dealt[:len(together)] == together
    mixed = [step for step in full if len({item % 3 == 0 for batch in step for item in batch}) > 1]
    assert len(mixed) <= (1 if kind is DefaultSampler else 0)  # the rest at the end of an epoch


def epochs(batch_sampler, count):
    """Batches over epochs as MMEngine's loop asks for them."""
    batches = []
    for epoch in range(100):
        if epoch:
            batch_sampler.sampler.set_epoch(epoch)
        batches += take(batch_sampler, count - len(batches))
        if len(batches) == count:
            return batches
    raise AssertionError('no batches')


@pytest.mark.parametrize('world_size', [1, 2])
@pytest.mark.parametrize('done', [0, 3, 23, 24, 25, 60, 100])
def test_a_finite_sampler_goes_on_in_the_epoch_where_it_was(done, world_size):
    def batches():
        return ResumableAspectRatioBatchSampler(of_process(DefaultSampler, 0, world_size), 4)

    whole = epochs(batches(), done + 60)
    assert len({tuple(batch) for batch in whole}) > 40
    resumed = batches()
    resumed.skip_batches(done)
    assert epochs(resumed, 60) == whole[done:]


def test_every_process_has_as_many_batches_though_not_all_come_out_even():
    parts = [list(ResumableAspectRatioBatchSampler(
        of_process(DefaultSampler, rank, 4, round_up=False), 2)) for rank in range(4)]
    assert [len(part) for part in parts] == [len(parts[0])] * 4
    assert {item for part in parts for batch in part for item in batch} == set(range(93))
    assert all(part[-1] for part in parts)


@pytest.mark.parametrize('kind', [InfiniteClassAwareSampler, ResumableAspectRatioBatchSampler])
def test_what_was_skipped_is_skipped_once(kind):
    sampler = InfiniteClassAwareSampler(Images(), seed=5)
    if kind is ResumableAspectRatioBatchSampler:
        sampler = kind(sampler, 4)
        sampler.skip_batches(7)
    else:
        sampler.skip(7)
    first, second = take(sampler, 30), take(sampler, 30)
    assert first != second and first[:23] == second[7:]


def test_an_epoch_without_batches_ends():
    batches = ResumableAspectRatioBatchSampler(InfiniteSampler(Images(), seed=0), 4)
    batches.sampler.skip = lambda num_samples: None
    batches.sampler.indices = ()
    batches.skip_batches(5)
    assert list(batches) == []
