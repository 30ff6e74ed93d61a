"""Masks as column runs: every operation equals the same on pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from projects.openimages.masks import MaskError
from projects.openimages.mm.structures.column_runs import ColumnRuns
from tests.mm.structures.random_masks import SIDES, masks_of_one_size, random_masks


def encoded(pixels):
    return [coco_mask.encode(np.asfortranarray(mask)) for mask in pixels]


@given(masks_of_one_size())
def test_rle_and_pixels_give_the_same_runs_and_back(pixels):
    _, height, width = pixels.shape
    runs = ColumnRuns.from_pixels(pixels)
    decoded = ColumnRuns.from_rles(encoded(pixels), height, width)
    for name in ('columns', 'tops', 'bottoms', 'offsets'):
        assert np.array_equal(getattr(runs, name), getattr(decoded, name)), name
        assert getattr(runs, name).dtype == getattr(decoded, name).dtype, name
    assert np.array_equal(runs.to_pixels(height, width), pixels)
    assert runs.to_rles(height, width) == encoded(pixels)


def test_runs_of_a_small_mask_by_eye():
    runs = ColumnRuns.from_pixels(np.array([[[0, 1, 0], [0, 1, 1], [0, 0, 0], [0, 1, 0]]]))
    assert runs.columns.tolist() == [1, 1, 2]
    assert runs.tops.tolist() == [0, 3, 1] and runs.bottoms.tolist() == [2, 4, 2]


def test_counts_may_be_text():
    [rle] = encoded(np.ones((1, 3, 2), np.uint8))
    text = {'size': [3, 2], 'counts': rle['counts'].decode('ascii')}
    assert ColumnRuns.from_rles([text], 3, 2).areas().tolist() == [6]


def test_runs_of_no_pixels_in_rle_are_no_runs():
    """Zeros, none of ones, zeros, two of ones: legal, though pycocotools never writes it."""
    rle = coco_mask.frPyObjects({'size': [3, 2], 'counts': [2, 0, 2, 2]}, 3, 2)
    assert ColumnRuns.from_rles([rle], 3, 2).to_rles(3, 2)[0] == encoded(
        np.array([[[0, 0], [0, 1], [0, 1]]], np.uint8))[0]


@pytest.mark.parametrize(('counts', 'size'), [
    (b'6', [2, 3]), (b'7', [3, 2]), (b'5', [3, 2]), (b'O7', [3, 2]), (b'', [3, 2])])
def test_rle_that_does_not_fill_the_image_is_an_error(counts, size):
    with pytest.raises(MaskError):
        ColumnRuns.from_rles([{'size': size, 'counts': counts}], 3, 2)


@given(masks_of_one_size(), st.data())
def test_masks_are_taken_in_any_order_and_joined(pixels, data):
    count, height, width = pixels.shape
    index = np.array(data.draw(st.lists(st.integers(0, count - 1)) if count else st.just([])), int)
    runs = ColumnRuns.from_pixels(pixels)
    taken = runs.take(index)
    assert np.array_equal(taken.to_pixels(height, width), pixels[index])
    both = ColumnRuns.cat([taken, runs])
    assert np.array_equal(both.to_pixels(height, width), np.concatenate([pixels[index], pixels]))


@given(masks_of_one_size(), st.integers(0, 2**32 - 1))
def test_masks_are_chosen_from_two(pixels, seed):
    count, height, width = pixels.shape
    other, keep = random_masks(seed, count, height, width), random_masks(seed, count, 1, 1) > 0
    runs, others = ColumnRuns.from_pixels(pixels), ColumnRuns.from_pixels(other)
    chosen = runs.where(keep[:, 0, 0], others)
    assert np.array_equal(chosen.to_pixels(height, width), np.where(keep, pixels, other))
    emptied = runs.where(keep[:, 0, 0])
    assert np.array_equal(emptied.to_pixels(height, width), np.where(keep, pixels, 0))


@given(masks_of_one_size(), st.booleans(), st.booleans())
def test_flips_equal_reversed_pixels(pixels, upside_down, left_right):
    _, height, width = pixels.shape
    runs = ColumnRuns.from_pixels(pixels).flipped(height if upside_down else None,
                                                  width if left_right else None)
    expected = pixels[:, ::-1 if upside_down else 1, ::-1 if left_right else 1]
    assert np.array_equal(runs.to_pixels(height, width), expected)
    assert runs.to_rles(height, width) == encoded(expected)


@given(masks_of_one_size(), st.integers(-45, 45), st.integers(-45, 45), SIDES, SIDES)
def test_window_equals_a_slice_of_a_larger_image(pixels, left, top, new_height, new_width):
    count, height, width = pixels.shape
    canvas = np.zeros((count, 200, 200), np.uint8)
    canvas[:, 50:50 + height, 50:50 + width] = pixels
    runs = ColumnRuns.from_pixels(pixels).window(left, top, new_height, new_width)
    expected = canvas[:, 50 + top:50 + top + new_height, 50 + left:50 + left + new_width]
    assert np.array_equal(runs.to_pixels(new_height, new_width), expected)


@given(masks_of_one_size(), st.data())
def test_resampling_equals_indexing(pixels, data):
    _, height, width = pixels.shape
    rows, columns = (np.array(sorted(data.draw(st.lists(st.integers(0, side - 1), min_size=1,
                                                        max_size=60))))
                     for side in (height, width))
    runs = ColumnRuns.from_pixels(pixels).resampled(rows, columns, height, width)
    expected = pixels[:, rows][:, :, columns]
    assert np.array_equal(runs.to_pixels(len(rows), len(columns)), expected)
    assert runs.to_rles(len(rows), len(columns)) == encoded(expected)


@given(masks_of_one_size(), st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_taking_away_other_masks_equals_clearing_their_pixels(pixels, seed, count):
    _, height, width = pixels.shape
    others = random_masks(seed, count, height, width)
    runs = ColumnRuns.from_pixels(pixels).without(ColumnRuns.from_pixels(others), height, width)
    expected = pixels * ~others.any(0)
    assert np.array_equal(runs.to_pixels(height, width), expected)
    assert runs.to_rles(height, width) == encoded(expected)


@given(masks_of_one_size())
def test_areas_and_tight_boxes(pixels):
    runs = ColumnRuns.from_pixels(pixels)
    assert runs.areas().tolist() == [int(mask.sum()) for mask in pixels]
    for mask, box in zip(pixels, runs.boxes().tolist(), strict=True):
        y, x = mask.nonzero()
        expected = [x.min(), y.min(), x.max() + 1, y.max() + 1] if len(x) else [0, 0, 0, 0]
        assert box == expected


@given(st.lists(st.tuples(*[st.floats(-5, 45, width=32)] * 4), max_size=4), SIDES, SIDES)
def test_boxes_cover_the_pixels_they_touch(corners, height, width):
    boxes = np.sort(np.reshape(corners, (-1, 2, 2)), 1).reshape(-1, 4)
    covered = ColumnRuns.from_boxes(boxes, height, width).to_pixels(height, width)
    y, x = np.mgrid[:height, :width]
    for (x1, y1, x2, y2), mask in zip(boxes, covered, strict=True):
        rows, columns = (y >= np.floor(y1)) & (y < np.ceil(y2)), (x >= np.floor(x1)) & (
            x < np.ceil(x2))
        assert np.array_equal(mask, rows & columns)
