"""Run lengths and mask text, against pycocotools."""

import base64
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from projects.openimages import masks

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))


def coco_rle(mask):
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))


def test_runs_go_down_the_columns_and_start_with_zeros():
    mask = np.array([[0, 1],
                     [1, 1]])
    assert masks.decompress_counts(masks.rle_from_mask(mask)['counts']).tolist() == [1, 3]


def test_empty_mask_is_one_run_of_zeros():
    rle = masks.rle_from_mask(np.zeros((2, 3)))
    assert masks.decompress_counts(rle['counts']).tolist() == [6]
    assert masks.area([rle]).tolist() == [0]
    assert masks.bbox([rle]).tolist() == [[0, 0, 0, 0]]


def test_run_over_a_column_border_is_one_run():
    mask = np.zeros((3, 3), bool)
    mask[2, 0] = mask[0, 1] = True
    assert masks.decompress_counts(masks.rle_from_mask(mask)['counts']).tolist() == [2, 2, 5]


@given(MASKS)
def test_encoding_equals_pycocotools(mask):
    rle = masks.rle_from_mask(mask)
    assert rle == coco_rle(mask)
    assert (masks.rle_to_mask(rle) == mask).all()


@given(MASKS, st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_crop_encodes_as_the_pasted_image(crop, left, top, right, bottom):
    image = np.pad(crop, ((top, bottom), (left, right)))
    assert masks.rle_from_crop(crop, left, top, *image.shape) == coco_rle(image)


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=9))
def test_compressed_counts_come_back(runs):
    assert masks.decompress_counts(masks.compress_counts(np.array(runs))).tolist() == runs


@given(st.lists(MASKS, min_size=1, max_size=5))
def test_many_masks_decompress_as_each_alone(many):
    counts = [coco_rle(mask)['counts'] for mask in many]
    runs, offsets = masks.decompress_many(counts)
    for n, single in enumerate(counts):
        expected = masks.decompress_counts(single)
        assert runs[offsets[n]:offsets[n + 1]].tolist() == expected.tolist()


@settings(max_examples=30)
@given(MASKS)
def test_text_comes_back(mask):
    rle = masks.rle_from_mask(mask)
    text = masks.encode_text(rle['counts'])
    assert masks.decode_text(text, *mask.shape) == rle


@pytest.mark.parametrize(('text', 'message'), [
    ('not base64!', 'not base64'),
    ('AAAA', 'not zlib'),
    (masks.encode_text(b''), 'stop in the middle'),
    (masks.encode_text(b'P'), 'stop in the middle'),
    (masks.encode_text(b'\x7f1'), 'outside the code'),
    (masks.encode_text(b'4'), '4 pixels in an image of 3x2 = 6 pixels'),
])
def test_broken_text_is_named(text, message):
    with pytest.raises(masks.MaskError, match=message):
        masks.decode_text(text, height=2, width=3)


def test_negative_run_is_refused():
    with pytest.raises(masks.MaskError, match='negative'):
        masks.decode_text(masks.encode_text(masks.compress_counts(np.array([7, -1]))), 2, 3)


@pytest.mark.parametrize(('change', 'message'), [
    (lambda packed: packed[:-4], 'is zlib data cut short'),
    (lambda packed: packed + b'more', 'has more behind its zlib data')])
def test_text_that_is_not_just_one_zlib_stream_is_refused(change, message):
    packed = change(zlib.compress(b'6' * 100))
    with pytest.raises(masks.MaskError, match=message):
        masks.inflate_text(base64.b64encode(packed), height=10, width=60)


@pytest.mark.parametrize(('height', 'width'), [(1, 1), (1, 2), (2, 1), (7, 5), (300, 401)])
@pytest.mark.parametrize('first', [0, 1])
def test_checkerboard_has_the_most_runs_and_is_within_the_limit(height, width, first):
    mask = (np.arange(height * width).reshape(width, height).T + first) % 2  # no two alike in a row
    counts = coco_rle(mask)['counts']
    assert len(masks.decompress_counts(counts)) == height * width + (first == 1)
    assert len(counts) <= masks.longest_counts(height, width)
    assert masks.decode_text(masks.encode_text(counts), height, width)['counts'] == counts


