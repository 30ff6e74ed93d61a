"""The benchmark that takes the recipe apart: what its arms change, and that its numbers hold."""

import argparse
import functools
import json
import re
import shutil

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from PIL import Image

from benchmarks.recipe import arm_config, last_whole_checkpoint, run
from benchmarks.recipe_arms import PlaceboDataset
from benchmarks.recipe_pictures import count_found
from projects.openimages.data.layout import find_classes, read_classes_of
from projects.openimages.data.prepare.run import PrepareOptions, prepare_split
from projects.openimages.demo.hard import Knobs, make_hard_world
from projects.openimages.masks import decompress_counts, rle_from_mask
from projects.openimages.mm.datasets.openimages import OpenImagesInstanceDataset
from projects.openimages.mm.evaluation.submission_dump import SubmissionDumpHook
from tests.helpers import assert_one_line_error, run_here, run_tool
from tests.submissions.fake_dump import fake_dump


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp('hard')
    make_hard_world(folder, num_images=60, seed=4, knobs=Knobs(), workers=2)
    files = find_classes(folder)
    for split in ('train', 'validation', 'oracle'):
        prepare_split(folder, split, read_classes_of(files), files.paths, PrepareOptions())
    return folder


@pytest.fixture(scope='module')
def config_of(world, tmp_path_factory):
    """An arm's config as a plain dict, by name."""
    out = tmp_path_factory.mktemp('out')
    options = argparse.Namespace(data=world, out=out, iterations=2, lr=5e-4)
    return functools.cache(lambda name: arm_config(options, name, 0).to_dict())


def leaves(node, path=''):
    """Dotted keys and values of a nested config."""
    if not isinstance(node, (dict, list)) or not node:
        return {path: node}
    items = node.items() if isinstance(node, dict) else enumerate(node)
    return {key: value for name, child in items
            for key, value in leaves(child, f'{path}.{name}'.strip('.')).items()}


def changed(first, second):
    """Keys in which two configs differ, without where they write and how outputs are scored."""
    first, second = leaves(first), leaves(second)
    return {key for key in first.keys() | second.keys() if first.get(key) != second.get(key)
            and key.split('.')[0] not in ('work_dir', 'val_evaluator')}


BOX_LOSS = 'model.roi_head.bbox_head.loss_cls'
RESIZE = {f'train_dataloader.dataset.pipeline.2.{key}' for key in ('type', 'ratio_range')}


@pytest.mark.parametrize(('first', 'second', 'keys'), [
    ('stock', '+expansion', {'test_evaluator.expand_hierarchy'}),
    ('+ignored', 'main', {'train_dataloader.sampler.type'}),
    ('main', 'main +low-scores', {f'model.test_cfg.rcnn.{key}'
                                  for key in ('score_thr', 'max_per_img')}),
    ('+cosine', '+hierarchy', {f'{BOX_LOSS}.hierarchy', 'test_evaluator.expand_hierarchy'}),
    ('+hierarchy', '+verified', {f'{BOX_LOSS}.verified', f'{BOX_LOSS}.unknown_on_background'}),
    ('+lost+groups', '+agnostic', {'model.roi_head.bbox_head.reg_class_agnostic',
                                   'model.roi_head.mask_head.class_agnostic'}),
    ('recipe -cosine', 'recipe', {'model.roi_head.bbox_head.cls_predictor_cfg.type',
                                  'model.roi_head.bbox_head.cls_predictor_cfg.temperature'}),
    ('+agnostic', 'recipe', {'model.roi_head.bbox_head.objectness'}),
    ('recipe +scales', 'recipe', RESIZE),
    ('recipe sigmoid', 'recipe', {f'{BOX_LOSS}.type'}),
    ('recipe sigmoid', 'recipe sigmoid +exclusive', {f'{BOX_LOSS}.exclusive'}),
    ('recipe -agnostic', 'recipe', {'model.roi_head.bbox_head.reg_class_agnostic',
                                    'model.roi_head.mask_head.class_agnostic'}),
    ('recipe +box-only', 'recipe', {'train_dataloader.dataset.learn_boxes_without_masks'}),
    ('recipe λ=1', 'recipe', {f'{BOX_LOSS}.unknown_on_background'}),
    ('recipe +soft', 'recipe', {'train_dataloader.sampler.type'}),
    ('recipe -shared', 'recipe', {f'{BOX_LOSS}.shared'}),
    ('RFS', 'main', None),
    ('placebo verified', 'recipe', {'train_dataloader.dataset.type',
                                    'train_dataloader.dataset.placebo'}),
])
def test_an_arm_differs_by_its_ingredient_alone(config_of, first, second, keys):
    found = changed(config_of(first), config_of(second))
    if keys is None:
        assert all(key.startswith('train_dataloader.') for key in found)
    else:
        assert found == keys


