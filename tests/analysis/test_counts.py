"""Confusion, calibration, operating points, worst images and suspects on small scenes."""

import csv

import numpy as np
import pytest

from projects.openimages.analysis.calibration import BINS, calibrate
from projects.openimages.analysis.causes import Cause
from projects.openimages.analysis.confusion import confusion_matrix, confusions
from projects.openimages.analysis.operating import (
    by_cap,
    by_iou,
    by_size,
    by_threshold,
    pr_curves,
)
from projects.openimages.analysis.suspects import (
    ABSENT,
    NOT_VERIFIED,
    OTHER_LABEL,
    PRESENT,
    find_suspects,
    write_suspects,
)
from projects.openimages.analysis.worst import image_errors, worst_classes
from projects.openimages.data.index import PreparedIndex
from projects.openimages.metric import score
from projects.openimages.submissions.formats import Submission
from tests.analysis.scenes import (
    ANIMAL,
    CAT,
    CUP,
    DOG,
    HEIGHT,
    MIDS,
    WIDTH,
    Found,
    Scene,
    Thing,
    image_id,
    outcomes_of,
)

CATS_FOR_DOGS = (
    Scene((Thing(DOG, 0, 10), Thing(CAT, 20, 30)), (
        Found(CAT, 0.9, 0, 10), Found(CAT, 0.8, 20, 30), Found(ANIMAL, 0.9, 0, 10))),
    Scene((Thing(DOG, 0, 10),), (Found(CAT, 0.2, 0, 10), Found(CUP, 0.7, 0, 10)), absent=(CAT,)),
    Scene((Thing(DOG, 0, 10),), (Found(CAT, 0.99, 0, 10),)))  # cat is not verified here


def test_confusion_counts_where_both_classes_are_verified(tmp_path):
    found = outcomes_of(tmp_path, *CATS_FOR_DOGS)
    pair, = confusions(found, 0.3)
    assert (pair.predicted, pair.actual, pair.relation) == (CAT, DOG, Cause.SIBLING)
    assert (pair.count, pair.confident, pair.mean_score) == (2, 1, pytest.approx(0.55))
    assert found.matches.image[list(pair.rows)].tolist() == [0, 1]
    classes, matrix = confusion_matrix(found, [pair], 0.3)
    assert (classes, matrix.tolist()) == ([DOG, CAT], [[0, 1], [0, 1]])


def test_expanded_detections_confuse_once(tmp_path):
    scene = Scene((Thing(CUP, 0, 10),), (Found(CAT, 0.9, 0, 10), Found(ANIMAL, 0.9, 0, 10)),
                  absent=(ANIMAL,))
    pair, = confusions(outcomes_of(tmp_path, scene), 0.3)
    assert (pair.predicted, pair.actual, pair.count) == (CAT, CUP, 1)


def test_no_confusion_is_none(tmp_path):
    found = outcomes_of(tmp_path, Scene((Thing(CUP, 0, 10),)))
    assert confusions(found, 0.3) == []
    assert confusion_matrix(found, [], 0.3)[0] == []


def test_calibration_compares_scores_with_the_share_of_true(tmp_path):
    found = outcomes_of(
        tmp_path, Scene((Thing(CUP, 0, 10), Thing(CUP, 20, 30, mask=False)), (
            Found(CUP, 0.91, 0, 10), Found(CUP, 0.93, 10, 20), Found(CUP, 1.0, 30, 40),
            Found(CUP, 0.02, 20, 30), Found(DOG, 0.5, 0, 10))))
    told = calibrate(found)
    assert told.counts.sum() == len(found) == 5
    assert {(kind, place): told.counts[kind, place]
            for kind, place in np.argwhere(told.counts).tolist()} == {
                (0, 18): 1, (1, 18): 1, (1, BINS - 1): 1, (2, 0): 1, (3, 10): 1}
    assert told.precisions[18] == 0.5 and told.mean_scores[18] == pytest.approx(0.92)
    assert told.precisions[19] == 0 and np.isnan(told.precisions[0])
    assert told.expected_error == pytest.approx((2 * 0.42 + 1.0) / 3)


def test_calibration_of_nothing_is_unknown(tmp_path):
    assert np.isnan(calibrate(outcomes_of(tmp_path, Scene((Thing(CUP, 0, 10),)))).expected_error)


MANY = tuple(Scene((Thing(CUP, 0, 10), Thing(CAT, 20, 30)), (
    Found(CUP, 0.1 * n + 0.05, 0, 10), Found(CAT, 0.5, 20, 30 + n), Found(CUP, 0.4, 10, 20),
    Found(ANIMAL, 0.5, 20, 30 + n))) for n in range(8))


def scored(folder, scenes):
    found = outcomes_of(folder, *scenes)
    return score(found.matches, found.positives(4)).mean_average_precision


def test_thresholds_and_caps_are_those_of_smaller_submissions(tmp_path):
    found = outcomes_of(tmp_path, *MANY)
    positives = found.positives(4)
    thresholds = by_threshold(found, positives)
    assert len(set(thresholds.values())) > 3
    for threshold in (0.0, 0.3, 0.45):
        fewer = [Scene(scene.things, tuple(one for one in scene.found if one.score >= threshold))
                 for scene in MANY]
        assert thresholds[threshold] == scored(tmp_path, fewer)
    caps = by_cap(found, positives)
    assert list(caps) == [1, 2, 3]
    for cap, value in caps.items():
        fewer = []
        for scene in MANY:  # the animal goes with the cat that it repeats
            own = sorted((one for one in scene.found if one.class_id != ANIMAL),
                         key=lambda one: -one.score)[:cap]
            fewer.append(Scene(scene.things, tuple(
                one for one in scene.found
                if one in own or (one.class_id == ANIMAL and any(o.class_id == CAT for o in own)))))
        assert value == scored(tmp_path, fewer)


