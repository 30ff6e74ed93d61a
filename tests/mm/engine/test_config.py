import importlib.util
import runpy
import sys
from argparse import Namespace

import pytest
import torch

from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine.config import (
    check_data,
    check_start_weights,
    load_config,
    needs_expansion,
    score_as_submitted,
    set_work_dir,
    use_split,
    use_tta,
)
from tests.helpers import REPOSITORY

MAIN, DEMO = (REPOSITORY / 'configs' / f'oi_mask_rcnn_r50{name}.py' for name in ('', '_demo'))


def test_one_option_moves_the_data_everywhere():
    cfg = load_config(MAIN, {'data_root': '/data/oi'})
    assert 'data/openimages' not in cfg.pretty_text
    assert cfg.train_dataloader.dataset.data_root == '/data/oi/'
    assert cfg.val_evaluator.index == '/data/oi/prepared/validation/index.arrow'


def test_one_option_sets_the_class_count_of_every_head():
    heads = load_config(MAIN, {'num_classes': 350}).model.roi_head
    assert heads.bbox_head.num_classes == heads.mask_head.num_classes == 350


def test_the_published_recipe_is_the_one_of_2019():
    cfg = load_config(REPOSITORY / 'configs' / 'oi_mask_rcnn_r50_2019.py')
    assert cfg.train_dataloader.batch_size == 4 and cfg.test_dataloader.batch_size == 1
    assert cfg.train_dataloader.sampler.type == 'InfiniteSampler'
    assert cfg.optim_wrapper.optimizer.lr == 0.01
    assert cfg.train_cfg.max_iters == 1_800_000
    assert cfg.param_scheduler[1].milestones == [1_200_000, 1_600_000]
    assert cfg.model.train_cfg.rpn_proposal.max_per_img == 4000


def test_the_classifier_has_an_output_more_than_there_are_classes():
    from projects.openimages.mm.engine.config import build_model
    model = build_model(load_config(DEMO))
    assert model.roi_head.bbox_head.fc_cls.out_features == 301


@pytest.mark.parametrize('options', [
    {'train_dataloader.batch_size': 1}, {'optim_wrapper.accumulative_counts': 8},
    {'param_scheduler.1.milestones': [1, 2]}, {'randomness.seed': 3},
    {'train_dataloader.dataset.pipeline.2.scale': (64, 48)}, {'load_from': None},
    {'model.backbone.with_cp': True}])
def test_options_of_the_documentation_are_taken(options):
    cfg = load_config(MAIN, options)
    [(key, value)] = options.items()
    node = cfg
    for part in key.split('.'):
        node = node[int(part)] if isinstance(node, list) else node[part]
    assert node == value


@pytest.mark.parametrize(('options', 'message'), [
    ({'train_dataloder.batch_size': 2}, 'train_dataloder.*train_dataloader'),
    ({'model.backbne.depth': 18}, 'backbne.*backbone'),
    ({'activation_checkpointing': ['backbone']}, "no 'activation_checkpointing'"),
    ({'param_scheduler.7.end': 2}, "no '7' in param_scheduler"),
    ({'num_classes': 'many'}, 'num_classes=many'), ({'num_classes': 0}, 'num_classes=0')])
def test_an_option_that_nothing_reads_is_an_error(options, message):
    with pytest.raises(UserError, match=message):
        load_config(MAIN, options)


def test_missing_config_is_said():
    with pytest.raises(UserError, match=r'none\.py'):
        load_config('configs/none.py')


def test_class_count_of_the_data_must_be_the_models(demo_root):
    cfg = load_config(DEMO, {'data_root': str(demo_root), 'num_classes': 299})
    with pytest.raises(UserError, match=r'300 classes.*299.*num_classes=300'):
        check_data(cfg, 'train_dataloader')


def test_missing_images_are_said(demo_root):
    cfg = load_config(DEMO, {'data_root': str(demo_root)})
    check_data(cfg, 'train_dataloader', 'val_dataloader')
    cfg.val_dataloader.dataset.data_prefix = {'img': 'pictures/'}
    with pytest.raises(UserError, match='pictures'):
        check_data(cfg, 'train_dataloader', 'val_dataloader')


def test_missing_start_weights_are_said_with_the_ways_out():
    with pytest.raises(UserError, match=r'trim_checkpoint.*load_from=None'):
        check_start_weights(load_config(MAIN))


