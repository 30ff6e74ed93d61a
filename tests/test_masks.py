"""Run lengths and mask text, against pycocotools."""

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


def test_cut_zlib_stream_is_refused():
    packed = zlib.compress(b'6' * 100)[:-4]
    with pytest.raises(masks.MaskError, match='not zlib'):
        masks.inflate_text(masks.base64.b64encode(packed).decode())


def test_iou_of_half_overlapping_masks():
    first, second = np.zeros((2, 1, 3), bool)
    first[0, :2] = second[0, 1:] = True
    rles = [masks.rle_from_mask(first), masks.rle_from_mask(second)]
    assert masks.iou(rles[:1], rles[1:]).tolist() == [[1 / 3]]
    assert masks.iou([], rles).shape == (0, 2)


def test_area_of_more_masks_than_pycocotools_can_count():
    rles = [masks.rle_from_mask(np.ones((2, n % 7 + 1), bool)) for n in range(600)]
    assert masks.area(rles).tolist() == [2 * (n % 7 + 1) for n in range(600)]
