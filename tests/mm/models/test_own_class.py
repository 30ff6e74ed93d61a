"""In training the mask head computes the maps of the objects' own classes, and learns the same."""

import copy

import numpy as np
import pytest
import torch
from mmdet.models.roi_heads.mask_heads import FCNMaskHead, HTCMaskHead
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from projects.openimages.common.errors import ConfigError
from projects.openimages.mm.models.htc import BoxHTCMaskHead
from projects.openimages.mm.models.mask_head import BoxMaskHead
from projects.openimages.mm.models.own_class import ClassLogits, OwnClassConv2d

SIZE = 32
SMALL = {'num_convs': 1, 'in_channels': 4, 'conv_out_channels': 4, 'num_classes': 5}
MASKS = ConfigDict(mask_size=8)


def sampled(labels, device='cpu'):
    """Sampling result and instances of an image, a square object for each label."""
    count = len(labels)
    corners = torch.arange(count, dtype=torch.float32)[:, None].expand(-1, 2) * 2
    boxes = torch.cat([corners, corners + 12], 1).to(device)
    masks = np.zeros((count, SIZE, SIZE), bool)
    for number in range(count):
        masks[number, 2 * number:2 * number + 6, 2 * number:2 * number + 12] = True
    instances = InstanceData(
        bboxes=boxes, labels=torch.tensor(labels, dtype=torch.long, device=device),
        masks=BitmapMasks(masks.astype(np.uint8), SIZE, SIZE))
    result = SamplingResult.random(num_gts=1, num_preds=1)
    result.pos_priors, result.pos_gt_labels = boxes, instances.labels
    result.pos_assigned_gt_inds = torch.arange(count, device=device)
    return result, instances


def learn(head, features, images, autocast=False):
    """Loss, and gradients of every weight and of the features."""
    features = features.clone().requires_grad_()
    device = features.device.type
    results, instances = zip(*(sampled(labels, device) for labels in images), strict=True)
    with torch.autocast(device, torch.bfloat16, enabled=autocast):
        maps = head(features)
        maps = maps[0] if isinstance(maps, list) else maps
        found = head.loss_and_target(maps, list(results), list(instances), MASKS)
    loss = found['loss_mask']['loss_mask']
    loss.backward()
    gradients = {name: weight.grad for name, weight in head.named_parameters()}
    return loss.detach(), {**gradients, 'features': features.grad}, found['mask_targets']


def pair(stock=FCNMaskHead, ours=BoxMaskHead, **options):
    torch.manual_seed(0)
    first, second = stock(**SMALL, **options), ours(**SMALL, **options)
    for weight in first.parameters():  # biases too
        torch.nn.init.normal_(weight, std=0.3)
    second.load_state_dict(first.state_dict())
    return first, second


@pytest.mark.parametrize('images', [[[2, 0, 2]], [[1], [4, 0]], [[], [3]]])
@pytest.mark.parametrize(('stock', 'ours'), [(FCNMaskHead, BoxMaskHead),
                                             (HTCMaskHead, BoxHTCMaskHead)])
def test_loss_and_gradients_are_the_stock_heads(images, stock, ours):
    features = torch.randn(sum(map(len, images)), 4, 4, 4)
    first, second = pair(stock, ours)
    expected, wanted, targets = learn(first, features, images)
    got, gradients, ours_targets = learn(second, features, images)
    assert expected > 0.1
    torch.testing.assert_close(got, expected)
    assert torch.equal(targets, ours_targets)
    for name, gradient in wanted.items():
        if gradient is None:  # HTC's, of a step that there is none before
            assert gradients[name] is None
            continue
        torch.testing.assert_close(gradients[name], gradient, msg=name)
    untouched = sorted(set(range(5)) - {label for one in images for label in one})
    assert not gradients['conv_logits.weight'][untouched].any()


def test_a_batch_without_a_region_reaches_every_weight():
    """Else processes that train together would wait for a gradient for ever."""
    loss, gradients, _ = learn(pair()[1], torch.randn(0, 4, 4, 4), [[], []])
    assert loss == 0
    assert all(gradient is not None and not gradient.any() for gradient in gradients.values())


