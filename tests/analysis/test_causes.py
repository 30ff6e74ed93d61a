"""Why a detection is false, on scenes of a few rectangles."""

import numpy as np
import pytest

from projects.openimages.analysis.causes import Cause, direct_parents, relations
from projects.openimages.labels import LabelSpace
from tests.analysis.scenes import (
    ANIMAL,
    CAT,
    CUP,
    DOG,
    Found,
    Scene,
    Thing,
    image_id,
    label_space,
    make_index,
    outcomes_of,
)

AT = (0, 10)


def causes_of(folder, *scenes):
    """By image, the causes in the order of the file."""
    found = outcomes_of(folder, *scenes)
    result = []
    for n in range(len(scenes)):
        rows = np.flatnonzero(found.matches.image == n)
        rows = rows[np.argsort(found.matches.detection[rows])]
        result.append([Cause(found.cause[row]) for row in rows])
    return result if len(scenes) > 1 else result[0]


@pytest.mark.parametrize(('class_id', 'expected'), [
    (CAT, Cause.TRUE), (DOG, Cause.SIBLING), (ANIMAL, Cause.TRUE), (CUP, Cause.OTHER_CLASS)])
def test_detection_on_a_cat_by_its_class(tmp_path, class_id, expected):
    scene = Scene((Thing(CAT, *AT),), (Found(class_id, 0.9, *AT),), absent=(DOG, CUP))
    assert causes_of(tmp_path, scene) == [expected]


def test_a_descendant_on_an_instance_known_only_by_its_parent_is_a_relative(tmp_path):
    scene = Scene((Thing(ANIMAL, *AT),), (Found(CAT, 0.9, *AT),), absent=(CAT,))
    assert causes_of(tmp_path, scene) == [Cause.RELATIVE]


def test_a_wrong_class_that_nobody_has_verified_is_dropped(tmp_path):
    scene = Scene((Thing(CAT, *AT),), (Found(DOG, 0.9, *AT),))
    assert causes_of(tmp_path, scene) == [Cause.UNVERIFIED]


@pytest.mark.parametrize(('right', 'expected'), [
    (20, Cause.TRUE),          # IoU 10 / 20
    (21, Cause.POOR_MASK),     # 10 / 21
    (40, Cause.POOR_MASK)])    # 10 / 40
def test_a_mask_is_poor_below_half(tmp_path, right, expected):
    scene = Scene((Thing(CAT, *AT),), (Found(CAT, 0.9, 0, right),))
    assert causes_of(tmp_path, scene) == [expected]


@pytest.mark.parametrize(('left', 'expected'), [
    (8, Cause.POOR_MASK),      # 2 / 18
    (9, Cause.BACKGROUND),     # 1 / 19
    (20, Cause.BACKGROUND)])
def test_a_mask_that_hardly_touches_is_background(tmp_path, left, expected):
    scene = Scene((Thing(CAT, *AT),), (Found(CAT, 0.9, left, left + 10),))
    assert causes_of(tmp_path, scene) == [expected]


def test_the_second_on_an_instance_is_a_duplicate(tmp_path):
    scene = Scene((Thing(CAT, *AT),), (Found(CAT, 0.7, *AT), Found(CAT, 0.9, 0, 11)))
    assert causes_of(tmp_path, scene) == [Cause.DUPLICATE, Cause.TRUE]


def test_on_another_class_counts_before_a_touch_of_its_own(tmp_path):
    scene = Scene((Thing(CAT, 0, 10), Thing(CUP, 7, 17)), (Found(CAT, 0.9, 7, 17),))
    assert causes_of(tmp_path, scene) == [Cause.OTHER_CLASS]


def test_a_duplicate_counts_before_another_class_in_the_same_place(tmp_path):
    scene = Scene((Thing(CAT, *AT), Thing(CUP, *AT)), (Found(CAT, 0.9, *AT), Found(CAT, 0.8, *AT)))
    assert causes_of(tmp_path, scene) == [Cause.TRUE, Cause.DUPLICATE]


