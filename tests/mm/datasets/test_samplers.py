from itertools import islice

import numpy as np
import pytest

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
