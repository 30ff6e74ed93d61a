"""Loading and augmenting ``RleMasks``: as with bitmaps, and nothing that is ignored gets lost."""

import copy
import random

import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.registry import TRANSFORMS
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import init_default_scope
from pycocotools import mask as coco_mask

import projects.openimages.mm  # noqa: F401
from projects.openimages.masks import MaskError
from projects.openimages.mm.datasets.rle_transforms import LoadRleAnnotations
from projects.openimages.mm.structures.rle_masks import RleMasks

HEIGHT, WIDTH = 120, 160


@pytest.fixture(autouse=True)
def mmdet_scope():
    init_default_scope('mmdet')


def image_item(seed: int = 0, with_boxes: bool = True) -> dict:
    """An item after image loading: discs with masks and, if asked for, boxes without.

    The boxes are a group-of box and one more, both ignored, each 60 pixels wide, near the middle.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    instances = []
    for label in range(3):
        mask = np.hypot(y - rng.integers(45, 75), x - rng.integers(60, 100)) < rng.integers(15, 40)
        rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        instances.append(instance(mask, [float(side) for side in box], label))
    nothing = np.zeros((HEIGHT, WIDTH), bool)
    boxes = [[40.4, 30.2, 100.9, 80.5], [60., 40., 120.5, 90.]] if with_boxes else []
    for label, box in enumerate(boxes, 3):
        instances.append(instance(nothing, box, label, ignore_flag=1, group_of=label == 3))
    image = rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    return {'img': image, 'img_shape': (HEIGHT, WIDTH), 'ori_shape': (HEIGHT, WIDTH),
            'height': HEIGHT, 'width': WIDTH, 'img_path': f'{seed}.jpg', 'instances': instances}


def instance(mask, box, label, ignore_flag=0, group_of=False) -> dict:
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {'bbox': box, 'bbox_label': label, 'ignore_flag': ignore_flag, 'group_of': group_of,
            'mask': {'size': rle['size'], 'counts': rle['counts'].decode('ascii')}}


def loaded(ours: bool, seed: int = 0, **options) -> dict:
    load = (LoadRleAnnotations if ours else LoadAnnotations)(with_bbox=True, with_mask=True)
    return load.transform(image_item(seed, **options))


def run(config: dict, item: dict, mixed: list[dict] | None = None, seed: int = 0) -> dict | None:
    """One transform with the random numbers of a seed."""
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    if mixed is not None:
        item = {**item, 'mix_results': mixed}
    return TRANSFORMS.build(config)(item)


# All of MMDetection's transforms that move, cut or drop instances and take masks.
AUGMENTATIONS = {
    'resize': {'type': 'Resize', 'scale': (213, 133), 'keep_ratio': True},
    'resize to a shape': {'type': 'Resize', 'scale': (200, 100), 'keep_ratio': False},
    'large-scale jitter': {'type': 'RandomResize', 'scale': (160, 120), 'keep_ratio': True,
                           'ratio_range': (0.3, 2.0)},
    'random choice of sizes': {'type': 'RandomChoiceResize', 'scales': [(160, 90), (320, 200)],
                               'keep_ratio': True},
    'fixed scale': {'type': 'FixScaleResize', 'scale': (213, 133), 'keep_ratio': True},
    'fixed shape': {'type': 'FixShapeResize', 'width': 200, 'height': 200, 'keep_ratio': False},
    'shortest edge': {'type': 'ResizeShortestEdge', 'scale': 90, 'max_size': 200},
    'flip': {'type': 'RandomFlip', 'prob': 1.0},
    'flip both ways': {'type': 'RandomFlip', 'prob': 1.0, 'direction': 'diagonal'},
    'pad': {'type': 'Pad', 'size': (200, 200)},
    'crop': {'type': 'RandomCrop', 'crop_size': (130, 100)},
    'crop and new boxes': {'type': 'RandomCrop', 'crop_size': (130, 100), 'recompute_bbox': True},
    'crop by overlap': {'type': 'MinIoURandomCrop', 'min_crop_size': 0.7},
    'expand': {'type': 'Expand', 'prob': 1.0},
    'filter': {'type': 'FilterAnnotations', 'min_gt_bbox_wh': (5, 5)},
    'shear x': {'type': 'ShearX', 'prob': 1.0, 'level': 6},
    'shear y': {'type': 'ShearY', 'prob': 1.0, 'level': 6},
    'rotate': {'type': 'Rotate', 'prob': 1.0, 'level': 4},
    'translate x': {'type': 'TranslateX', 'prob': 1.0, 'level': 4},
    'translate y': {'type': 'TranslateY', 'prob': 1.0, 'level': 4},
    'cut out': {'type': 'CutOut', 'n_holes': 2, 'cutout_shape': (20, 20)},
}
TURNING = ('shear x', 'shear y', 'rotate')


def assert_in_step(item: dict) -> None:
    masks = item['gt_masks']
    assert type(masks) is RleMasks and (masks.height, masks.width) == item['img'].shape[:2]
    count = len(item['gt_bboxes'])
    assert len(masks) == len(item['gt_bboxes_labels']) == len(item['gt_ignore_flags']) == count
    assert masks.ignore.tolist() == item['gt_ignore_flags'].tolist()
    assert masks.group_of.tolist() == (item['gt_bboxes_labels'] == 3).tolist()
    assert masks.has_mask.tolist() == (item['gt_bboxes_labels'] < 3).tolist()


@pytest.mark.parametrize('name', AUGMENTATIONS)
@pytest.mark.parametrize('seed', range(4))
def test_an_augmentation_does_the_same_to_runs_as_to_bitmaps(name, seed):
    stock, ours = (run(AUGMENTATIONS[name], loaded(kind, seed, with_boxes=False), seed=seed)
                   for kind in (False, True))
    assert_in_step(ours)
    assert np.array_equal(ours['img'], stock['img'])
    assert torch.equal(ours['gt_bboxes'].tensor, stock['gt_bboxes'].tensor)
    assert np.array_equal(ours['gt_bboxes_labels'], stock['gt_bboxes_labels'])
    pixels = stock['gt_masks'].masks
    if name in TURNING:  # OpenCV rounds by the number of masks, see RleMasks
        assert (ours['gt_masks'].masks != pixels).sum() < 0.005 * pixels.sum()
    else:
        assert np.array_equal(ours['gt_masks'].masks, pixels)


@pytest.mark.parametrize('name', AUGMENTATIONS)
@pytest.mark.parametrize('seed', range(4))
def test_what_is_ignored_stays_so_in_each_augmentation(name, seed):
    """The boxes without a mask are so large and so near the middle that none can leave."""
    before = loaded(True, seed)
    after = run(AUGMENTATIONS[name], copy.deepcopy(before), seed=seed)
    assert_in_step(after)
    assert after['gt_ignore_flags'].sum() == before['gt_ignore_flags'].sum() == 2
    ignored = after['gt_ignore_flags']
    boxes, known = (masks.tensor[ignored] for masks in (after['gt_bboxes'],
                                                        after['gt_masks'].get_bboxes()))
    assert (boxes[:, 2:] - boxes[:, :2] > 5).all()
    if name not in TURNING:
        scale = after['img'].shape[0] / HEIGHT
        assert (boxes - known).abs().max() <= 1 + scale


def mixed(config: dict, ours: bool, with_boxes: bool, runs: int = 6) -> dict:
    """What a transform with a store of earlier items makes of the last of some items."""
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    transform = TRANSFORMS.build(config)
    for seed in range(runs):
        item = transform(loaded(ours, seed, with_boxes=with_boxes))
    return item


MIXTURES = {
    'mosaic': {'type': 'CachedMosaic', 'img_scale': (160, 160), 'prob': 1.0},
    'mixup': {'type': 'CachedMixUp', 'img_scale': (160, 160), 'prob': 1.0,
              'ratio_range': (0.8, 1.2)}}


@pytest.mark.parametrize('name', MIXTURES)
@pytest.mark.parametrize('with_boxes', [False, True])
def test_mixtures_of_images_are_those_of_bitmaps(name, with_boxes):
    stock, ours = (mixed(MIXTURES[name], kind, with_boxes) for kind in (False, True))
    assert_in_step(ours)
    assert len(ours['gt_masks']) > 5
    assert ours['gt_ignore_flags'].any() == with_boxes
    for key in ('img', 'gt_bboxes_labels', 'gt_ignore_flags'):
        assert np.array_equal(ours[key], stock[key]), key
    assert torch.equal(ours['gt_bboxes'].tensor, stock['gt_bboxes'].tensor)
    assert np.array_equal(ours['gt_masks'].masks, stock['gt_masks'].masks)


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('selected', [False, True])
def test_copy_paste_does_what_mmdetections_does_where_all_have_masks(seed, selected):
    results = [run({'type': name, 'max_num_pasted': 4, 'selected': selected},
                   loaded(ours, seed, with_boxes=False),
                   [loaded(ours, seed + 1, with_boxes=False)], seed)
               for name, ours in (('CopyPaste', False), ('RleCopyPaste', True))]
    stock, ours = results
    assert_in_step(ours)
    for key in ('img', 'gt_bboxes_labels', 'gt_ignore_flags'):
        assert np.array_equal(ours[key], stock[key]), key
    assert ours['img'].dtype == np.uint8
    assert torch.equal(ours['gt_bboxes'].tensor, stock['gt_bboxes'].tensor)
    assert np.array_equal(ours['gt_masks'].masks, stock['gt_masks'].masks)


def test_copy_paste_keeps_boxes_without_a_mask_and_pastes_none():
    before = loaded(True, 0)
    after = run({'type': 'RleCopyPaste', 'selected': False}, copy.deepcopy(before),
                [loaded(True, 1)])
    assert_in_step(after)
    ignored = after['gt_ignore_flags']
    assert ignored.sum() == 2
    assert torch.equal(after['gt_bboxes'].tensor[ignored], before['gt_bboxes'].tensor[3:])
    source = loaded(True, 1)
    assert np.array_equal(after['gt_masks'][-3:].masks, source['gt_masks'][:3].masks)
    covered = source['gt_masks'].masks.any(0)
    assert np.array_equal(after['img'][covered], source['img'][covered])
    assert np.array_equal(after['img'][~covered], before['img'][~covered])
    keys = ('gt_bboxes', 'gt_bboxes_labels', 'gt_masks', 'gt_ignore_flags')
    only_boxes = {**source, **{key: source[key][3:] for key in keys}}
    nothing = run({'type': 'RleCopyPaste', 'selected': False}, copy.deepcopy(before), [only_boxes])
    assert len(nothing['gt_bboxes']) == 5
    assert np.array_equal(nothing['gt_masks'].masks, before['gt_masks'].masks)


def test_copy_paste_of_mmdetection_gives_bitmaps():
    after = run({'type': 'CopyPaste', 'selected': False}, loaded(True, 0, with_boxes=False),
                [loaded(True, 1, with_boxes=False)])
    assert type(after['gt_masks']) is BitmapMasks


@pytest.mark.parametrize('seed', range(5))
def test_erasing_does_what_mmdetections_does(seed):
    options = {'n_patches': (1, 4), 'ratio': (0.1, 0.5), 'bbox_erased_thr': 0.6}
    stock = run({'type': 'RandomErasing', **options}, loaded(False, seed, with_boxes=False),
                seed=seed)
    ours = run({'type': 'RleRandomErasing', **options}, loaded(True, seed, with_boxes=False),
               seed=seed)
    assert_in_step(ours)
    assert np.array_equal(ours['img'], stock['img'])
    assert torch.equal(ours['gt_bboxes'].tensor, stock['gt_bboxes'].tensor)
    assert np.array_equal(ours['gt_masks'].masks, stock['gt_masks'].masks)


def test_erasing_keeps_boxes_without_a_mask():
    after = run({'type': 'RleRandomErasing', 'n_patches': 3, 'ratio': 0.2}, loaded(True))
    assert_in_step(after)
    assert after['gt_ignore_flags'].sum() == 2


def test_mmdetections_erasing_does_not_pass_by_in_silence():
    with pytest.raises(ValueError, match='read-only'):
        run({'type': 'RandomErasing', 'n_patches': 1, 'ratio': 0.2}, loaded(True))


def test_erasing_with_ones_is_an_error():
    with pytest.raises(ValueError, match='mask_border_value'):
        TRANSFORMS.build({'type': 'RleRandomErasing', 'n_patches': 1, 'ratio': 0.2,
                          'mask_border_value': 1})


FILTERS = ({'min_gt_bbox_wh': (50, 20)}, {'by_mask': True, 'min_gt_mask_area': 1500},
           {'by_mask': True, 'by_box': False, 'min_gt_mask_area': 1500},
           {'by_mask': True, 'min_gt_mask_area': 50_000, 'keep_empty': False})


@pytest.mark.parametrize('options', FILTERS)
@pytest.mark.parametrize('seed', range(3))
def test_filter_does_what_mmdetections_does_where_all_have_masks(options, seed):
    stock = run({'type': 'FilterAnnotations', **options}, loaded(False, seed, with_boxes=False))
    ours = run({'type': 'RleFilterAnnotations', **options}, loaded(True, seed, with_boxes=False))
    assert_in_step(ours)
    assert np.array_equal(ours['gt_bboxes_labels'], stock['gt_bboxes_labels'])
    assert torch.equal(ours['gt_bboxes'].tensor, stock['gt_bboxes'].tensor)


def test_filter_by_mask_keeps_boxes_without_a_mask():
    options = {'by_mask': True, 'min_gt_mask_area': 50_000}
    after = run({'type': 'RleFilterAnnotations', **options}, loaded(True))
    assert_in_step(after)
    assert after['gt_bboxes_labels'].tolist() == [3, 4]
    assert run({'type': 'RleFilterAnnotations', **options}, loaded(True, with_boxes=False)) is None
    assert run({'type': 'RleFilterAnnotations', 'min_gt_bbox_wh': (500, 500)}, loaded(True)) is None


@pytest.mark.parametrize('mask', [
    [[10., 10., 40., 12., 30., 50.], [60., 60., 80., 60., 80., 80., 60., 80.]],
    {'size': [HEIGHT, WIDTH], 'counts': [500, 60, HEIGHT * WIDTH - 560]}])
def test_polygons_and_plain_run_lengths_load_as_in_mmdetection(mask):
    items = [image_item(), image_item()]
    for item in items:
        item['instances'][0]['mask'] = mask
    stock, ours = (load(with_bbox=True, with_mask=True).transform(item) for load, item in
                   zip((LoadAnnotations, LoadRleAnnotations), items, strict=True))
    assert np.array_equal(ours['gt_masks'].masks, stock['gt_masks'].masks)
    assert ours['gt_masks'].areas[0] > 0


def test_an_image_without_instances_loads():
    item = LoadRleAnnotations(with_bbox=True).transform({**image_item(), 'instances': []})
    assert len(item['gt_masks']) == 0 and item['gt_masks'].to_ndarray().shape == (0, HEIGHT, WIDTH)
    flipped = run(AUGMENTATIONS['flip'], item)
    assert len(flipped['gt_masks']) == 0


def test_malformed_mask_is_an_error_that_names_the_image():
    item = image_item(7)
    item['instances'][1]['mask']['counts'] = '00'
    with pytest.raises(MaskError, match=r'7\.jpg'):
        LoadRleAnnotations(with_bbox=True).transform(item)


def test_polygon_option_that_would_do_nothing_is_an_error():
    with pytest.raises(ValueError, match='poly2mask'):
        TRANSFORMS.build({'type': 'LoadRleAnnotations', 'poly2mask': False})


def test_without_masks_nothing_is_loaded_for_them():
    item = LoadRleAnnotations(with_mask=False, with_bbox=True).transform(image_item())
    assert 'gt_masks' not in item and len(item['gt_bboxes']) == 5


PACK = {'type': 'PackInstances'}


def test_packed_items_know_group_of_after_any_transform():
    item = run(AUGMENTATIONS['crop and new boxes'], loaded(True))
    keys = ('gt_bboxes', 'gt_bboxes_labels', 'gt_masks', 'gt_ignore_flags')
    item.update({key: item[key][[0, 4, 2, 3, 1]] for key in keys})
    sample = run(PACK, item)['data_samples']
    assert sample.ignored_instances.labels.tolist() == [4, 3]
    assert sample.ignored_instances.group_of.tolist() == [False, True]
    assert len(sample.gt_instances) == 3
    item.update({key: item[key][1:2] for key in keys})
    sample = run(PACK, item)['data_samples']
    assert sample.ignored_instances.group_of.tolist() == [False]


@pytest.mark.parametrize('ours', [False, True])
def test_masks_left_behind_by_a_transform_for_boxes_are_an_error(ours):
    item = run({'type': 'MixUp', 'img_scale': (160, 160)}, loaded(ours, 3), [loaded(ours, 4)])
    with pytest.raises(ValueError, match=r'3\.jpg: 5 masks for \d+ boxes'):
        run(PACK, item)