def test_the_recipe_is_the_committed_config(config_of):
    """But for the heads' sizes, and for what the arms say aloud that the config has by default."""
    from projects.openimages.mm.engine.config import load_config
    from tests.helpers import REPOSITORY

    committed = load_config(REPOSITORY / 'configs' / 'oi_mask_rcnn_r50_federated_demo.py').to_dict()
    for place in ('model.roi_head.type', 'model.roi_head.bbox_head.reg_class_agnostic',
                  'model.roi_head.bbox_head.cls_predictor_cfg',
                  'model.roi_head.mask_head.class_agnostic', 'train_dataloader.sampler.type',
                  'train_dataloader.dataset.pipeline', 'model.test_cfg', 'model.train_cfg',
                  'custom_hooks', 'test_evaluator.expand_hierarchy'):
        values = []
        for node in (config_of('recipe'), committed):
            for part in place.split('.'):
                node = node[part]
            values.append(node)
        assert values[0] == values[1], place


def dataset(world, kind, **options):
    return kind(ann_file='prepared/train/index.arrow', data_root=str(world),
                data_prefix={'img': 'images/train/'}, learn_boxes_without_masks=True, **options)


def test_placebos_break_one_kind_of_evidence_and_keep_its_amount(world):
    true = dataset(world, OpenImagesInstanceDataset)
    verified, hierarchy, has_mask = (
        dataset(world, PlaceboDataset, placebo=kind)
        for kind in ('verified', 'hierarchy', 'has_mask'))
    items = [[data.get_data_info(n) for n in range(len(true))]
             for data in (true, verified, has_mask)]
    labels = [[item['verified_labels'].tolist() for item in part] for part in items]
    assert labels[1] != labels[0] == labels[2]
    assert not (hierarchy.ancestor_matrix == true.ancestor_matrix).all()
    assert hierarchy.ancestor_matrix.sum() == true.ancestor_matrix.sum()
    missing = [[[not decompress_counts(one['mask']['counts'].encode())[1:].any()
                 for one in item['instances'] if not one['group_of']] for item in part]
               for part in (items[0], items[2])]
    assert missing[0] != missing[1]
    assert [sum(item) for item in missing[0]] == [sum(item) for item in missing[1]]


def test_the_placebos_verified_labels_are_those_of_the_other_images_that_are_trained(world):
    true, placebo = (
        [data.get_data_info(n)['verified_labels'].tolist() for n in range(len(data))]
        for data in (dataset(world, kind, filter_cfg={'filter_empty_gt': True}, **options)
                     for kind, options in ((OpenImagesInstanceDataset, {}),
                                           (PlaceboDataset, {'placebo': 'verified'}))))
    assert sorted(placebo) == sorted(true)
    alike = sum(map(list.__eq__, true, placebo))
    assert alike < len(true) / 4  # images of the same few labels


def test_a_model_that_trained_with_another_hierarchy_is_tested_with_the_true_one(world, tmp_path):
    true = dataset(world, OpenImagesInstanceDataset).ancestor_matrix
    key = 'roi_head.bbox_head.loss_cls.ancestors'
    saved = []
    for arm in ('placebo hierarchy', 'recipe'):
        cfg = arm_config(argparse.Namespace(data=world, out=tmp_path, iterations=2, lr=5e-4),
                         arm, 0)
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        Runner.from_cfg(cfg).train()
        saved.append(torch.load(f'{cfg.work_dir}/iter_2.pth', weights_only=False)['state_dict'])
    placebo, recipe = saved
    assert (placebo[key].numpy() == true).all()
    bias = 'roi_head.bbox_head.fc_cls.bias'
    assert not torch.equal(placebo[bias], recipe[bias]), 'it trained with the true one'


def test_a_run_is_scored_as_the_metric_scores_its_dump_and_is_not_run_again(world, tmp_path):
    command = ('benchmarks/recipe.py', '--data', world, '--out', tmp_path, '--iterations', '2',
               '--seeds', '1', '--arms', 'main')
    first = run_tool(*command)
    assert first.returncode == 0, first.stderr
    folder = tmp_path / '2_0.0005' / 'main' / 'seed0'
    scores = json.loads((folder / 'result.json').read_text())['scores']
    for split, column in (('validation', 'validation mAP'), ('oracle', 'oracle mAP')):
        result = run_tool('tools/evaluate.py', folder / 'validation.csv', '--prepared',
                          world / 'prepared' / split, '--json', tmp_path / 'scores.json')
        assert result.returncode == 0, result.stderr
        assert json.loads((tmp_path / 'scores.json').read_text())['mAP'] == scores[column]
    other = shutil.copytree(world / 'prepared', tmp_path / 'other' / 'prepared').parent
    index = other / 'prepared' / 'oracle' / 'index.arrow'
    index.write_bytes(index.read_bytes() + b' ')
    for more in ((), ('--table-only',)):
        assert_one_line_error(run_tool(*command[:2], other, *command[3:], *more),
                              'the runs here are on other data', str(world))
    written = (folder / 'result.json').stat().st_mtime_ns
    assert f'{scores["validation mAP"]:.4f}' in run_tool(*command).stdout
    assert (folder / 'result.json').stat().st_mtime_ns == written
    assert (tmp_path / 'table_2_0.0005.csv').exists()


