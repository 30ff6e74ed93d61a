"""Rules 2 to 6 on images small enough to check by eye: one row of pixels, masks are intervals."""

import numpy as np
import pytest

from projects.openimages.masks import MaskError, rle_from_mask
from projects.openimages.metric import (
    DROPPED,
    FALSE,
    IGNORED,
    TRUE,
    Detections,
    GroundTruth,
    Matches,
    match_image,
    match_images,
)

WIDTH = 20
CAT, DOG = 0, 1


def interval(start, stop, width=WIDTH):
    """Mask of the pixels ``start`` to ``stop - 1``."""
    pixels = np.zeros((1, width), bool)
    pixels[0, start:stop] = True
    return rle_from_mask(pixels)


def truth(*instances, verified=(), with_masks=True):
    """Instances ``(class, start, stop)``, with ``'box'`` (no mask) and ``'group'`` as extras."""
    masks = [None if 'box' in extras else interval(start, stop)
             for _, start, stop, *extras in instances]
    return GroundTruth(
        np.array([instance[0] for instance in instances], int),
        np.array([[start / WIDTH, stop / WIDTH, 0, 1] for _, start, stop, *_ in instances]
                 ).reshape(-1, 4),
        np.array(['group' in instance for instance in instances], bool),
        np.array(verified, int), masks if with_masks else None)


def detections(*found):
    """Detections ``(class, score, start, stop)``."""
    return Detections(np.array([item[0] for item in found], int),
                      np.array([item[1] for item in found], float),
                      [interval(*item[2:]) for item in found])


def outcomes(ground_truth, found, **options):
    """Outcome of each detection in input order."""
    matches, = match_image(ground_truth, found, **options)
    result = np.full(len(found.scores), -1)
    result[matches.detection] = matches.outcome
    return result.tolist()


def test_detection_of_a_class_that_is_not_verified_is_dropped():
    assert outcomes(truth((CAT, 0, 10)), detections((DOG, 0.9, 0, 10))) == [DROPPED]


def test_class_with_an_image_label_is_verified():
    found = detections((DOG, 0.9, 0, 10))
    assert outcomes(truth((CAT, 0, 10), verified=[DOG]), found) == [FALSE]


def test_image_with_labels_only_makes_false_positives():
    assert outcomes(truth(verified=[CAT]), detections((CAT, 0.9, 0, 10))) == [FALSE]


def test_detection_with_an_empty_mask_is_dropped():
    assert outcomes(truth((CAT, 0, 10)), detections((CAT, 0.9, 5, 5))) == [DROPPED]


def test_detection_without_mask_is_dropped():
    found = Detections(np.array([CAT]), np.array([0.9]), [None])
    assert outcomes(truth((CAT, 0, 10)), found) == [DROPPED]


def test_mask_is_not_looked_at_where_its_class_is_not_verified():
    class Masks(list):
        def __getitem__(self, row):
            raise AssertionError('looked at')

    found = Detections(np.array([DOG]), np.array([0.9]), Masks([interval(0, 10)]))
    assert outcomes(truth((CAT, 0, 10)), found) == [DROPPED]


def test_iou_of_exactly_one_half_is_a_match():
    assert outcomes(truth((CAT, 0, 10)), detections((CAT, 0.9, 0, 5))) == [TRUE]
    assert outcomes(truth((CAT, 0, 11)), detections((CAT, 0.9, 0, 5))) == [FALSE]


def test_detection_of_another_class_does_not_match():
    found = detections((DOG, 0.9, 0, 10), (CAT, 0.1, 0, 10))
    assert outcomes(truth((CAT, 0, 10), verified=[DOG]), found) == [FALSE, TRUE]


def test_only_the_best_scored_detection_of_an_instance_is_true():
    found = detections((CAT, 0.5, 0, 10), (CAT, 0.9, 0, 9), (CAT, 0.7, 0, 10))
    assert outcomes(truth((CAT, 0, 10)), found) == [FALSE, TRUE, FALSE]


def test_detection_does_not_look_for_a_second_best_instance():
    # The second overlaps both by half or more, the taken one more.
    ground_truth = truth((CAT, 0, 10), (CAT, 2, 12))
    found = detections((CAT, 0.9, 0, 10), (CAT, 0.8, 0, 11))
    assert outcomes(ground_truth, found) == [TRUE, FALSE]


def test_first_of_two_instances_with_equal_iou_is_taken():
    ground_truth = truth((CAT, 0, 10), (CAT, 2, 12))
    matches, = match_image(ground_truth, detections((CAT, 0.9, 1, 11)))
    assert matches.instance.tolist() == [0]


