"""What a label space adds to a score: names, and groups of classes."""

import numpy as np
import pytest

from projects.openimages.challenge.report import class_groups, describe
from projects.openimages.metric import ChallengeScore

TRAIN_IMAGES = np.array([900, 80, 5, 0, 0, 30])


@pytest.fixture
def result() -> ChallengeScore:
    """Animal 0.5, cat 0.25, dog without positives but with a false detection, cup 1."""
    nan = np.nan
    return ChallengeScore(np.array([0.5, 0.25, nan, nan, nan, 1.0]), np.array([4, 3, 0, 0, 0, 1]),
                          np.array([2, 1, 0, 0, 0, 1]), np.array([1, 0, 1, 0, 0, 0]),
                          np.zeros(6, int))


def test_means_over_groups(result, small_labels):
    assert describe(result, small_labels, TRAIN_IMAGES, bounds=(50, 500)).means == pytest.approx({
        'mAP': (0.5 + 0.25 + 1) / 3, 'mAP_leaves': (0.25 + 1) / 2, 'mAP_parents': 0.5,
        'mAP_frequent': 0.5, 'mAP_common': 0.25, 'mAP_rare': 1.0})
    assert list(describe(result, small_labels).means) == ['mAP', 'mAP_leaves', 'mAP_parents']


def test_described_score_is_the_same_score_with_names(result, small_labels):
    frame = describe(result, small_labels, TRAIN_IMAGES).to_pandas('class_id')
    assert frame['name'].to_list() == ['Animal', 'Cat, domestic', 'Dög', 'Cup']
    assert frame['mid'].to_list() == ['/m/0animal', '/m/0cat', '/m/0dog', '/m/0cup']
    assert frame['train images'].to_list() == [900, 80, 5, 30]
    assert frame['AP'].to_list()[:2] == [0.5, 0.25]


@pytest.mark.parametrize(('images', 'group'), [(49, 'rare'), (50, 'common'), (499, 'common'),
                                               (500, 'frequent')])
def test_class_is_in_the_one_group_of_its_frequency(small_labels, images, group):
    groups = class_groups(small_labels, np.full(6, images), bounds=(50, 500))
    frequencies = {name for name in ('rare', 'common', 'frequent') if groups[name][0]}
    assert frequencies == {group}
