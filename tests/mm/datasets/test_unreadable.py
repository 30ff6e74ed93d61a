"""Missing and cut images: another is taken, they are counted and named, too many end the run."""

import logging
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from projects.openimages.common.errors import UserError
from projects.openimages.mm.datasets.loading import why_unreadable
from projects.openimages.mm.datasets.openimages import OpenImagesInstanceDataset
from projects.openimages.mm.datasets.unreadable import UnreadableImagesHook
from tests.helpers import assert_one_line_error, run_tool
from tests.mm.zoo_run import CONFIGS, small_config

PIPELINE = [{'type': 'LoadImageFromFile'},
            {'type': 'LoadRleAnnotations', 'with_bbox': True, 'with_mask': True},
            {'type': 'Resize', 'scale': (64, 64), 'keep_ratio': True}, {'type': 'PackInstances'}]


@pytest.fixture
def root(demo_root, tmp_path) -> Path:
    """A copy of the demo data to break."""
    init_default_scope('mmdet')
    return Path(shutil.copytree(demo_root, tmp_path / 'data'))


def images(root: Path, split='train') -> list[Path]:
    return sorted((root / 'images' / split).glob('*.jpg'))


def dataset(root: Path, split='train', **options) -> OpenImagesInstanceDataset:
    return OpenImagesInstanceDataset(**{
        'data_root': str(root), 'ann_file': f'prepared/{split}/index.arrow',
        'data_prefix': {'img': f'images/{split}/'}, 'pipeline': PIPELINE, **options})


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def remove(path: Path) -> None:
    path.unlink()


def garble(path: Path) -> None:
    path.write_bytes(b'\xff\xd8' + bytes(1000) + b'\xff\xd9')


@pytest.mark.parametrize(('damage', 'reason'), [
    (cut, 'cut short'), (remove, 'no such file'), (garble, 'not a readable image')])
def test_another_image_is_taken_and_the_bad_one_named(root, damage, reason):
    bad = images(root)[3]
    assert why_unreadable(bad, decode=True) is None
    damage(bad)
    assert reason in why_unreadable(bad, decode=True)
    data = dataset(root)
    number = next(n for n in range(24) if data.get_data_info(n)['image_id'] == bad.stem)
    sample = data[number]['data_samples']
    assert sample.image_id != bad.stem and 'unreadable' not in sample.metainfo
    assert {(Path(path).name, reason in text) for path, text in sample.skipped_images} == {
        (bad.name, True)}
    good = (number + 1) % 24
    assert 'skipped_images' not in data[good]['data_samples'].metainfo  # said once


def test_those_that_an_image_was_to_be_mixed_with_are_named_too(root):
    """Half of all images are cut; each item is pasted on from another that can be read."""
    size = {'type': 'Resize', 'scale': (64, 64), 'keep_ratio': False}
    mixed = DATASETS.build({
        'type': 'MultiImageMixDataset', 'pipeline': [{'type': 'RleCopyPaste'}, PIPELINE[3]],
        'dataset': {'type': 'OpenImagesInstanceDataset', 'data_root': str(root),
                    'ann_file': 'prepared/train/index.arrow',
                    'data_prefix': {'img': 'images/train/'}, 'pipeline': [*PIPELINE[:2], size]}})
    whole = mixed.dataset.get_data_info(0)['img_path']
    bad = [path for path in images(root) if str(path) != whole][::2]
    for path in bad:
        cut(path)
    taken = []
    mixed.dataset.prepare_data = lambda number, prepare=mixed.dataset.prepare_data: (
        taken.append(mixed.dataset.get_data_info(number)['img_path']), prepare(number))[1]
    np.random.seed(0)  # noqa: NPY002  # MMDetection draws from it
    samples = [mixed[0]['data_samples'] for _ in range(10)]
    expected = [path for path in taken if Path(path) in bad]
    found = [path for sample in samples for path, _ in sample.metainfo.get('skipped_images', [])]
    assert found == expected and len(found) > 2


def test_in_a_test_it_is_a_black_image_that_says_so(root):
    data = dataset(root, test_mode=True, pipeline=[PIPELINE[0], *PIPELINE[2:]])
    bad = Path(data.get_data_info(5)['img_path'])
    before = data[5]
    cut(bad)
    item = data[5]
    assert item['data_samples'].image_id == bad.stem
    assert 'cut short' in item['data_samples'].unreadable
    assert item['data_samples'].ori_shape == before['data_samples'].ori_shape
    assert item['inputs'].shape == before['inputs'].shape and not item['inputs'].any()