def test_masks_are_compared_in_single_precision():
    # The second overlap is larger, but not in float32, so the first instance is taken.
    assert 4103 / 8000 < 6274 / 12233
    assert np.float32(4103) / np.float32(8000) == np.float32(6274) / np.float32(12233)
    instances = [interval(6274 - 4103, 8000, 12233), interval(0, 12233, 12233)]
    ground_truth = GroundTruth(np.array([CAT, CAT]), np.zeros((2, 4)), np.zeros(2, bool),
                               np.zeros(0, int), instances)
    found = Detections(np.array([CAT]), np.array([0.9]), [interval(0, 6274, 12233)])
    matches, = match_image(ground_truth, found)
    assert matches.instance.tolist() == [0]


def test_group_of_instance_with_mask_absorbs_by_own_area():
    # Two small detections inside: their IoU is small, but all of their area is in the group.
    found = detections((CAT, 0.8, 0, 3), (CAT, 0.9, 4, 8), (CAT, 0.7, 18, 20))
    assert outcomes(truth((CAT, 0, 16, 'group')), found) == [IGNORED, TRUE, FALSE]


def test_group_whose_best_score_is_zero_counts_for_nothing():
    assert outcomes(truth((CAT, 0, 16, 'group')), detections((CAT, 0.0, 0, 3))) == [IGNORED]


def test_instances_are_claimed_before_groups_absorb():
    ground_truth = truth((CAT, 0, 16, 'group'), (CAT, 0, 4))
    found = detections((CAT, 0.9, 0, 4), (CAT, 0.8, 0, 4))
    assert outcomes(ground_truth, found) == [TRUE, TRUE]
    matches, = match_image(ground_truth, found)
    assert matches.instance.tolist() == [1, 0]


def test_group_is_listed_behind_the_other_detections_of_its_class():
    found = detections((CAT, 0.9, 0, 3), (CAT, 0.1, 18, 20))
    matches, = match_image(truth((CAT, 0, 16, 'group')), found)
    assert matches.score.tolist() == [0.1, 0.9]


def test_detection_on_box_without_mask_is_ignored():
    assert outcomes(truth((CAT, 0, 10, 'box')), detections((CAT, 0.9, 0, 8))) == [IGNORED]


def test_taken_box_does_not_absorb_a_second_detection():
    found = detections((CAT, 0.9, 0, 10), (CAT, 0.8, 0, 10))
    assert outcomes(truth((CAT, 0, 10, 'box')), found) == [IGNORED, FALSE]


def test_group_of_box_without_mask_ignores_all_that_lies_in_it():
    found = detections((CAT, 0.9, 0, 2), (CAT, 0.8, 2, 4), (CAT, 0.7, 14, 20))
    assert outcomes(truth((CAT, 0, 16, 'box', 'group')), found) == [IGNORED, IGNORED, FALSE]


def test_masks_come_before_boxes():
    ground_truth = truth((CAT, 0, 10, 'box'), (CAT, 0, 10))
    found = detections((CAT, 0.9, 0, 10), (CAT, 0.8, 0, 10), (CAT, 0.7, 0, 10))
    assert outcomes(ground_truth, found) == [TRUE, IGNORED, FALSE]


def test_instance_with_an_empty_mask_is_a_box_without_mask():
    ground_truth = truth((CAT, 0, 10))
    empty = GroundTruth(ground_truth.class_ids, ground_truth.boxes, ground_truth.is_group_of,
                        ground_truth.verified, [interval(3, 3)])
    assert outcomes(empty, detections((CAT, 0.9, 0, 10))) == [IGNORED]


def test_box_evaluation_counts_what_boxes_take():
    ground_truth = truth((CAT, 0, 10), (CAT, 10, 20, 'group'), with_masks=False)
    found = detections((CAT, 0.9, 0, 10), (CAT, 0.8, 0, 10), (CAT, 0.7, 12, 14), (CAT, 0.6, 15, 20))
    assert outcomes(ground_truth, found) == [TRUE, FALSE, TRUE, IGNORED]


def test_each_threshold_has_its_own_matches():
    found = detections((CAT, 0.9, 0, 6))
    low, high = match_image(truth((CAT, 0, 10)), found, (0.5, 0.75))
    assert low.outcome.tolist() == [TRUE] and high.outcome.tolist() == [FALSE]
    assert high.overlap.tolist() == [np.float32(0.6)]


