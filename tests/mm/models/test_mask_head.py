"""The box-only mask head gives the stock head's masks, byte for byte."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from projects.openimages.masks import rle_to_mask
from projects.openimages.mm.models import mask_head
from projects.openimages.mm.models.mask_head import BoxMaskHead, paste_to_rles

CLASSES = 3
HEIGHT, WIDTH = 37, 53
SMALL = {'num_convs': 0, 'in_channels': 1, 'conv_out_channels': 1, 'num_classes': CLASSES}


def heads(class_agnostic=False):
    return tuple(head(class_agnostic=class_agnostic, **SMALL)
                 for head in (FCNMaskHead, BoxMaskHead))


def predict(head, logits, boxes, height=HEIGHT, width=WIDTH, *, threshold=0.5, rescale=True,
            scale=(1., 1.), activated=False):
    """The head's masks of one image; the labels go round the classes."""
    results = InstanceData(bboxes=boxes, labels=torch.arange(len(boxes)) % CLASSES)
    meta = {'ori_shape': (height, width), 'scale_factor': scale}
    head.predict_by_feat((logits,), [results], [meta], ConfigDict(mask_thr_binary=threshold),
                         rescale, activated)
    return results.masks


def both(logits, boxes, *size, class_agnostic=False, **options):
    """RLEs of the stock head (pasted and encoded) and of ours."""
    first, second = boxes.clone(), boxes.clone()
    stock, ours = heads(class_agnostic)
    pixels = predict(stock, logits, first, *size, **options)
    masks = predict(ours, logits, second, *size, **options)
    encoded = [coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
               for mask in pixels]
    assert torch.equal(first, second)  # rescaled in place by both
    return encoded, masks.rles


# Coordinates where something may go wrong: pixel edges and middles, image borders, thin boxes.
SIDES = st.one_of(st.floats(0, 1, width=32), st.sampled_from([0., 0.5, 1.]),
                  st.integers(0, 2 * WIDTH).map(lambda n: n / (2 * WIDTH)))


@st.composite
def boxes_in_image(draw):
    boxes = []
    for _ in range(draw(st.integers(1, 5))):
        x1, x2 = sorted((draw(SIDES) * WIDTH, draw(SIDES) * WIDTH))
        y1, y2 = sorted((draw(SIDES) * HEIGHT, draw(SIDES) * HEIGHT))
        thin = draw(st.sampled_from([None, None, 0., 1e-6, 0.01, 0.9]))
        boxes.append([x1, y1, x2 if thin is None else x1 + thin, y2])
    return torch.tensor(boxes)


def maps(kind, seed, count, channels=CLASSES, size=28):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, channels, size, size, generator=generator)
    if kind == 'smooth':
        noise = torch.nn.functional.avg_pool2d(noise, 7, 1, 3) * 20
    elif kind == 'saturated':
        noise = noise.sign() * 200
    elif kind == 'at the threshold':  # probability 0.5 exactly, in plateaus
        noise = noise.round().clamp(-1, 1)
    return noise


KINDS = st.sampled_from(['noise', 'smooth', 'saturated', 'at the threshold'])


@settings(max_examples=150, deadline=None)
@given(boxes_in_image(), KINDS, st.integers(0, 2**20), st.booleans(), st.booleans(),
       st.sampled_from([0.5, 0.5, 0.3, 0.05, 0.9]))
def test_same_bytes_as_the_stock_head(boxes, kind, seed, rescale, class_agnostic, threshold):
    logits = maps(kind, seed, len(boxes), 1 if class_agnostic else CLASSES)
    expected, got = both(logits, boxes, HEIGHT, WIDTH, threshold=threshold, rescale=rescale,
                         class_agnostic=class_agnostic)
    assert got == expected


@settings(max_examples=60, deadline=None)
@given(boxes_in_image(), KINDS, st.integers(0, 2**20), st.booleans(),
       st.sampled_from([(0.8, 0.8), (1.37, 1.41), (2.5, 1.)]))
def test_same_bytes_when_the_image_was_resized(boxes, kind, seed, rescale, scale):
    boxes = boxes * torch.tensor(scale).repeat(2)
    expected, got = both(maps(kind, seed, len(boxes)), boxes, HEIGHT, WIDTH, rescale=rescale,
                         scale=scale)
    assert got == expected


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**20), KINDS)
def test_same_bytes_on_a_large_image(seed, kind):
    random = np.random.default_rng(seed)
    corners = random.uniform((0, 0), (1024, 768), (2, 10, 2)).astype(np.float32)
    boxes = torch.from_numpy(np.concatenate([corners.min(0), corners.max(0)], 1))
    expected, got = both(maps(kind, seed, len(boxes)), boxes, 768, 1024)
    assert got == expected