def test_under_autocast_the_loss_is_of_float32_logits():
    first, second = pair()
    features, images = torch.randn(3, 4, 4, 4), [[0, 1, 2]]
    expected, _, _ = learn(first, features, images)
    got, _, _ = learn(second, features, images, autocast=True)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0.02, atol=0.02)
    with torch.autocast('cpu', torch.bfloat16):
        assert second(features).of(torch.tensor([0, 1, 2])).dtype == torch.float32


def test_no_tensor_of_all_classes_is_made_in_training():
    shapes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            shapes.extend(one.numel() for one in (out if isinstance(out, tuple) else (out,))
                          if isinstance(one, torch.Tensor))
            return out

    features, images = torch.randn(3, 4, 4, 4), [[0, 1, 2]]
    options = {**SMALL, 'num_classes': 1000}
    all_classes = 3 * 1000 * 8 * 8
    for head, expected in ((FCNMaskHead(**options), True), (BoxMaskHead(**options), False)):
        shapes.clear()
        with Watch():
            learn(head, features, images)
        assert (max(shapes) >= all_classes) == expected


def test_in_a_test_the_head_gives_the_stock_heads_tensor():
    first, second = pair()
    features = torch.randn(3, 4, 4, 4)
    assert torch.equal(second.eval()(features), first.eval()(features))


def test_on_request_a_tests_masks_are_of_their_own_maps():
    head = pair()[1].eval()
    own = BoxMaskHead(**SMALL, predictor_cfg={'type': 'OwnClassConv2d', 'in_tests': True}).eval()
    own.load_state_dict(head.state_dict())
    features = torch.randn(4, 4, 4, 4)
    found = []
    for one in (head, own):
        results = [InstanceData(bboxes=torch.tensor([[2., 3., 20., 30.]] * len(labels)),
                                labels=torch.tensor(labels)) for labels in ([4, 0, 2], [1])]
        metas = [{'ori_shape': (SIZE, SIZE), 'scale_factor': (1., 1.)}] * 2
        one.predict_by_feat(one(features).split([3, 1], 0), results, metas,
                            ConfigDict(mask_thr_binary=0.5), rescale=True)
        found.append([rle['counts'] for result in results for rle in result.masks.rles])
    assert isinstance(own(features), ClassLogits)
    assert found[0] == found[1]
    assert len(set(found[0])) == 4


def test_maps_that_a_cascade_would_average_are_refused():
    conv = OwnClassConv2d(4, 5, 1, in_tests=True).eval()
    with pytest.raises(ConfigError, match='in_tests is not for detectors that average'):
        conv(torch.randn(3, 4, 2, 2)).sigmoid()


def test_one_map_for_all_classes_is_a_tensor_as_ever():
    first, second = pair(class_agnostic=True)
    features = torch.randn(3, 4, 4, 4)
    assert torch.equal(second(features), first(features))


def test_a_predictor_that_the_config_names_is_taken():
    head = BoxMaskHead(**SMALL, predictor_cfg={'type': 'NormedConv2d', 'temperature': 20})
    assert not isinstance(head.conv_logits, OwnClassConv2d)
    assert head(torch.randn(2, 4, 4, 4)).shape == (2, 5, 8, 8)


def test_logits_are_indexed_by_region_and_class_as_a_tensor_is():
    """Mask Scoring R-CNN takes its objects' maps that way."""
    conv = OwnClassConv2d(4, 5, 1)
    features = torch.randn(3, 4, 2, 2)
    logits, tensor = conv(features), copy.deepcopy(conv).eval()(features)
    assert isinstance(logits, ClassLogits)
    assert logits.shape == tensor.shape and logits.size() == tensor.size()
    assert logits.size(1) == 5
    torch.testing.assert_close(logits[range(3), torch.tensor([4, 0, 4])],
                               tensor[range(3), torch.tensor([4, 0, 4])])
    torch.testing.assert_close(logits[[2, 0], [1, 3]], tensor[[2, 0], [1, 3]])


def test_channels_last_features_give_the_same_logits():
    conv = OwnClassConv2d(4, 5, 1)
    features, labels = torch.randn(3, 4, 6, 2), torch.tensor([1, 4, 1])
    expected = conv(features).of(labels)
    conv.to(memory_format=torch.channels_last)
    features = features.to(memory_format=torch.channels_last)
    torch.testing.assert_close(conv(features).of(labels), expected)
