"""What errors cost, on cases that one can count by hand."""

import numpy as np
import pytest

from projects.openimages.analysis.causes import Cause
from projects.openimages.analysis.errors import KINDS, error_costs, missed
from projects.openimages.metric import score
from tests.analysis.scenes import ANIMAL, CAT, CUP, DOG, Found, Scene, Thing, outcomes_of


def costs_of(folder, *scenes):
    found = outcomes_of(folder, *scenes)
    return {name: (cost.count, cost.cost) for name, cost in error_costs(found, 4).items()
            if cost.count}


def test_a_perfect_dump_has_no_errors(tmp_path):
    assert costs_of(tmp_path, Scene((Thing(CUP, 0, 10),), (Found(CUP, 0.9, 0, 10),))) == {}


def test_background_before_the_only_true_one_costs_half(tmp_path):
    # AP is 1/2: the second of two is true. Without the first it is 1.
    assert costs_of(tmp_path, Scene((Thing(CUP, 0, 10),), (
        Found(CUP, 0.9, 20, 30), Found(CUP, 0.8, 0, 10)))) == {
            'background': (1, 0.5), 'all false positives': (1, 0.5)}


def test_background_after_all_true_ones_costs_nothing(tmp_path):
    assert costs_of(tmp_path, Scene((Thing(CUP, 0, 10),), (
        Found(CUP, 0.8, 20, 30), Found(CUP, 0.9, 0, 10)))) == {
            'background': (1, 0.0), 'all false positives': (1, 0.0)}


def test_a_duplicate_between_two_true_ones(tmp_path):
    # True, duplicate, true: AP = 1/2 * 1 + 1/2 * 2/3 = 5/6.
    costs = costs_of(tmp_path, Scene((Thing(CUP, 0, 10), Thing(CUP, 20, 30)), (
        Found(CUP, 0.9, 0, 10), Found(CUP, 0.8, 0, 10), Found(CUP, 0.7, 20, 30))))
    assert costs['duplicate'] == (1, pytest.approx(1 / 6))
    assert set(costs) == {'duplicate', 'all false positives'}


def test_a_poor_mask_put_right_finds_its_instance(tmp_path):
    # One of two found, the other by a poor mask with the highest score: false, true: AP = 1/4.
    # Put right: true, true: 1. Only removed: AP = 1/2. Nothing is missed: the mask had found it.
    costs = costs_of(tmp_path, Scene((Thing(CUP, 0, 10), Thing(CUP, 20, 30)), (
        Found(CUP, 0.9, 16, 26), Found(CUP, 0.8, 0, 10))))
    assert costs == {'poor mask': (1, 0.75), 'all false positives': (1, 0.25),
                     'all missed': (1, 0.25)}


def test_of_several_poor_masks_the_best_becomes_true_and_the_others_go(tmp_path):
    # AP 0 becomes 1.
    costs = costs_of(tmp_path, Scene((Thing(CUP, 20, 30),), tuple(
        Found(CUP, score, 16, 26) for score in (0.5, 0.9, 0.7))))
    assert costs['poor mask'] == (3, 1.0)
    # With background between them: true, false has AP 1; false, true would have 1/2.
    costs = costs_of(tmp_path, Scene((Thing(CUP, 20, 30),), (
        Found(CUP, 0.9, 16, 26), Found(CUP, 0.85, 0, 5), Found(CUP, 0.8, 16, 26))))
    assert costs['poor mask'] == (2, 1.0)


def test_a_poor_mask_on_an_instance_that_is_found_is_only_removed(tmp_path):
    # Poor, true: AP 1/2, and 1 without the first.
    costs = costs_of(tmp_path, Scene((Thing(CUP, 20, 30),), (
        Found(CUP, 0.9, 16, 26), Found(CUP, 0.8, 20, 30))))
    assert costs['poor mask'] == (1, 0.5)


def test_a_wrong_class_put_right_is_true_in_the_class_that_it_lies_on(tmp_path):
    # The dog is taken for a cat: cat: false, true: AP 1/2; dog 0; animal (of which nothing is
    # detected) 0. Put right, cat and dog have 1.
    costs = costs_of(tmp_path, Scene((Thing(CAT, 0, 10), Thing(DOG, 20, 30)), (
        Found(CAT, 0.9, 20, 30), Found(CAT, 0.8, 0, 10))))
    assert costs['wrong class'] == costs['wrong class: sibling'] == (1, pytest.approx(1.5 / 3))
    assert 'wrong class: other' not in costs
    # Animal misses both of its instances; the dog is not missed, for it was seen.
    assert costs['missed'] == (2, pytest.approx(1 / 3))
    assert costs['all missed'] == (3, pytest.approx(2 / 3))


def test_a_wrong_class_on_a_box_without_mask_is_only_removed(tmp_path):
    # Cup: false, true: AP 1/2. Cat and animal have another instance, which nothing has found.
    costs = costs_of(tmp_path, Scene(
        (Thing(CUP, 0, 10), Thing(CAT, 20, 30, mask=False), Thing(CAT, 30, 40)),
        (Found(CUP, 0.9, 20, 30), Found(CUP, 0.8, 0, 10))))
    for name in ('wrong class', 'wrong class: other', 'all false positives'):
        assert costs[name] == (1, pytest.approx(0.5 / 3))
    assert costs['missed'] == (2, pytest.approx(2 / 3))


def test_missed_instances_are_no_longer_looked_for(tmp_path):
    # One of four found: AP 1/4, and 1 of what is left.
    costs = costs_of(tmp_path, Scene(tuple(Thing(CUP, n, n + 8) for n in (0, 10, 20, 30)), (
        Found(CUP, 0.9, 0, 8),)))
    assert costs == {'missed': (3, 0.75), 'all missed': (3, 0.75)}


def test_a_class_of_which_nothing_is_left_has_1_and_stays_in_the_mean(tmp_path):
    costs = costs_of(tmp_path, Scene((Thing(CUP, 0, 10), Thing(ANIMAL, 20, 30)), (
        Found(CUP, 0.9, 0, 10),)))
    assert costs['missed'] == (1, 0.5)


def test_an_instance_without_mask_is_never_missed(tmp_path):
    found = outcomes_of(tmp_path, Scene((Thing(CUP, 0, 10, mask=False), Thing(CUP, 20, 30))))
    assert found.instance_area[missed(found)].tolist() == [100]


def test_counts_are_those_of_the_causes_and_gains_are_by_class(tmp_path):
    found = outcomes_of(tmp_path, Scene((Thing(CUP, 0, 10), Thing(DOG, 20, 30)), (
        Found(CUP, 0.9, 20, 30), Found(CUP, 0.8, 0, 10), Found(CUP, 0.7, 0, 10))))
    costs = error_costs(found, 4)
    for name, causes in KINDS.items():
        assert costs[name].count == np.isin(found.cause, causes).sum()
    base = score(found.matches, found.positives(4)).average_precisions
    assert base[CUP] == 0.5 and found.cause.tolist().count(Cause.DUPLICATE) == 1
    np.testing.assert_array_equal(costs['wrong class'].gains, [0, np.nan, 1, 0.5])
