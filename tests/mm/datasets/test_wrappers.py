"""Classes by image and orientation come through wrappers, and trainings run on them."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from projects.openimages.mm.datasets.samplers import InfiniteClassAwareSampler
from projects.openimages.mm.datasets.soft_sampler import SoftClassAwareSampler
from projects.openimages.mm.datasets.wrappers import images_by_class, portrait_images
from tests.mm.zoo_run import CONFIGS, small_config


def ours(root, split='train', **options):
    return {'type': 'OpenImagesInstanceDataset', 'data_root': str(root), 'pipeline': [],
            'ann_file': f'prepared/{split}/index.arrow', 'data_prefix': {'img': f'images/{split}/'},
            'filter_cfg': {'filter_empty_gt': True}, **options}


def coco(root, **options):
    names = DATASETS.build(ours(root)).metainfo['classes']
    return {'type': 'CocoDataset', 'data_root': str(root), 'pipeline': [],
            'ann_file': 'prepared/validation/coco.json', 'metainfo': {'classes': names},
            'data_prefix': {'img': 'images/validation/'}, **options}


def wrapped(root, kind):
    both = {'type': 'ConcatDataset', 'datasets': [ours(root), ours(root, 'validation')]}
    return {
        'both': both,
        'twice': {'type': 'RepeatDataset', 'times': 2, 'dataset': ours(root)},
        'both twice': {'type': 'ConcatDataset', 'datasets': [
            ours(root),
            {'type': 'RepeatDataset', 'times': 3, 'dataset': ours(root, 'validation')}]},
        'balanced': {'type': 'ClassBalancedDataset', 'oversample_thr': 0.5, 'dataset': ours(root)},
        'mixed': {'type': 'MultiImageMixDataset', 'pipeline': [], 'dataset': ours(root)},
        'with COCO': {'type': 'ConcatDataset', 'datasets': [ours(root), coco(root)]},
    }[kind]


@pytest.fixture(autouse=True)
def mmdet_scope():
    init_default_scope('mmdet')


def item(dataset, number):
    """An item's annotations, asked of the data set inside."""
    while not hasattr(dataset, 'get_data_info'):
        dataset = dataset.dataset
    return dataset.get_data_info(number)


KINDS = ['both', 'twice', 'both twice', 'balanced', 'mixed', 'with COCO']


@pytest.mark.parametrize('kind', KINDS)
def test_columns_equal_a_loop_over_items(demo_root, kind):
    dataset = DATASETS.build(wrapped(demo_root, kind))
    looped, portrait = {}, []
    for number in range(len(dataset)):
        info = item(dataset, number)
        portrait.append(info['width'] < info['height'])
        for label in {one['bbox_label'] for one in info['instances'] if not one['ignore_flag']}:
            looped.setdefault(label, []).append(number)
    found = {label: items.tolist() for label, items in images_by_class(dataset).items()
             if len(items)}
    if kind == 'with COCO':  # whose get_cat_ids counts ignored instances too
        assert all(set(items) <= set(found[label]) for label, items in looped.items())
        start = len(dataset.datasets[0])
        found = {label: [n for n in items if n < start] for label, items in found.items()}
        looped = {label: [n for n in items if n < start] for label, items in looped.items()}
        found, looped = ({label: items for label, items in one.items() if items}
                         for one in (found, looped))
    assert found == looped and len(looped) > 3
    assert portrait_images(dataset).tolist() == portrait
    assert any(portrait) and not all(portrait)


@pytest.mark.parametrize('kind', ['both', 'both twice', 'with COCO'])
@pytest.mark.parametrize('sampler', [InfiniteClassAwareSampler, SoftClassAwareSampler])
def test_class_aware_samplers_draw_from_all_parts(demo_root, kind, sampler):
    dataset = DATASETS.build(wrapped(demo_root, kind))
    drawn = sampler(dataset, seed=3)
    if sampler is SoftClassAwareSampler:
        drawn.set_schedule(1000)
    times = Counter(int(np.searchsorted(dataset.cumulative_sizes, number, side='right'))
                    for number in islice(drawn, 1000))
    assert len(times) == len(dataset.datasets) and min(times.values()) > 50


class Seen(Hook):
    """Which files were trained on, and the ignored instances' flags."""

    def __init__(self):
        self.folders, self.flags = set(), []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        for sample in data_batch['data_samples']:
            self.folders.add(sample.img_path.rsplit('/', 2)[-2])
            self.flags.append(sample.ignored_instances.get('group_of'))


@pytest.mark.parametrize(('second', 'loading'), [
    ('validation', 'LoadRleAnnotations'), ('COCO', 'LoadRleAnnotations'),
    ('COCO', 'LoadAnnotations')])
def test_training_on_two_data_sets(demo_root, tmp_path, second, loading):
    [path] = [path for path in CONFIGS if path.stem == 'mask_rcnn_r50_fedloss']
    cfg = small_config(path, demo_root, tmp_path)
    pipeline = cfg.train_dataloader.dataset.pipeline
    pipeline[1]['type'] = loading
    cfg.train_dataloader.dataset = {'type': 'ConcatDataset', 'datasets': [
        ours(demo_root, pipeline=pipeline),
        coco(demo_root, pipeline=pipeline) if second == 'COCO' else
        ours(demo_root, 'validation', pipeline=pipeline)]}
    cfg.train_cfg.max_iters = 5
    cfg.train_dataloader.sampler = {'type': 'SoftClassAwareSampler'}
    runner = Runner.from_cfg(cfg)
    seen = Seen()
    runner.register_hook(seen)
    runner.train()
    assert seen.folders == {'train', 'validation'}
    assert all(flags is not None for flags in seen.flags)


@pytest.mark.parametrize('loading', ['LoadRleAnnotations', 'LoadAnnotations'])
def test_cocos_ignored_instances_are_packed_as_groups(demo_root, loading):
    dataset = DATASETS.build(coco(demo_root, pipeline=[
        {'type': 'LoadImageFromFile'}, {'type': loading, 'with_bbox': True, 'with_mask': True},
        {'type': 'PackInstances'}]))
    flags = [sample['data_samples'].ignored_instances.group_of for sample in dataset]
    assert sum(map(len, flags)) > 0 and all(one.all() for one in flags)


def test_flags_are_not_guessed_where_a_transform_has_changed_the_instances(demo_root):
    dataset = DATASETS.build(ours(demo_root, pipeline=[
        {'type': 'LoadImageFromFile'},
        {'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True}]))
    pack = TRANSFORMS.build({'type': 'PackInstances'})
    results = next(item for item in dataset if len(set(item['gt_ignore_flags'].tolist())) == 2)
    kept = pack({**results}).get('data_samples').ignored_instances
    assert 'group_of' in kept
    results['gt_ignore_flags'] = ~results['gt_ignore_flags']  # as many, but others
    assert 'group_of' not in pack(results)['data_samples'].ignored_instances
