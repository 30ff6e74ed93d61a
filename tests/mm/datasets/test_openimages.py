import copy
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.datasets.samplers import AspectRatioBatchSampler, ClassAwareSampler
from mmengine.dataset import DefaultSampler, pseudo_collate
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

import projects.openimages.mm  # noqa: F401
from projects.openimages.common.errors import UserError
from projects.openimages.labels import LabelSpace
from projects.openimages.mm.datasets.openimages import OpenImagesInstanceDataset
from projects.openimages.mm.datasets.samplers import (
    InfiniteClassAwareSampler,
    ResumableAspectRatioBatchSampler,
)

PIPELINE = [{'type': 'LoadImageFromFile'},
            {'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True},
            {'type': 'Resize', 'scale': (160, 120), 'keep_ratio': True},
            {'type': 'RandomFlip', 'prob': 1.0}]
PACKED = [*PIPELINE, {'type': 'PackDetInputs'}]


@pytest.fixture(autouse=True)
def mmdet_scope():
    init_default_scope('mmdet')


def ours(root: Path, **options) -> OpenImagesInstanceDataset:
    return OpenImagesInstanceDataset(**{
        'data_root': str(root), 'ann_file': 'prepared/train/index.arrow',
        'data_prefix': {'img': 'images/train/'}, 'pipeline': PACKED, **options})


def coco(root: Path, classes, **options) -> CocoDataset:
    return CocoDataset(**{
        'data_root': str(root), 'ann_file': 'prepared/train/coco.json',
        'data_prefix': {'img': 'images/train/'}, 'pipeline': PACKED,
        'metainfo': {'classes': classes}, **options})


def assert_same_instances(left, right, *, masks: bool = True) -> None:
    left_boxes, right_boxes = (getattr(item.bboxes, 'tensor', item.bboxes)
                               for item in (left, right))
    assert torch.equal(left_boxes, right_boxes)
    assert torch.equal(left.labels, right.labels)
    if masks:
        assert np.array_equal(left.masks.to_ndarray(), right.masks.to_ndarray())


def test_items_equal_coco_dataset_through_mmdetections_pipeline(demo_root):
    dataset = ours(demo_root)
    reference = coco(demo_root, dataset.metainfo['classes'])
    assert len(dataset) == len(reference) == 24
    seen = 0
    for item, expected in zip(dataset, reference, strict=True):
        assert torch.equal(item['inputs'], expected['inputs'])
        sample, other = item['data_samples'], expected['data_samples']
        assert sample.metainfo == other.metainfo
        assert_same_instances(sample.gt_instances, other.gt_instances)
        # Of a box without a mask coco.json has the filled box, for the COCO metric's sake.
        assert_same_instances(sample.ignored_instances, other.ignored_instances, masks=False)
        seen += len(sample.gt_instances)
    assert seen > 20


def test_data_infos_hold_what_coco_dataset_holds(demo_root):
    dataset = ours(demo_root, pipeline=[])
    reference = coco(demo_root, dataset.metainfo['classes'], pipeline=[])
    for idx in range(len(dataset)):
        info, expected = dataset.get_data_info(idx), reference.get_data_info(idx)
        for item, other in zip(info.pop('instances'), expected.pop('instances'), strict=True):
            assert item.pop('bbox') == pytest.approx(other.pop('bbox'), rel=1e-12)
            if item['ignore_flag']:
                assert item['mask']['size'] == other.pop('mask')['size']
            assert {key: item[key] for key in other} == other
        assert {key: info[key] for key in expected} == expected


def test_a_subset_of_classes_keeps_their_order_and_items(demo_root):
    names = ours(demo_root).metainfo['classes']
    counts = {label: len(items) for label, items in ours(demo_root).get_cat2imgs().items()}
    # CocoDataset takes classes in the file's order, whatever order they are asked for in.
    chosen = sorted(sorted(counts, key=counts.get)[-3:])
    classes = tuple(names[label] for label in chosen)
    dataset = ours(demo_root, metainfo={'classes': classes})
    reference = coco(demo_root, classes)
    for item, expected in zip(dataset, reference, strict=True):
        assert_same_instances(item['data_samples'].gt_instances,
                              expected['data_samples'].gt_instances)
    backwards = ours(demo_root, metainfo={'classes': classes[::-1]})
    assert backwards.get_cat2imgs()[0].tolist() == dataset.get_cat2imgs()[2].tolist()
    assert backwards.metainfo['mids'] == dataset.metainfo['mids'][::-1]


def test_group_of_and_mask_less_boxes_are_ignored_instances(demo_root):
    dataset = ours(demo_root, pipeline=[*PIPELINE, {'type': 'PackInstances'}])
    index = dataset.index
    for idx in range(len(dataset)):
        rows = index.instance_rows(idx)
        ignored = index.is_group_of[rows] | ~index.has_mask[rows]
        sample = dataset[idx]['data_samples']
        assert len(sample.gt_instances) == (~ignored).sum()
        assert sample.ignored_instances.group_of.tolist() == \
            index.is_group_of[rows][ignored].tolist()
    assert index.is_group_of.any() and (~index.has_mask & ~index.is_group_of).any()


def test_verified_labels_and_image_id_reach_the_data_sample(demo_root):
    dataset = ours(demo_root, pipeline=[*PIPELINE, {'type': 'PackInstances'}])
    for idx in (0, 7):
        sample, record = dataset[idx]['data_samples'], dataset.index.image(idx)
        assert sample.image_id == record.image_id
        expected = zip(record.label_class_ids.tolist(), record.label_present.tolist(), strict=True)
        assert [tuple(pair) for pair in sample.verified_labels.tolist()] == list(expected)


def test_filter_keeps_images_with_an_instance_to_learn_from(demo_root):
    dataset = ours(demo_root, filter_cfg={'filter_empty_gt': True, 'min_size': 32})
    everything = ours(demo_root)
    expected = [idx for idx in range(24) if everything.get_cat_ids(idx)]
    assert dataset.data_list.tolist() == expected
    assert 0 < len(expected) < 24
    assert all(len(item['data_samples'].gt_instances) for item in dataset)
    in_test = ours(demo_root, filter_cfg={'filter_empty_gt': True}, test_mode=True)
    assert len(in_test) == 24


def test_filter_by_minimum_size(demo_root):
    everything = ours(demo_root)
    shorter = np.minimum(everything.index.widths, everything.index.heights)
    limit = int(np.median(shorter)) + 1
    dataset = ours(demo_root, filter_cfg={'min_size': limit})
    assert dataset.data_list.tolist() == np.flatnonzero(shorter >= limit).tolist()


@pytest.mark.parametrize(('indices', 'expected'), [
    (3, [0, 1, 2]), (-2, [22, 23]), ([5, 1, 1], [5, 1, 1])])
def test_indices_and_subsets_pick_items(demo_root, indices, expected):
    dataset = ours(demo_root)
    assert ours(demo_root, indices=indices).data_list.tolist() == expected
    assert dataset.get_subset(indices).data_list.tolist() == expected
    assert len(dataset) == 24
    dataset.get_subset_(indices)
    image_ids = [dataset.index.image_ids[row] for row in expected]
    assert [dataset.get_data_info(i)['image_id'] for i in range(len(dataset))] == image_ids


def test_classes_by_image_equal_the_loop_over_items(demo_root):
    dataset = ours(demo_root, filter_cfg={'filter_empty_gt': True}, indices=[4, 2, 2, 9])
    stock = ClassAwareSampler.get_cat2imgs(InfiniteClassAwareSampler(dataset, seed=0))
    looped = {label: [] for label in stock}
    for idx in range(4):
        for label in set(dataset.get_cat_ids(idx)):
            looped[label].append(idx)
    by_column = {label: items.tolist() for label, items in dataset.get_cat2imgs().items()}
    assert by_column == looped == stock


def test_lazy_init_knows_the_classes_before_the_items(demo_root):
    dataset = ours(demo_root, lazy_init=True)
    assert len(dataset.metainfo['classes']) == 300
    assert not dataset._fully_initialized
    assert len(dataset) == 24


def test_lazy_init_asks_for_the_index_when_items_are_asked_for(tmp_path):
    dataset = OpenImagesInstanceDataset('index.arrow', data_root=str(tmp_path), lazy_init=True)
    assert 'classes' not in dataset.metainfo
    with pytest.raises(UserError, match=r'index\.arrow'):
        len(dataset)
    with pytest.raises(UserError, match=r'index\.arrow'):
        OpenImagesInstanceDataset('index.arrow', data_root=str(tmp_path))


@pytest.mark.parametrize('copied', [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy])
def test_a_copy_reads_the_same_items_without_carrying_them(demo_root, copied):
    dataset = ours(demo_root, filter_cfg={'filter_empty_gt': True})
    other = copied(dataset)
    assert [other.get_data_info(i)['instances'] for i in range(len(other))] == \
        [dataset.get_data_info(i)['instances'] for i in range(len(dataset))]
    assert len(pickle.dumps(dataset)) < 100_000


def test_spawned_workers_open_the_index_by_its_path(demo_root):
    dataset = ours(demo_root, indices=4)
    loader = DataLoader(dataset, batch_size=2, num_workers=1, collate_fn=pseudo_collate,
                        multiprocessing_context='spawn')
    loaded = [image for batch in loader for image in batch['inputs']]
    assert all(torch.equal(image, dataset[i]['inputs']) for i, image in enumerate(loaded))


def build(config):
    from mmdet.registry import DATASETS
    return DATASETS.build(config)


def test_wrappers_of_mmdetection_hold_it(demo_root):
    config = {'type': 'OpenImagesInstanceDataset', 'data_root': str(demo_root),
              'ann_file': 'prepared/train/index.arrow', 'data_prefix': {'img': 'images/train/'},
              'filter_cfg': {'filter_empty_gt': True}, 'pipeline': PIPELINE}
    length = len(build(config))
    both = build({'type': 'ConcatDataset', 'datasets': [config, config]})
    assert len(both) == 2 * length
    assert both.metainfo['classes'] == build(config).metainfo['classes']
    assert torch.equal(both[length]['gt_bboxes'].tensor, both[0]['gt_bboxes'].tensor)
    assert len(build({'type': 'RepeatDataset', 'dataset': config, 'times': 3})) == 3 * length
    balanced = build({'type': 'ClassBalancedDataset', 'dataset': config, 'oversample_thr': 0.5})
    assert len(balanced) >= length
    one_size = {'type': 'Resize', 'scale': (160, 120), 'keep_ratio': False}  # CopyPaste needs it
    config = {**config, 'pipeline': [*PIPELINE[:2], one_size]}
    mixed = build({'type': 'MultiImageMixDataset', 'dataset': config, 'pipeline': [
        {'type': 'CopyPaste', 'max_num_pasted': 3}, {'type': 'PackDetInputs'}]})
    assert len(mixed[0]['data_samples'].gt_instances) > 0


def test_stock_samplers_run_over_it(demo_root):
    dataset = ours(demo_root, filter_cfg={'filter_empty_gt': True}, pipeline=[])
    assert sorted(DefaultSampler(dataset, seed=3)) == list(range(len(dataset)))
    stock = ClassAwareSampler(dataset, seed=3)
    assert all(0 <= idx < len(dataset) for idx in stock)
    sampler = DefaultSampler(dataset, seed=3)
    batches = list(AspectRatioBatchSampler(sampler, 4))
    assert list(ResumableAspectRatioBatchSampler(sampler, 4)) == batches


def test_classes_of_an_index_come_with_their_hierarchy(demo_root):
    dataset = ours(demo_root)
    assert isinstance(dataset.label_space, LabelSpace)
    assert dataset.metainfo['mids'] == dataset.label_space.mids
    assert len(set(dataset.metainfo['palette'])) == 300


@pytest.mark.parametrize(('options', 'error', 'message'), [
    ({'serialize_data': True}, ValueError, 'serialize_data'),
    ({'filter_cfg': {'filter_empty': True}}, ValueError, 'filter_empty_gt'),
    ({'metainfo': {'classes': ('Unicorn',)}}, UserError, 'Unicorn'),
    ({'metainfo': {'classes': ()}}, ValueError, 'has no class'),
    ({'metainfo': {'classes': ('Cat', 'Dog', 'Cat')}}, ValueError, "has 'Cat' twice"),
    ({'ann_file': 'prepared/none/index.arrow'}, UserError, 'prepare_data.py'),
    ({'proposal_file': 'x.pkl'}, ValueError, 'proposal_file')])
def test_wrong_options_fail_at_once(demo_root, options, error, message):
    with pytest.raises(error, match=message):
        ours(demo_root, **options)


def test_images_in_the_shards_of_the_image_archives_are_found(demo_root, tmp_path):
    root = Path(shutil.copytree(demo_root, tmp_path / 'data', ignore=lambda *_: ['test']))
    whole = ours(root, pipeline=[])
    expected = [whole.get_data_info(i)['img_path'] for i in range(len(whole))]
    for path in sorted((root / 'images/train').iterdir()):
        (root / f'images/train_{path.name[0]}').mkdir(exist_ok=True)
        path.rename(root / f'images/train_{path.name[0]}' / path.name)
    (root / 'images/train').rmdir()
    dataset = ours(root, pipeline=[])
    found = [Path(dataset.get_data_info(i)['img_path']) for i in range(len(dataset))]
    assert [path.name for path in found] == [Path(path).name for path in expected]
    assert all(path.is_file() and path.parent.name == f'train_{path.name[0]}' for path in found)
    assert not ours(demo_root)._shards