def test_overlap_of_a_false_detection_is_with_masks_where_there_are_any():
    found = detections((CAT, 0.9, 10, 14), (DOG, 0.9, 10, 14))
    ground_truth = truth((CAT, 8, 11), (CAT, 10, 20, 'box'), (DOG, 10, 20, 'box'))
    matches, = match_image(ground_truth, found)
    assert matches.outcome.tolist() == [FALSE, FALSE]
    assert matches.overlap.tolist() == np.float32([1 / 6, 0.4]).tolist()


def test_masks_of_different_sizes_are_an_error():
    found = Detections(np.array([CAT]), np.array([0.9]), [interval(0, 5, width=10)])
    with pytest.raises(MaskError, match='10 x 1 and 20 x 1'):
        match_image(truth((CAT, 0, 10)), found)


def test_dropping_the_lowest_scores_does_not_change_the_rest():
    rng = np.random.default_rng(0)
    for _ in range(50):
        starts = rng.integers(0, 15, (2, 8))
        ground_truth = truth(*[(CAT, start, start + 5, *(['box'] if n % 3 == 0 else []),
                                *(['group'] if n % 4 == 0 else []))
                               for n, start in enumerate(starts[0].tolist())])
        scores = rng.permutation(8) / 8
        found = detections(*[(CAT, score, start, start + 5)
                             for score, start in zip(scores, starts[1].tolist(), strict=True)])
        kept = detections(*[(CAT, score, start, start + 5)
                            for score, start in zip(scores, starts[1].tolist(), strict=True)
                            if score >= 0.5])
        whole, = match_image(ground_truth, found)
        part, = match_image(ground_truth, kept)
        rest = whole.select(whole.score >= 0.5)
        for name in ('score', 'outcome', 'instance', 'overlap'):
            np.testing.assert_array_equal(getattr(rest, name), getattr(part, name))


def test_no_detections_and_no_ground_truth_give_no_matches():
    matches, = match_image(truth(), Detections(np.zeros(0, int), np.zeros(0), []))
    assert len(matches) == 0
    assert len(Matches.concatenate([])) == 0
    assert [len(part) for part in match_images([], (0.5, 0.6))] == [0, 0]


def random_images(rng, number):
    """Images with every kind of instance, equal scores, and some with nothing at all."""
    for image in range(number):
        instances = [(int(rng.integers(3)), start, start + 5, *rng.choice(
            ['box', 'group', 'plain'], 2, replace=False).tolist())
            for start in rng.integers(0, 15, rng.integers(0, 6)).tolist()]
        found = [(int(rng.integers(4)), int(rng.integers(4)) / 4, start,
                  start + int(rng.integers(6)))
                 for start in rng.integers(0, 15, rng.integers(0, 9)).tolist()]
        yield 10 * image, truth(*instances, verified=rng.integers(0, 4, 1)), detections(*found)


@pytest.mark.parametrize('batch', [1, 60, 1 << 19])
def test_images_together_match_as_each_alone(monkeypatch, batch):
    monkeypatch.setattr('projects.openimages.metric.matching.BATCH', batch)
    images = list(random_images(np.random.default_rng(7), 60))
    together = match_images(images, (0.5, 0.75))
    alone = [match_image(one, found, (0.5, 0.75), image=number) for number, one, found in images]
    for whole, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert {*whole.outcome.tolist()} == {DROPPED, FALSE, TRUE, IGNORED}
        expected = Matches.concatenate(parts)
        for name in vars(expected):
            np.testing.assert_array_equal(getattr(whole, name), getattr(expected, name))


def test_ground_truth_measured_together_is_what_each_is_alone():
    truths = [one for _, one, _ in random_images(np.random.default_rng(8), 20)]
    again = [one for _, one, _ in random_images(np.random.default_rng(8), 20)]
    GroundTruth.measure_together([*truths, truth(with_masks=False)])
    for one, other in zip(truths, again, strict=True):
        assert 'measured' in vars(one) and 'measured' not in vars(other)
        assert one.measured.rles == other.measured.rles
        assert one.measured.areas.tolist() == other.measured.areas.tolist()


def test_images_with_and_without_masks_do_not_go_together():
    images = [(0, truth((CAT, 0, 10)), detections((CAT, 0.9, 0, 10))),
              (1, truth((CAT, 0, 10), with_masks=False),
               Detections(np.array([CAT]), np.array([0.5]), boxes=np.array([[0, 1, 0, 1]])))]
    with pytest.raises(ValueError, match='of some images with masks, of others without'):
        match_images(images)
