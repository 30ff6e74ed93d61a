"""What needs a GPU to be seen: run by ``make gpu-check``, skipped where there is none."""

import copy

import numpy as np
import pytest
import torch
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from projects.openimages.mm.models import fast
from projects.openimages.mm.models.assigners import IgnoreAwareAssigner
from projects.openimages.mm.structures.rle_masks import RleMasks
from tests.mm.models.test_fast import batch, losses, plain  # noqa: F401  (a fixture)
from tests.mm.models.test_mask_head import heads, maps, predict
from tests.mm.structures.random_masks import random_masks

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(
    not torch.cuda.is_available(), reason='needs a CUDA device, and there is none here')]


@pytest.fixture
def model(plain):  # noqa: F811
    return copy.deepcopy(plain).cuda()


def some_boxes(count, height, width, seed=0):
    corners = np.random.default_rng(seed).uniform((0, 0), (width, height), (2, count, 2))
    return torch.from_numpy(np.concatenate([corners.min(0), corners.max(0)], 1)).float()


@pytest.mark.parametrize('seed', range(5))
def test_masks_are_pasted_as_the_stock_head_pastes_them_there(seed):
    logits, boxes = maps('smooth', seed, 30).cuda(), some_boxes(30, 480, 640, seed).cuda()
    stock, ours = (predict(head, logits, boxes.clone(), 480, 640) for head in heads())
    assert stock.any()
    assert ours.rles == [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
                         for mask in stock.cpu().numpy()]


@pytest.mark.parametrize('seed', range(5))
def test_mask_targets_are_those_of_the_cpu_and_of_bitmaps(seed):
    pixels = random_masks(seed, 6, 120, 160)
    boxes, owners = some_boxes(40, 120, 160, seed), np.arange(40) % len(pixels)
    targets = [masks.crop_and_resize(boxes.numpy(), (28, 28), owners, device,
                                     binarize=False).to_ndarray()
               for masks, device in ((RleMasks(pixels, 120, 160), 'cuda'),
                                     (RleMasks(pixels, 120, 160), 'cpu'),
                                     (BitmapMasks(pixels, 120, 160), 'cuda'))]
    # A GPU fuses multiplications and additions, so a sample's place is rounded otherwise.
    last_bit = np.spacing(np.float32(160))
    assert np.abs(targets[0] - targets[1]).max() < 2 * last_bit
    assert np.abs(targets[0] - targets[2]).max() < 2 * last_bit


def test_the_assigner_does_not_wait_for_the_device():
    boxes = some_boxes(1000, 480, 640).cuda()
    found = InstanceData(bboxes=boxes[:20], labels=torch.arange(20, device='cuda'))
    ignored = InstanceData(bboxes=boxes[20:30], group_of=torch.arange(10, device='cuda') % 2 == 0)
    assigner = IgnoreAwareAssigner(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        result = assigner.assign(InstanceData(priors=boxes), found, ignored)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert (result.gt_inds > 0).any() and (result.gt_inds < 0).any()


@pytest.mark.parametrize('kind', [
    {'type': 'AmpOptimWrapper', 'loss_scale': 1024.}, {'type': 'Bfloat16OptimWrapper'}],
    ids=['--amp', '--fast'])
def test_a_step_in_mixed_precision_learns_and_stays_finite(model, kind):
    if kind['type'] == 'Bfloat16OptimWrapper':
        fast.operators_in_float32(model)
        fast.fold_norms(model)
        fast.use_channels_last(model)
    wrapper = OPTIM_WRAPPERS.build(ConfigDict(
        **kind, optimizer=torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)))
    before = model.roi_head.bbox_head.fc_cls.weight.clone()
    for _ in range(2):
        found = model.train_step(batch(), wrapper)
        assert torch.isfinite(found['loss'])
    assert all(torch.isfinite(value).all() for value in model.parameters())
    assert not torch.equal(model.roi_head.bbox_head.fc_cls.weight, before)


def test_losses_of_the_fast_model_are_the_plain_ones_but_for_rounding(model):
    expected = losses(model)
    fast.operators_in_float32(model)
    fast.fold_norms(model)
    fast.use_channels_last(model)
    for name, value in losses(model).items():
        torch.testing.assert_close(value, expected[name], rtol=2e-2, atol=1e-3)