def test_a_run_that_was_killed_while_it_saved_goes_on_from_what_is_whole(world, tmp_path):
    options = argparse.Namespace(data=world, out=tmp_path, iterations=2, lr=5e-4)
    run(options, 'main', 0)
    folder = tmp_path / '2_0.0005' / 'main' / 'seed0'
    result = json.loads((folder / 'result.json').read_text())['scores']
    final = folder / 'iter_2.pth'
    whole = final.read_bytes()
    (folder / 'iter_1.pth').write_bytes(whole)
    final.write_bytes(whole[:len(whole) // 2])
    (folder / 'last_checkpoint').write_text(str(folder / 'iter_100.pth'))
    assert last_whole_checkpoint(folder) == folder / 'iter_1.pth'
    assert final.exists()
    (folder / 'iter_1.pth').unlink()
    assert last_whole_checkpoint(folder) is None
    for name in ('result.json', 'validation.csv'):
        (folder / name).unlink()
    final.write_bytes(whole[:-1000])
    run(options, 'main', 0)
    assert json.loads((folder / 'result.json').read_text())['scores'] == result
    assert last_whole_checkpoint(folder) == final


def test_a_run_that_was_killed_in_its_test_goes_on_there(world, tmp_path, monkeypatch):
    options = argparse.Namespace(data=world, out=tmp_path, iterations=2, lr=5e-4)
    run(options, 'main', 0)
    folder = tmp_path / '2_0.0005' / 'main' / 'seed0'
    scores = json.loads((folder / 'result.json').read_text())['scores']
    dump = (folder / 'validation.csv').read_bytes()
    for name in ('result.json', 'validation.csv'):
        (folder / name).unlink()

    tested = []
    def killed_at_the_third(hook, runner, batch_idx, *arguments, **others):
        if batch_idx == 2:
            raise KeyboardInterrupt
    def count(hook, runner, batch_idx, *arguments, **others):
        tested.append(batch_idx)
    monkeypatch.setattr(SubmissionDumpHook, 'before_test_iter', killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(options, 'main', 0)
    monkeypatch.setattr(SubmissionDumpHook, 'before_test_iter', count)
    run(options, 'main', 0)
    assert len(tested) == len(dump.splitlines()) - 1 - 2
    assert (folder / 'validation.csv').read_bytes() == dump
    assert json.loads((folder / 'result.json').read_text())['scores'] == scores


def test_an_object_is_found_where_its_class_and_half_of_its_mask_are():
    square = [rle_from_mask(np.pad(np.ones((4, 4), bool), ((0, 0), (x, 12 - x))))
              for x in (0, 1, 2, 12)]
    there = [(5, square[0]), (6, square[3])]
    assert count_found([(5, square[1]), (6, square[3])], there) == 2  # 3 of 5 columns, and all
    assert count_found([(5, square[2]), (5, square[3])], there) == 0  # 2 of 6, and another class
    assert count_found([(5, square[0]), (5, square[1])], there) == 1  # twice the same
    assert count_found([], there) == 0


def test_the_picture_counts_what_runs_find_and_shows_where_the_last_gains(world, tmp_path):
    index = world / 'prepared' / 'oracle' / 'index.arrow'
    runs = [f'{name}={fake_dump(tmp_path / name, index, seed=1, skill=skill)}'
            for name, skill in (('worse', 0.2), ('better', 0.9))]
    result = run_here('benchmarks/recipe_pictures.py', *runs, '--data', world, '--out',
                      tmp_path / 'picture.jpg', '--images', '2')
    assert result.returncode in (None, 0), result.stderr
    counts = dict(re.findall(r'(worse|better): (\d+) found', result.stdout))
    assert 0 < 2 * int(counts['worse']) < int(counts['better'])
    with Image.open(tmp_path / 'picture.jpg') as picture:
        assert picture.width > picture.height > 200
    result = run_here('benchmarks/recipe_pictures.py', 'worse', '--data', world, '--out', 'x.jpg')
    assert result.returncode == 2 and 'NAME=CSV' in result.stderr


def test_an_arm_that_does_not_exist_is_named():
    result = run_tool('benchmarks/recipe.py', '--data', '.', '--out', '.', '--arms', 'mian')
    assert result.returncode == 2 and "no arm 'mian'" in result.stderr