def test_boxes_without_mask_ignore_then_make_duplicates_and_wrong_classes(tmp_path):
    cup = Thing(CUP, *AT, mask=False)
    assert causes_of(tmp_path, Scene((cup,), (
        Found(CUP, 0.9, *AT), Found(CUP, 0.8, *AT), Found(CAT, 0.7, *AT), Found(CUP, 0.6, 20, 30),
        ), absent=(CAT,))) == [Cause.BOX, Cause.DUPLICATE, Cause.OTHER_CLASS, Cause.BACKGROUND]


def test_a_group_of_box_takes_any_number_and_another_class_within_it_is_background(tmp_path):
    group = Thing(CUP, 0, 30, mask=False, group=True)
    assert causes_of(tmp_path, Scene((group,), (
        Found(CUP, 0.9, 0, 5), Found(CUP, 0.8, 0, 5), Found(CAT, 0.7, 0, 30)), absent=(CAT,),
        )) == [Cause.GROUP, Cause.GROUP, Cause.BACKGROUND]


def test_a_group_of_mask_has_one_true_detection_and_absorbs_the_others(tmp_path):
    group = Thing(CUP, 0, 30, group=True)
    assert causes_of(tmp_path, Scene((group,), (
        Found(CUP, 0.8, 0, 5), Found(CUP, 0.9, 10, 15), Found(CUP, 0.7, 25, 40)),
        )) == [Cause.ABSORBED, Cause.TRUE, Cause.BACKGROUND]


def test_an_empty_mask_and_one_beyond_the_cap_are_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr('projects.openimages.metric.matching.MAX_PER_CLASS', 1)
    empty = Found(CAT, 0.9, 3, 3)
    assert causes_of(tmp_path, Scene((Thing(CAT, *AT),), (
        empty, Found(CAT, 0.5, *AT), Found(CAT, 0.4, *AT)))) == [Cause.EMPTY, Cause.TRUE, Cause.CUT]


def test_an_expanded_detection_is_a_duplicate_for_the_parent_and_true_for_the_class(tmp_path):
    things = (Thing(CAT, *AT), Thing(DOG, 20, 30))
    found = (Found(CAT, 0.9, *AT), Found(ANIMAL, 0.9, *AT), Found(DOG, 0.8, *AT),
             Found(ANIMAL, 0.8, *AT))
    assert causes_of(tmp_path, Scene(things, found)) == [
        Cause.TRUE, Cause.TRUE, Cause.SIBLING, Cause.DUPLICATE]


def test_the_target_is_the_instance_that_the_error_is_about(tmp_path):
    found = outcomes_of(
        tmp_path, Scene((Thing(CUP, 30, 40),)),
        Scene((Thing(CUP, 0, 10), Thing(CAT, 20, 30)),
              (Found(CUP, 0.9, 20, 30), Found(CAT, 0.8, 20, 31), Found(CUP, 0.7, 5, 15),
               Found(CUP, 0.6, 0, 10), Found(CUP, 0.5, 12, 19))))
    about = {}
    for place, target in zip(found.matches.detection, found.target, strict=True):
        about[int(place)] = None if target < 0 else (
            int(found.instance_image[target]), int(found.instance_class[target]))
    assert about == {0: (1, CAT), 1: (1, CAT), 2: (1, CUP), 3: (1, CUP), 4: None}


def test_siblings_share_a_direct_parent():
    # 0 above 1 above 2 and 3; 4 below 0; 5 alone.
    above = np.zeros((6, 6), bool)
    above[[1, 2, 3, 4], 0] = above[[2, 3], 1] = True
    space = LabelSpace(tuple('abcdef'), tuple('abcdef'), above)
    assert np.argwhere(direct_parents(space)).tolist() == [[1, 0], [2, 1], [3, 1], [4, 0]]
    related = relations(space)
    assert (related == related.T).all()
    assert related[2, 3] == related[1, 4] == Cause.SIBLING
    assert related[2, 1] == related[2, 0] == Cause.RELATIVE
    assert related[2, 4] == related[2, 5] == Cause.OTHER_CLASS


def test_the_scenes_are_what_they_say(tmp_path):
    index = make_index(tmp_path / 'index.arrow', [Scene((Thing(CAT, 0, 10),), present=(CUP,))])
    assert index.image_id(0) == image_id(0) and index.label_space.names == label_space().names
    assert index.boxes.tolist() == [[0.0, 0.25, 0.0, 0.5]]