def test_where_nothing_can_be_read_the_item_says_so(root):
    for path in images(root):
        remove(path)
    sample = dataset(root)[0]['data_samples']
    assert 'no such file' in sample.unreadable and len(sample.skipped_images) == 50


def test_a_mistake_in_the_pipeline_is_not_taken_for_a_bad_image(root):
    data = dataset(root, pipeline=[*PIPELINE[:2], {'type': 'Rotate', 'prob': 1.0}, PIPELINE[3]])
    data.pipeline.transforms[2].transform = lambda results: 1 / 0
    with pytest.raises(ZeroDivisionError):
        data[0]


def runner(*hooks):
    said = []
    return SimpleNamespace(hooks=hooks, said=said, logger=SimpleNamespace(warning=said.append))


def batch(skipped=(), **meta):
    """Two samples; the second had images left out before it."""
    samples = [DetDataSample(metainfo={'img_path': f'{n}.jpg', **meta}) for n in range(2)]
    samples[1].set_metainfo({'skipped_images': list(skipped)})
    return {'data_samples': samples}


def test_few_are_named_once_and_counted():
    hook, run = UnreadableImagesHook(max_share=0.2, allowed=1), runner()
    for skipped in ([], [('a.jpg', 'cut')], [], [], [], [('a.jpg', 'cut')], [], []):
        hook.after_train_iter(run, 0, batch(skipped))
    hook.after_train(run)
    assert run.said == ['a.jpg: cut: another image is taken',
                        '2 of 18 training images could not be read']


def test_too_many_end_the_run():
    hook, run = UnreadableImagesHook(max_share=0.1, allowed=1), runner()
    hook.after_train_iter(run, 0, batch([('a.jpg', 'cut')]))
    with pytest.raises(UserError, match=r'b\.jpg: gone; 2 of 6 images could not be read'):
        hook.after_train_iter(run, 0, batch([('b.jpg', 'gone')]))


def test_one_is_too_many_where_none_is_allowed():
    with pytest.raises(UserError, match=r'a\.jpg'):
        UnreadableImagesHook(max_share=0, allowed=0).after_train_iter(
            runner(), 0, batch([('a.jpg', 'cut')]))


def test_in_validation_they_count_and_in_a_dump_they_are_left_to_it():
    hook, run = UnreadableImagesHook(allowed=2), runner()
    hook.before_val_iter(run, 0, batch(unreadable='cut'))
    assert run.said == ['0.jpg: cut: it counts as one without detections',
                        '1.jpg: cut: it counts as one without detections']
    dump = runner(type('SubmissionDumpHook', (), {})())
    hook.before_test_iter(dump, 0, batch(unreadable='cut'))
    assert dump.said == []
    with pytest.raises(UserError, match=r'0\.jpg'):
        hook.before_test_iter(run, 0, batch(unreadable='cut'))


def test_a_training_and_its_validation_go_on(root, tmp_path, caplog):
    [path] = [path for path in CONFIGS if path.stem == 'mask_rcnn_r50_fedloss']
    cfg = small_config(path, root, tmp_path / 'work')
    cfg.train_cfg.update(max_iters=4, val_interval=4, images_per_update=4)  # two batches each
    cfg.train_dataloader.num_workers = 1
    cfg.default_hooks.unreadable_images.max_share = 0.9  # every other one will be cut
    cfg.val_cfg, cfg.val_dataloader, cfg.val_evaluator = (
        {'type': 'ValLoop'}, cfg.test_dataloader, cfg.test_evaluator)
    data = dataset(root, filter_cfg=cfg.train_dataloader.dataset.filter_cfg)
    for number in range(0, len(data), 2):
        cut(Path(data.get_data_info(number)['img_path']))
    bad = images(root, 'validation')[0]
    remove(bad)
    runner = Runner.from_cfg(cfg)
    runner.logger.addHandler(caplog.handler)
    with caplog.at_level(logging.WARNING):
        runner.train()
    assert runner.iter == 4
    assert 'another image is taken' in caplog.text
    [(bad_images, all_images)] = re.findall(r'(\d+) of (\d+) training images', caplog.text)
    assert int(all_images) - int(bad_images) == 4 * 4 and int(bad_images) > 0
    assert f'{bad}: no such file (the image): it counts as one without detections' in caplog.text
    assert np.isfinite(runner.message_hub.get_scalar('val/openimages/mAP').current())


def test_a_folder_of_missing_images_is_one_line(root, tmp_path):
    for path in images(root):
        remove(path)
    assert_one_line_error(
        run_tool('tools/train.py', 'configs/oi_mask_rcnn_r50_demo.py', '--work-dir', tmp_path,
                 '--cfg-options', f'data_root={root}'), 'images/train', 'no such file (the image)')