@settings(max_examples=30, deadline=None)
@given(boxes_in_image(), st.integers(0, 2**20))
def test_already_activated_maps_are_taken_as_they_are(boxes, seed):
    expected, got = both(maps('noise', seed, len(boxes)).sigmoid(), boxes, HEIGHT, WIDTH,
                         activated=True)
    assert got == expected


@settings(max_examples=60, deadline=None)
@given(boxes_in_image(), KINDS, st.integers(0, 2**20), st.sampled_from([0.5, 0.2]))
@example(torch.tensor([[0., 0., 0., 5e-44]]), 'noise', 0, 0.2)  # dividing by its height overflows
def test_path_for_other_devices_equals_pasting_over_the_whole_image(boxes, kind, seed, threshold):
    """What runs on an accelerator: there the stock head samples every pixel of the image."""
    probabilities = maps(kind, seed, len(boxes), 1).sigmoid()
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
    pasted, _ = _do_paste_mask(probabilities, boxes, HEIGHT, WIDTH, skip_empty=False)
    areas = mask_head._areas(FakeDevice(boxes), HEIGHT, WIDTH, 28)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_head, '_areas', lambda *_: areas)
        got = paste_to_rles(probabilities[:, 0], boxes, HEIGHT, WIDTH, threshold)
    for mask, rle in zip(pasted, got, strict=True):
        assert (rle_to_mask(rle) == (mask >= threshold).numpy()).all()


class FakeDevice:
    """A CPU tensor that says it is elsewhere, so that the areas of an accelerator are computed."""

    device = torch.device('meta')

    def __init__(self, tensor):
        self.tensor = tensor

    def __getitem__(self, key):
        return self.tensor[key]

    def new_tensor(self, values):
        return self.tensor.new_tensor(values)


@pytest.mark.parametrize('shift', [(100, 0), (-100, 0), (0, 100), (0, -100), (-100, -100)])
def test_box_outside_the_image_has_an_empty_mask(shift):
    """The stock head fails on such a box; the one inside must not suffer."""
    boxes = torch.tensor([[3., 4., 20., 30.], [3., 4., 20., 30.]])
    boxes[1] += torch.tensor(shift).repeat(2)
    got = paste_to_rles(torch.ones(2, 28, 28), boxes, HEIGHT, WIDTH)
    assert [rle_to_mask(rle).sum() for rle in got] == [17 * 26, 0]


def test_box_over_the_whole_image_is_full():
    [rle] = paste_to_rles(torch.ones(1, 28, 28), torch.tensor([[0., 0., WIDTH, HEIGHT]]),
                          HEIGHT, WIDTH)
    assert rle_to_mask(rle).all() and rle['size'] == [HEIGHT, WIDTH]


def test_groups_do_not_change_the_masks(monkeypatch):
    boxes = torch.tensor([[n, 0.5 * n, 20. + n, 30.] for n in range(12)])
    probabilities = maps('noise', 0, 12, 1)[:, 0].sigmoid()
    whole = paste_to_rles(probabilities, boxes, HEIGHT, WIDTH)
    monkeypatch.setattr(mask_head, '_GROUP_PIXELS', 1500)
    assert paste_to_rles(probabilities, boxes, HEIGHT, WIDTH) == whole


@pytest.fixture
def precision():
    """Sets how many bits products of matrices keep, by either of torch's ways, until the end."""
    backends = torch.backends.cuda, torch.backends.mkldnn
    yield torch.backends
    torch.set_float32_matmul_precision('highest')
    for backend in backends:
        backend.matmul.fp32_precision = 'none'


def cut(product, bits):
    """A product of matrices whose factors keep so many bits behind the point, cut, not rounded."""
    def shortened(matrix):
        whole = matrix.contiguous().view(torch.int32)
        return (whole >> (23 - bits) << (23 - bits)).view(torch.float32)
    return lambda first, second: product(shortened(first), shortened(second))


