"""Areas, boxes and overlaps against pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from projects.openimages.masks import MaskError, compress_counts, rle_from_mask
from projects.openimages.metric import measure
from projects.openimages.metric.overlaps import (
    box_ioa,
    box_iou,
    mask_intersections,
    mask_ioa,
    mask_iou,
)


@st.composite
def pixel_masks(draw):
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    number = draw(st.integers(1, 5))
    bits = draw(st.lists(st.booleans(), min_size=number * height * width,
                         max_size=number * height * width))
    return np.array(bits).reshape(number, height, width)


@settings(deadline=None)
@given(pixel_masks())
def test_areas_and_boxes_are_those_of_the_pixels(pixels):
    measured = measure([rle_from_mask(mask) for mask in pixels])
    height, width = pixels.shape[1:]
    for n, mask in enumerate(pixels):
        ys, xs = np.nonzero(mask)
        expected = [0.0] * 4
        if len(xs):
            expected = [xs.min() / width, (xs.max() + 1) / width,
                        ys.min() / height, (ys.max() + 1) / height]
        assert measured.areas[n] == mask.sum()
        assert measured.boxes[n].tolist() == expected


@settings(deadline=None)
@given(pixel_masks())
def test_intersections_are_those_of_the_pixels(pixels):
    rles = [rle_from_mask(mask) for mask in pixels]
    common = mask_intersections(rles, rles[::-1], measure(rles).areas)
    expected = [[(a & b).sum() for b in pixels[::-1]] for a in pixels]
    assert common.tolist() == expected


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_empty_runs_change_nothing(runs):
    total = sum(runs)
    if not total:
        return
    flat = np.concatenate([np.full(run, n % 2, np.uint8) for n, run in enumerate(runs)])
    plain = coco_mask.encode(np.asfortranarray(flat.reshape(total, 1)))
    unusual = {'size': [total, 1], 'counts': compress_counts(np.array(runs))}
    measured, expected = measure([unusual]), measure([plain])
    assert measured.areas.tolist() == expected.areas.tolist() == [flat.sum()]
    assert measured.boxes.tolist() == expected.boxes.tolist()
    assert measured.rles[0]['counts'] == plain['counts']


def test_intersection_is_exact_for_large_masks():
    pixels = np.zeros((2, 3000, 4000), bool)
    pixels[0, :2999] = True
    pixels[1, 1:, 7:] = True
    rles = [rle_from_mask(mask) for mask in pixels]
    common = mask_intersections(rles[:1], rles[1:], measure(rles[:1]).areas)
    assert common.tolist() == [[2998 * 3993]]


def test_mask_overlaps_are_float32():
    common, areas = np.array([[3]]), np.array([7])
    assert mask_iou(common, areas, np.array([9])).dtype == np.float32
    assert mask_iou(common, areas, np.array([9]))[0, 0] == np.float32(3) / np.float32(13)
    assert mask_ioa(common, areas)[0, 0] == np.float32(3) / np.float32(7)


def test_box_overlaps():
    first = np.array([[0.0, 0.5, 0.0, 1.0]])
    second = np.array([[0.25, 0.75, 0.0, 1.0], [0.5, 1.0, 0.0, 1.0]])
    assert box_iou(first, second).tolist() == [1 / 3, 0.0]
    assert box_ioa(first, second).tolist() == [0.5, 0.0]
    assert box_iou(second[:, None], first).tolist() == [[1 / 3], [0.0]]


@pytest.mark.parametrize('limit', [1, 7, 1000])
def test_batches_do_not_change_what_is_measured(monkeypatch, limit):
    rng = np.random.default_rng(0)
    rles = [rle_from_mask(mask) for mask in rng.random((12, 5, 6)) < 0.5]
    masks = [*rles[:3], None, {'size': [5, 6], 'counts': compress_counts(np.array([3, 0, 2, 25]))},
             None, *rles[3:]]
    expected = measure(masks)
    common = mask_intersections(rles, rles[:4], measure(rles).areas)
    monkeypatch.setattr('projects.openimages.masks.BATCH_BYTES', limit)
    measured = measure(iter(masks))
    assert measured.rles == expected.rles and len(measured.rles) == len(masks)
    assert measured.areas.tolist() == expected.areas.tolist()
    np.testing.assert_array_equal(mask_intersections(rles, rles[:4], measure(rles).areas), common)


def test_masks_of_an_image_may_not_add_up_to_gigabytes(monkeypatch):
    mask = rle_from_mask(np.ones((1, 40), bool))
    monkeypatch.setattr('projects.openimages.metric.overlaps.MAX_IMAGE_BYTES',
                        3 * len(mask['counts']))
    monkeypatch.setattr('projects.openimages.masks.BATCH_BYTES', 1)
    read = []
    masks = (read.append(n) or mask for n in range(1000))
    assert measure([mask, None, mask, mask]).areas.tolist() == [40, 0, 40, 40]
    with pytest.raises(MaskError, match='masks of one image have more than'):
        measure(masks)
    assert len(read) == 4  # the others are not even decoded


@settings(deadline=None)
@given(pixel_masks())
def test_pixels_of_a_mask_lie_in_its_span(pixels):
    measured = measure([None, *(rle_from_mask(mask) for mask in pixels)])
    assert measured.spans[0].tolist() == [0, 0]
    for (first, last), mask in zip(measured.spans[1:].tolist(), pixels, strict=True):
        inside = np.flatnonzero(mask.T)
        if len(inside):
            assert (first, last) == (inside[0], inside[-1] + 1)


def test_missing_masks_have_no_area():
    measured = measure([None, rle_from_mask(np.ones((2, 2), bool)), None])
    assert measured.areas.tolist() == [0, 4, 0]
    assert measured.boxes[1].tolist() == [0, 1, 0, 1]
    assert measure([]).areas.tolist() == []


@pytest.mark.parametrize(('runs', 'message'), [([3], '3 pixels, expected 2 x 2'),
                                               ([1, 5], '6 pixels'), ([5, -1], 'negative')])
def test_runs_that_do_not_fill_the_image_are_an_error(runs, message):
    with pytest.raises(MaskError, match=message):
        measure([{'size': [2, 2], 'counts': compress_counts(np.array(runs))}])
