"""Mask targets from runs beside ``roi_align`` on bitmaps."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.structures.mask import BitmapMasks, mask_target
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from projects.openimages.mm.models.mask_head import BoxMaskHead
from projects.openimages.mm.structures import mask_targets
from projects.openimages.mm.structures.rle_masks import RleMasks
from tests.mm.structures.random_masks import masks_of_one_size, random_masks

ROUNDING = 1e-5
"""The most by which a covered part may differ from ``roi_align``'s, as the documentation says."""


def assert_same_targets(pixels, boxes, owners, shape=(28, 28)) -> int:
    """Covered parts equal up to rounding, and bools but where half is covered; how many differ."""
    _, height, width = pixels.shape
    stock, ours = BitmapMasks(pixels, height, width), RleMasks(pixels, height, width)
    parts, others = (masks.crop_and_resize(boxes, shape, owners, 'cpu', binarize=False).to_ndarray()
                     for masks in (stock, ours))
    assert others.shape == parts.shape == (len(boxes), *shape)
    assert np.abs(parts - others).max(initial=0) < ROUNDING
    bools, other_bools = (masks.crop_and_resize(boxes, shape, owners, 'cpu').to_ndarray()
                          for masks in (stock, ours))
    differing = bools != other_bools
    assert (np.abs(parts[differing] - 0.5) < ROUNDING).all()
    return differing.sum()


SIDES = st.one_of(st.floats(-20, 60, width=32), st.integers(-20, 60).map(float),
                  st.integers(-80, 240).map(lambda n: n / 4))
LENGTHS = st.one_of(st.floats(0, 80, width=32), st.sampled_from([0., 1e-6, 1e-3, 0.5, 28., 56.]))


@st.composite
def boxes_and_owners(draw, count: int):
    """(P, 4) float32, also outside the image, tiny, without a side; and (P,) whose mask it is."""
    boxes = []
    for _ in range(draw(st.integers(0, 5))):
        x, y = draw(SIDES), draw(SIDES)
        boxes.append([x, y, x + draw(LENGTHS), y + draw(LENGTHS)])
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return boxes, np.array([draw(st.integers(0, count - 1)) for _ in boxes], np.int64)


@settings(max_examples=120)
@given(masks_of_one_size(least=1), st.data(), st.sampled_from([(28, 28), (14, 14), (7, 11)]))
def test_targets_equal_roi_align_up_to_rounding(pixels, data, shape):
    boxes, owners = data.draw(boxes_and_owners(len(pixels)))
    assert_same_targets(pixels, boxes, owners, shape)