@pytest.mark.parametrize(('name', 'bits'), [('tf32', 10), ('bf16', 7)])
def test_products_of_fewer_bits_do_not_change_the_masks(monkeypatch, precision, name, bits):
    boxes = torch.tensor([[1.3, 2.2, 40.9, 30.1], [8., 3., 52., 36.]]).repeat(20, 1)
    probabilities = maps('smooth', 0, 40, 1)[:, 0].mul(0.02).sigmoid()  # much near the threshold
    whole = paste_to_rles(probabilities, boxes, HEIGHT, WIDTH)
    monkeypatch.setattr(torch, 'mm', cut(torch.mm, bits))
    assert paste_to_rles(probabilities, boxes, HEIGHT, WIDTH) != whole
    precision.mkldnn.matmul.fp32_precision = name
    assert paste_to_rles(probabilities, boxes, HEIGHT, WIDTH) == whole


@pytest.mark.parametrize('high', [
    lambda backends: torch.set_float32_matmul_precision('high'),
    lambda backends: setattr(backends.cuda.matmul, 'fp32_precision', 'tf32')],
    ids=['old way', 'new way'])
def test_a_model_of_fewer_bits_is_pasted_and_keeps_its_settings(monkeypatch, precision, high):
    boxes, logits = torch.tensor([[1.3, 2.2, 40.9, 30.1]] * 40), maps('smooth', 0, 40)
    expected, _ = both(logits, boxes)
    high(precision)
    seen = []
    monkeypatch.setattr(mask_head, '_sample', lambda maps, box, *grid: (
        seen.append(len(box)) or SAMPLE(maps, box, *grid)))
    assert predict(heads()[1], logits, boxes.clone()).rles == expected
    assert sum(seen) < 0.05 * 40 * 40 * 28  # not every pixel
    assert precision.cuda.matmul.fp32_precision == 'tf32'


SAMPLE = mask_head._sample


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**20), st.sampled_from([torch.bfloat16, torch.float16]))
def test_autocast_does_not_change_the_masks(seed, dtype):
    boxes = torch.tensor([[1.3, 2.2, 40.9, 30.1], [8., 3., 52., 36.]])
    logits = maps('smooth', seed, 2).to(dtype)
    expected, got = both(logits, boxes)
    with torch.autocast('cpu', dtype):
        assert predict(heads()[1], logits, boxes.clone()).rles == got == expected
        assert torch.is_autocast_enabled('cpu')


def test_a_box_with_many_points_to_sample_does_not_make_work_of_the_others(monkeypatch):
    plateau, sharp = torch.full((1, 28, 28), 0.5), torch.full((63, 28, 28), 1.)
    sharp[:, :, :14] = 0.
    boxes = torch.tensor([[0., 0., 300., 300.]] + [[0.5, 0., 20.5, 20.]] * 63)
    seen = []
    sample = torch.nn.functional.grid_sample
    monkeypatch.setattr(mask_head.F, 'grid_sample', lambda maps, grid, **options: (
        seen.append(grid.numel() // 2) or sample(maps, grid, **options)))
    [alone] = paste_to_rles(plateau, boxes[:1], 300, 300)
    seen.clear()
    masks = paste_to_rles(torch.cat([plateau, sharp]), boxes, 300, 300)
    assert masks[0] == alone
    assert 280 * 280 < sum(seen) < 3 * 300 * 300


@pytest.mark.parametrize('threshold', [0, -1])
def test_thresholds_without_a_mask_inside_the_box_give_the_stock_tensor(threshold):
    boxes, logits = torch.tensor([[3., 4., 20., 30.]]), maps('noise', 0, 1)
    stock, ours = (predict(head, logits, boxes.clone(), threshold=threshold) for head in heads())
    assert torch.equal(stock, ours)


def test_image_without_detections_has_no_masks():
    none = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long),
                        scores=torch.zeros(0))
    some = InstanceData(bboxes=torch.tensor([[1., 1., 9., 9.]]), labels=torch.tensor([2]),
                        scores=torch.ones(1))
    meta = {'ori_shape': (HEIGHT, WIDTH), 'scale_factor': (1., 1.)}
    got = heads()[1].predict_by_feat((maps('noise', 0, 0), maps('noise', 0, 1)), [none, some],
                                     [meta, meta], ConfigDict(mask_thr_binary=0.5), rescale=True)
    assert [len(result.masks) for result in got] == [0, 1]
    assert all(result.masks.masks.shape[1:] == (37, 53) for result in got)


def test_head_is_reached_through_the_config_and_loads_stock_weights():
    head = MODELS.build({'type': 'BoxMaskHead', **SMALL})
    stock = FCNMaskHead(**SMALL)
    assert not any(head.load_state_dict(stock.state_dict()))
