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
from tests.mm.models import test_batch_rpn as rpn
from tests.mm.models import test_own_class as own_class
from tests.mm.models.federated import test_heads as federated
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


@pytest.fixture
def full_precision():
    """Convolutions of 24 bits, not of the 11 that torch takes by default."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize('seed', range(3))
def test_proposals_of_a_batch_and_their_losses_are_the_stock_heads(seed):
    outputs = rpn.maps(seed=seed, device='cuda')
    rpn.assert_same_losses(*rpn.heads(training={'sampler': rpn.ALL}), outputs)
    rpn.assert_same_proposals(*rpn.heads(), outputs)


def test_the_proposals_loss_does_not_wait_for_the_device():
    _, head = rpn.heads()
    outputs, (objects, ignored) = rpn.maps(device='cuda'), rpn.truth('cuda')
    head.loss_by_feat(*outputs, objects, rpn.METAS, ignored)  # what is kept is made by the first
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        found = head.loss_by_feat(*outputs, objects, rpn.METAS, ignored)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert all(torch.isfinite(value).all() for values in found.values() for value in values)


@pytest.mark.parametrize('autocast', [False, True])
def test_the_mask_head_learns_what_the_stock_head_does(full_precision, autocast):
    features, images = torch.randn(3, 4, 4, 4, device='cuda'), [[2, 0], [4]]
    first, second = (head.cuda() for head in own_class.pair())
    expected, wanted, _ = own_class.learn(first, features, images)
    got, gradients, _ = own_class.learn(second, features, images, autocast)
    close = {'rtol': 0.03, 'atol': 0.03} if autocast else {'rtol': 1e-4, 'atol': 1e-5}
    torch.testing.assert_close(got, expected, **close)
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, **close, msg=name)


def test_the_recipe_loses_on_a_gpu_what_it_loses_on_a_cpu(full_precision):
    """Every proposal is drawn, so nothing is left to chance."""
    sampler = {f'model.train_cfg.{part}.sampler.num': 10_000 for part in ('rpn', 'rcnn')}
    model = federated.small_model(**sampler)
    found = []
    for device in ('cpu', 'cuda'):
        torch.manual_seed(0)
        samples = [federated.sample(
            (federated.CAT, 5, 5, 40, 40, True), (federated.CUP, 45, 45, 62, 62, False),
            ignored=[(federated.DOG, [20, 20, 60, 60], True)], verified=[(federated.CUP, 1)],
            boxed=[federated.CAT, federated.CUP]), federated.sample()]
        losses_there = federated.losses_of(model.to(device), *samples)
        found.append({name: (sum(value) if isinstance(value, list) else value).item()
                      for name, value in losses_there.items() if 'loss' in name})
    assert found[0] == pytest.approx(found[1], rel=1e-2)
    assert found[0]['loss_mask'] > 0
