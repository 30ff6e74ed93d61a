"""Which detections are handed in: threshold, cap, hierarchy."""

import numpy as np
import pytest

from projects.openimages.labels import LabelSpace
from projects.openimages.submissions.selection import expand_detections, select_detections

ANIMAL, CAT, TOY, TEDDY = range(4)


@pytest.fixture
def space() -> LabelSpace:
    """Cat is an animal; a teddy is a toy and an animal."""
    above = np.zeros((4, 4), bool)
    above[CAT, ANIMAL] = above[TEDDY, ANIMAL] = above[TEDDY, TOY] = True
    return LabelSpace(('/m/a', '/m/c', '/m/t', '/m/d'), ('Animal', 'Cat', 'Toy', 'Teddy'), above)


def said(selection):
    return list(zip(selection.rows.tolist(), selection.class_ids.tolist(),
                    selection.scores.tolist(), strict=True))


def test_detections_come_first_then_their_ancestors_in_class_order(space):
    got = expand_detections([TEDDY, CAT], np.array([0.5, 0.25]), ['m', 'n'], space)
    assert said(got) == [(0, TEDDY, 0.5), (1, CAT, 0.25),
                         (0, ANIMAL, 0.5), (0, TOY, 0.5), (1, ANIMAL, 0.25)]


@pytest.mark.parametrize(('cat', 'animal', 'row'), [(0.75, 0.5, 0), (0.5, 0.75, 1)])
def test_higher_score_is_kept_where_the_mask_stands_for_the_ancestor(space, cat, animal, row):
    got = expand_detections([CAT, ANIMAL], np.array([cat, animal]), ['same', 'same'], space)
    assert said(got) == [(0, CAT, cat), (row, ANIMAL, 0.75)]


def test_two_leaves_with_one_mask_give_their_ancestor_once(space):
    got = expand_detections([CAT, TEDDY], np.array([0.25, 0.5]), ['same', 'same'], space)
    assert said(got) == [(0, CAT, 0.25), (1, TEDDY, 0.5), (1, ANIMAL, 0.5), (1, TOY, 0.5)]


def test_cap_keeps_the_best_in_their_order_and_counts_before_expansion(space):
    got = select_detections([CAT, CAT, CAT], np.array([0.25, 0.5, 0.75]), 'abc',
                            label_space=space, max_per_img=2)
    assert said(got) == [(1, CAT, 0.5), (2, CAT, 0.75), (1, ANIMAL, 0.5), (2, ANIMAL, 0.75)]


def test_cap_keeps_the_earlier_of_equal_scores():
    got = select_detections([CAT, TOY, TEDDY], np.array([0.5, 0.5, 0.5]), 'abc', max_per_img=2)
    assert got.rows.tolist() == [0, 1]


def test_threshold_keeps_a_score_that_equals_it():
    got = select_detections([CAT, CAT], np.array([0.5, 0.4999], np.float32), 'ab', score_thr=0.5)
    assert got.rows.tolist() == [0] and got.scores.dtype == np.float32


def test_no_detections_stay_none(space):
    assert len(select_detections([], np.zeros(0, np.float32), [], label_space=space)) == 0