def test_iou_thresholds_ask_for_better_masks(tmp_path):
    scene = Scene((Thing(CUP, 0, 20),), (Found(CUP, 0.9, 0, 13),))  # IoU 0.65
    found = outcomes_of(tmp_path, scene)
    values = by_iou(found, found.positives(4))
    assert [thr for thr, value in values.items() if value == 1] == [0.5, 0.55, 0.6, 0.65]


def test_sizes_are_apart_and_other_sizes_ignored(tmp_path):
    sizes = {'small': (1, 100), 'large': (100, np.inf)}
    scene = Scene((Thing(CUP, 0, 5), Thing(CUP, 20, 40)), (
        Found(CUP, 0.6, 20, 40), Found(CUP, 0.8, 10, 15), Found(CUP, 0.7, 0, 5)))
    # The false one is small: it stands before the small cup (AP 1/2), not before the large one.
    assert by_size(outcomes_of(tmp_path, scene), 4, sizes) == {
        'small': (0.5, 1), 'large': (1.0, 1)}


def test_what_finds_an_object_is_of_its_size(tmp_path):
    found = outcomes_of(tmp_path, Scene((Thing(CUP, 0, 10),), (Found(CUP, 0.9, 0, 9),)))
    assert by_size(found, 4, {'large': (100, np.inf)}) == {'large': (1.0, 1)}


def test_a_curve_has_a_point_for_each_true_positive(tmp_path):
    scene = Scene((Thing(CUP, 0, 10), Thing(CUP, 20, 30)), (
        Found(CUP, 0.9, 0, 10), Found(CUP, 0.8, 10, 20), Found(CUP, 0.7, 20, 30),
        Found(CUP, 0.6, 30, 40)))
    found = outcomes_of(tmp_path, scene)
    curves = pr_curves(found, found.positives(4))
    assert list(curves) == [CUP]
    np.testing.assert_allclose(curves[CUP], [[0.5, 1, 0.9], [1, 2 / 3, 0.7]])


def test_errors_of_images_are_misses_and_confident_false_ones(tmp_path):
    twice = Scene(found=(Found(CAT, 0.9, 20, 30), Found(ANIMAL, 0.9, 20, 30)), present=(CAT,))
    found = outcomes_of(tmp_path, *CATS_FOR_DOGS, Scene(), twice)
    errors = image_errors(found, 5, 0.3)
    # The dogs are never found; of the expanded animals nothing counts. Cup is not verified.
    assert (errors.missed.tolist(), errors.false.tolist()) == ([1, 1, 1, 0, 0], [1, 0, 0, 0, 1])
    assert errors.worst(10) == [0, 1, 2, 4] and errors.worst(1) == [0]
    animal = image_errors(found, 5, 0.3, ANIMAL)
    assert (animal.missed.tolist(), animal.false.tolist()) == ([1, 1, 1, 0, 0], [0, 0, 0, 0, 1])


def test_classes_with_few_instances_are_not_the_worst():
    values = np.array([0.5, 0.1, np.nan, 0.0, 0.3])
    assert worst_classes(values, np.array([9, 9, 0, 2, 5]), 4) == [1, 4, 0, 3]


SUSPICIOUS = (
    Scene((Thing(CAT, 0, 10),), (Found(CUP, 0.9, 20, 30), Found(DOG, 0.8, 0, 10),
                                 Found(CAT, 0.7, 0, 10), Found(ANIMAL, 0.3, 20, 30))),
    Scene((Thing(CUP, 0, 10),), (Found(CUP, 0.95, 20, 40), Found(CAT, 0.85, 20, 30),
                                 Found(CAT, 0.75, 0, 10), Found(ANIMAL, 0.85, 20, 30)),
          absent=(ANIMAL,)),
    Scene((Thing(CAT, 0, 10),), (Found(ANIMAL, 0.65, 0, 10), Found(ANIMAL, 0.64, 0, 10))))


def suspects_of(folder, **options):
    found = outcomes_of(folder, *SUSPICIOUS)
    with Submission(folder / 'dump.csv') as submission:
        return find_suspects(found, submission, PreparedIndex.open(folder / 'index.arrow'),
                             **options)


def test_suspects_are_confident_and_say_why(tmp_path):
    found = suspects_of(tmp_path, score_thr=0.5)
    assert [(one.ImageID, one.Name, one.Score, one.Reason, one.LabelHere) for one in found] == [
        (image_id(1), 'Cup', 0.95, PRESENT, ''), (image_id(0), 'Cup', 0.9, NOT_VERIFIED, ''),
        (image_id(1), 'Cat', 0.85, ABSENT, ''), (image_id(0), 'Dog', 0.8, NOT_VERIFIED, MIDS[CAT]),
        (image_id(1), 'Cat', 0.75, OTHER_LABEL, MIDS[CUP])]
    first = found[0]
    assert (first.XMin, first.XMax, first.YMin, first.YMax) == (20 / WIDTH, 1, 0, 10 / HEIGHT)
    assert (found[3].IoU, first.IoU) == (1, 0)
    assert len(suspects_of(tmp_path, score_thr=0.5, most=2)) == 2


def test_suspects_are_a_csv(tmp_path):
    found = suspects_of(tmp_path, score_thr=0.5)
    write_suspects(tmp_path / 'suspects.csv', found)
    with open(tmp_path / 'suspects.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 and float(rows[0]['Score']) == 0.95
    assert list(rows[0]) == ['ImageID', 'LabelName', 'Name', 'Score', 'XMin', 'XMax', 'YMin',
                             'YMax', 'Reason', 'LabelHere', 'IoU']