@given(MASKS)
def test_no_mask_is_longer_than_the_checkerboard(mask):
    assert len(coco_rle(mask)['counts']) <= mask.size + 1


def test_empty_runs_that_some_programs_write_are_within_the_limit():
    counts = masks.compress_counts(np.array([0, 1, 0, 0] * 20))  # twice as many runs as pixels
    assert masks.decode_text(masks.encode_text(counts), 4, 5)['counts'] == counts


def test_text_is_inflated_up_to_the_limit_and_no_further():
    limit = masks.longest_counts(4, 8)
    assert limit == 128
    assert len(masks.inflate_text(masks.encode_text(b'0' * limit), 4, 8)) == limit
    with pytest.raises(masks.MaskError, match=r'more than 128 bytes.*image of 8x4'):
        masks.inflate_text(masks.encode_text(b'0' * (limit + 1)), 4, 8)


def test_bomb_takes_no_more_memory_than_a_mask():
    text = masks.encode_text(b'0' * 50_000_000)
    assert peak_memory(lambda: refuse(text)) < 1_000_000


def refuse(text):
    with pytest.raises(masks.MaskError, match='inflates to more than'):
        masks.inflate_text(text, 100, 100)


def peak_memory(function):
    """Bytes that a call takes at most beside what there is."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(('height', 'width'), [
    (0, 5), (5, 0), (-1, 5), (-5, -5), (10**9, 10**9), (10_001, 10_000), (1, 10**8 + 1)])
def test_image_size_that_cannot_be_is_refused(height, width):
    with pytest.raises(masks.MaskError, match=rf'{width}x{height}, expected 1 to 100000000 pixels'):
        masks.inflate_text(masks.encode_text(b'0'), height, width)


@pytest.mark.parametrize(('limit', 'sizes'), [(1, [1] * 6), (4, [2, 2, 2]), (100, [6])])
def test_batches_have_all_masks_in_order_and_no_more_bytes_than_allowed(monkeypatch, limit, sizes):
    monkeypatch.setattr(masks, 'BATCH_BYTES', limit)
    rles = [{'size': [1, 2], 'counts': bytes([48 + n, 48])} for n in range(6)]
    result = list(masks.batches(iter(rles)))
    assert [len(batch) for batch in result] == sizes
    assert [rle for batch in result for rle in batch] == rles
    assert list(masks.batches([])) == []


def test_batch_does_not_count_masks_that_are_not_there(monkeypatch):
    monkeypatch.setattr(masks, 'BATCH_BYTES', 2)
    rle = {'size': [1, 2], 'counts': b'2'}
    assert list(masks.batches([None, rle, None, rle, None])) == [[None, rle, None, rle], [None]]


def test_sizes_of_many_masks_are_checked_in_batches(monkeypatch):
    monkeypatch.setattr(masks, 'BATCH_BYTES', 5)
    right = [masks.rle_from_mask(np.eye(3)) for _ in range(9)]
    masks.check_sizes(right)
    masks.check_sizes([])
    for place in range(9):
        wrong = [*right[:place], {'size': [3, 4], 'counts': right[0]['counts']}, *right[place:]]
        with pytest.raises(masks.MaskError, match='9 pixels in an image of 4x3 = 12'):
            masks.check_sizes(wrong)


def test_check_of_many_large_masks_takes_the_memory_of_a_batch(monkeypatch):
    monkeypatch.setattr(masks, 'BATCH_BYTES', 10_000)
    mask = {'size': [10_000, 1], 'counts': b'111' + b'0' * 9_997}
    one, many = (peak_memory(lambda number=number: masks.check_sizes([mask] * number))
                 for number in (1, 50))
    assert many < 1.5 * one


def test_iou_of_half_overlapping_masks():
    first, second = np.zeros((2, 1, 3), bool)
    first[0, :2] = second[0, 1:] = True
    rles = [masks.rle_from_mask(first), masks.rle_from_mask(second)]
    assert masks.iou(rles[:1], rles[1:]).tolist() == [[1 / 3]]
    assert masks.iou([], rles).shape == (0, 2)


def test_area_of_more_masks_than_pycocotools_can_count():
    rles = [masks.rle_from_mask(np.ones((2, n % 7 + 1), bool)) for n in range(600)]
    assert masks.area(rles).tolist() == [2 * (n % 7 + 1) for n in range(600)]