def test_nothing_is_fetched_when_start_weights_are_there(tmp_path):
    torch.save({'state_dict': {'a': torch.zeros(1)}}, tmp_path / 'start.pth')
    cfg = load_config(MAIN, {'load_from': str(tmp_path / 'start.pth')})
    check_start_weights(cfg)
    assert cfg.model.backbone.init_cfg is None


def test_weights_alone_are_not_resumed_from(tmp_path):
    torch.save({'state_dict': {'a': torch.zeros(1)}}, tmp_path / 'start.pth')
    cfg = load_config(MAIN, {'load_from': str(tmp_path / 'start.pth'), 'resume': True})
    with pytest.raises(UserError, match=r'start\.pth: has no iter'):
        check_start_weights(cfg)


def test_imagenet_weights_need_torchvision(monkeypatch):
    from_imagenet = load_config(MAIN, {'load_from': None})
    from_scratch = load_config(MAIN, {'load_from': None, 'model.backbone.init_cfg': None})
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match='needs torchvision'):
        check_start_weights(from_imagenet)
    check_start_weights(from_scratch)


def test_work_dir_of_the_command_line_wins():
    cfg = load_config(DEMO)
    set_work_dir(cfg, None, str(DEMO))
    assert cfg.work_dir == 'work_dirs/oi_mask_rcnn_r50_demo'
    set_work_dir(cfg, 'elsewhere', str(DEMO))
    assert cfg.work_dir == 'elsewhere'


def test_another_split_moves_images_index_and_metric(demo_root):
    cfg = load_config(DEMO, {'data_root': str(demo_root)})
    use_split(cfg, 'train')
    assert cfg.test_dataloader.dataset.data_prefix == {'img': 'images/train/'}
    assert cfg.test_evaluator.index.endswith('prepared/train/index.arrow')
    assert cfg.val_evaluator.index.endswith('prepared/validation/index.arrow')
    use_split(cfg, 'test')
    assert cfg.test_evaluator.metrics == []


def test_augmentation_without_a_recipe_is_an_error():
    with pytest.raises(UserError, match='tta_model'):
        use_tta(load_config(DEMO))


@pytest.fixture(scope='module')
def check_options():
    sys.argv = [str(REPOSITORY / 'tools' / 'test.py')]
    return runpy.run_path(sys.argv[0])['check_options']


@pytest.mark.parametrize(('given', 'message'), [
    ({'out': 'x.csv'}, r'\.pkl'),
    ({'out': 'x.pkl', 'submission': 'x.csv', 'resume_submission': True}, 'one of them'),
    ({'max_size': '1MB'}, '--max-size needs --submission'),
    ({'skip_bad': True}, '--skip-bad'), ({'submission': 'x.txt'}, r'\.csv')])
def test_options_of_the_test_that_would_do_nothing_are_errors(check_options, given, message):
    nothing = {'out': None, 'submission': None, 'max_size': None, 'resume_submission': False,
               'skip_bad': False}
    with pytest.raises(UserError, match=message):
        check_options(Namespace(**{**nothing, **given}))


FEDERATED = REPOSITORY / 'configs' / 'oi_mask_rcnn_r50_federated_demo.py'


@pytest.mark.parametrize(('path', 'options', 'expanded'), [
    (DEMO, {}, True), (FEDERATED, {}, False),
    (FEDERATED, {'model.roi_head.bbox_head.loss_cls.hierarchy': False}, True)])
def test_a_model_that_scores_ancestors_itself_is_not_expanded(path, options, expanded):
    cfg = load_config(path, options)
    assert needs_expansion(cfg, True) is expanded
    assert needs_expansion(cfg, False) is False
    score_as_submitted(cfg, expand_hierarchy=True)
    assert cfg.test_evaluator.expand_hierarchy is expanded


def test_a_cascade_of_federated_heads_under_test_time_augmentation_is_not_expanded():
    cfg = load_config(FEDERATED)
    cfg.model.roi_head.bbox_head = [cfg.model.roi_head.bbox_head] * 3
    cfg.tta_model, cfg.tta_pipeline = {'type': 'MaskAveragingTTA'}, []
    use_tta(cfg)
    assert needs_expansion(cfg, True) is False