@pytest.mark.parametrize('seed', range(3))
def test_hardly_a_bool_differs_on_images_of_common_size(seed):
    """Boxes around blobs, as proposals are: less than one target pixel in ten thousand."""
    height, width, count = 600, 800, 32
    rng = np.random.default_rng(seed)
    coarse = random_masks(seed, 5, height // 40, width // 40)
    coarse[:, 2:8, 3:9] = 1
    pixels = np.kron(coarse, np.ones((1, 40, 40), np.uint8))
    tight = RleMasks(pixels, *pixels.shape[1:]).get_bboxes().tensor.numpy()
    owners = rng.integers(0, 5, count)
    sizes = np.tile(tight[owners, 2:] - tight[owners, :2], 2)
    boxes = (tight[owners] + rng.uniform(-0.2, 0.2, (count, 4)) * sizes).astype(np.float32)
    assert assert_same_targets(pixels, boxes, owners) <= 1e-4 * count * 28 * 28


def test_a_target_by_eye():
    pixels = np.zeros((1, 8, 8), np.uint8)
    pixels[0, 2:6, 4:8] = 1
    targets = RleMasks(pixels, 8, 8).crop_and_resize(
        np.array([[0, 0, 8, 8]], np.float32), (4, 4), np.array([0]))
    assert isinstance(targets, BitmapMasks)
    assert targets.masks.astype(int).tolist() == [[[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1],
                                                   [0, 0, 0, 0]]]


def test_mmdetections_mask_target_takes_either():
    pixels = random_masks(2, 4, 33, 47)
    boxes = torch.tensor([[-3., 2., 20., 30.], [5., 5., 60., 40.], [1., 1., 2., 2.]])
    owners = torch.tensor([1, 3, 0])
    for config in (ConfigDict(mask_size=28), ConfigDict(mask_size=14, soft_mask_target=True)):
        expected, got = (mask_target([boxes, boxes[:0]], [owners, owners[:0]],
                                     [masks(pixels, 33, 47)] * 2, config)
                         for masks in (BitmapMasks, RleMasks))
        assert torch.allclose(expected, got, atol=ROUNDING) and expected.shape == got.shape


@pytest.mark.parametrize('soft', [False, True])
@pytest.mark.parametrize('seed', range(5))
def test_head_gives_a_batch_of_images_of_any_size_the_targets_of_the_stock_head(seed, soft):
    rng = np.random.default_rng(seed)
    sizes = [(33, 47), (60, 20), (25, 25), (40, 50)]
    counts, regions = [3, 0, 1, 4], [5, 0, 0, 9]
    results = [SimpleNamespace(  # boxes over the border too
        pos_priors=torch.from_numpy(np.sort(rng.uniform(-5, 60, (number, 2, 2)), 1).reshape(
            -1, 4)).float(),
        pos_assigned_gt_inds=torch.from_numpy(rng.integers(0, max(count, 1), number)))
        for count, number in zip(counts, regions, strict=True)]
    config = ConfigDict(mask_size=28, soft_mask_target=soft)
    expected, got = (head.get_targets(results, [
        InstanceData(masks=kind(random_masks(seed, count, *size), *size))
        for count, size in zip(counts, sizes, strict=True)], config)
        for head, kind in ((FCNMaskHead(), BitmapMasks), (BoxMaskHead(), RleMasks)))
    assert got.shape == (14, 28, 28) and got.dtype == torch.float32 and got.any()
    if soft:
        assert torch.allclose(expected, got, atol=ROUNDING)
    else:
        assert (expected != got).float().mean() < 1e-3


def test_head_leaves_other_masks_to_the_stock_head():
    pixels = random_masks(2, 2, 33, 47)
    results = [SimpleNamespace(pos_priors=torch.tensor([[1., 2., 20., 30.]]),
                               pos_assigned_gt_inds=torch.tensor([1]))]
    instances = [InstanceData(masks=BitmapMasks(pixels, 33, 47))]
    config = ConfigDict(mask_size=28)
    assert torch.equal(BoxMaskHead().get_targets(results, instances, config),
                       FCNMaskHead().get_targets(results, instances, config))


def test_no_masks_give_no_targets_as_stock():
    boxes = np.array([[0, 0, 8, 8]], np.float32)
    for kind in (BitmapMasks, RleMasks):
        targets = kind([], 8, 8).crop_and_resize(boxes, (28, 28), np.array([0]))
        assert targets.masks.shape == (0, 28, 28)


def test_work_in_groups_changes_nothing(monkeypatch):
    pixels = random_masks(8, 3, 40, 50)
    boxes = np.array([[0, 0, 50, 40], [3, 4, 30, 35], [10, 10, 20, 20]], np.float32).repeat(4, 0)
    owners = np.arange(12) % 3
    whole = RleMasks(pixels, 40, 50).crop_and_resize(boxes, (28, 28), owners, binarize=False)
    monkeypatch.setattr(mask_targets, '_GROUP', 16)
    parts = RleMasks(pixels, 40, 50).crop_and_resize(boxes, (28, 28), owners, binarize=False)
    assert np.allclose(whole.masks, parts.masks, atol=1e-6) and whole.masks.any()


def test_half_precision_around_it_changes_nothing():
    pixels = random_masks(8, 3, 40, 50)
    boxes = np.array([[0.3, 0.1, 50, 40], [3, 4, 30, 35], [10, 10, 20, 20]], np.float32)
    with torch.autocast('cpu', torch.bfloat16):
        assert_same_targets(pixels, boxes, np.arange(3))
