"""The bootstrap scores images as often as they are drawn; what is compared is paired."""

import numpy as np
import pytest

from projects.openimages.analysis.bootstrap import Interval, resample
from projects.openimages.analysis.compare import compare, mean_of_draws
from projects.openimages.metric import Matches, score
from tests.analysis.scenes import CAT, CUP, Found, Scene, Thing, outcomes_of


def scenes(seed, images=12):
    """Cups and cats, found more or less well."""
    random = np.random.default_rng(seed)
    made = []
    for n in range(images):
        things = (Thing(CUP, 0, 10), *([Thing(CAT, 20, 30)] if n % 3 == 0 else []))
        found = tuple(Found(thing.class_id, round(float(random.random()), 6), thing.left + shift,
                            thing.right + shift) for thing in things
                      for shift in random.integers(0, 8, 3).tolist())
        made.append(Scene(things, found, present=(CAT,)))
    return made


def drawn_by_hand(found, chosen, num_classes):
    """AP of the images in ``chosen``, each as often as it is there, by the metric itself."""
    parts, positives = [], np.zeros(num_classes, np.int64)
    for place, image in enumerate(chosen.tolist()):
        one = found.matches.select(found.matches.image == image)
        parts.append(Matches(np.full(len(one), place, np.int32), one.detection, one.class_id,
                             one.score, one.outcome, one.instance, one.overlap))
        here = found.to_find & (found.instance_image == image)
        positives += np.bincount(found.instance_class[here], minlength=num_classes)
    return score(Matches.concatenate(parts), positives).average_precisions


@pytest.fixture
def two(tmp_path):
    return outcomes_of(tmp_path, *scenes(0)), outcomes_of(tmp_path, *scenes(1))


def test_every_draw_is_the_score_of_its_images(two):
    draws = resample(two, 12, 4, draws=30, seed=7)
    random = np.random.default_rng(7)
    for draw in range(30):
        chosen = random.integers(0, 12, 12)
        for number, found in enumerate(two):
            np.testing.assert_allclose(draws[number, draw], drawn_by_hand(found, chosen, 4),
                                       atol=1e-12)
    assert np.isnan(draws[:, :, 2]).all()  # no dog


def test_a_draw_without_a_class_is_unknown_for_it(tmp_path):
    found = outcomes_of(tmp_path, Scene((Thing(CAT, 0, 10),), (Found(CAT, 0.9, 0, 10),)),
                        Scene((Thing(CUP, 0, 10),)))
    draws = resample([found], 2, 4, draws=200)[0]
    assert set(np.unique(np.nan_to_num(draws[:, CAT], nan=-1))) == {-1, 1}
    assert set(np.unique(np.nan_to_num(draws[:, CUP], nan=-1))) == {-1, 0}
    means = mean_of_draws(draws)
    # Only the cup; cat, animal (of which nothing is detected) and cup; cat and animal.
    assert set(np.round(means, 6).tolist()) == {0, 0.333333, 0.5}


def test_processes_do_not_change_the_draws(two, monkeypatch):
    one = resample(two, 12, 4, draws=10)
    monkeypatch.setattr('projects.openimages.analysis.bootstrap._FEW', 0)
    np.testing.assert_array_equal(resample(two, 12, 4, draws=10, workers=2), one)


def test_a_dump_compared_with_itself_differs_by_nothing(two):
    same = compare(two[0], two[0], resample([two[0]] * 2, 12, 4, draws=50), 12, 0.3, 5)
    assert (same.difference, same.interval) == (0, Interval(0, 0))
    assert same.better == same.worse == []


def test_the_interval_covers_what_is_known_and_leaves_out_nothing_else():
    assert Interval.of(np.array([np.nan, 1.0, 1.0])) == Interval(1, 1)
    assert np.isnan(Interval.of(np.array([np.nan])).low)
    told = Interval.of(np.arange(1001.0))
    assert (told.low, told.high) == pytest.approx((25, 975))
    assert Interval(0.1, 0.2).excludes_zero and Interval(-2, -1).excludes_zero
    assert not Interval(-1, 1).excludes_zero and not Interval(0, 1).excludes_zero


def test_what_got_better_and_worse(tmp_path):
    cup, cat = Thing(CUP, 0, 10), Thing(CAT, 20, 30)
    right = (Found(CUP, 0.9, 0, 10), Found(CAT, 0.9, 20, 30))
    ours = outcomes_of(tmp_path, *[Scene((cup, cat), right)] * 8, Scene((cup,)))
    theirs = outcomes_of(tmp_path, *[Scene((cup, cat), right[:1])] * 8,
                         Scene((cup,), right[:1]))
    told = compare(ours, theirs, resample([ours, theirs], 9, 4, draws=300), 9, 0.3, 3)
    by_class = {one.class_id: one for one in told.classes}
    assert by_class[CAT].difference == 1 and by_class[CAT].interval == Interval(1, 1)
    assert by_class[CUP].difference == pytest.approx(-1 / 9)
    assert not by_class[CUP].interval.excludes_zero  # one image of nine
    assert told.interval.excludes_zero and told.difference == pytest.approx((1 - 1 / 9) / 3)
    assert told.classes[0].class_id == CAT
    assert told.better == [0, 1, 2] and told.worse == [8]
