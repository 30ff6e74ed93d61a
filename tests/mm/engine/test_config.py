import runpy
import sys
from argparse import Namespace
from collections.abc import Mapping

import pytest
from mmdet.registry import METRICS
from mmengine.evaluator import Evaluator

from projects.openimages.common.errors import UserError
from projects.openimages.mm.datasets.openimages import OpenImagesInstanceDataset
from projects.openimages.mm.engine.config import (
    build_model,
    load_config,
    mistakes_in_one_line,
    needs_expansion,
    score_as_submitted,
    set_work_dir,
    use_local_norms,
    use_split,
    use_tta,
)
from projects.openimages.mm.evaluation.challenge_metric import OpenImagesChallengeMetric
from projects.openimages.mm.evaluation.submission_dump import add_submission_dump
from tests.helpers import REPOSITORY

MAIN, DEMO = (REPOSITORY / 'configs' / f'oi_mask_rcnn_r50{name}.py' for name in ('', '_demo'))


def test_the_published_recipe_is_the_one_of_2019():
    cfg = load_config(REPOSITORY / 'configs' / 'oi_mask_rcnn_r50_2019.py')
    assert cfg.train_dataloader.batch_size == 4 and cfg.test_dataloader.batch_size == 1
    assert cfg.train_dataloader.sampler.type == 'InfiniteSampler'
    assert cfg.optim_wrapper.optimizer.lr == 0.01
    assert cfg.train_cfg.max_iters == 1_800_000
    assert cfg.param_scheduler[1].milestones == [1_200_000, 1_600_000]
    assert cfg.model.train_cfg.rpn_proposal.max_per_img == 4000


def test_the_classifier_has_an_output_more_than_there_are_classes():
    model = build_model(load_config(DEMO))
    assert model.roi_head.bbox_head.fc_cls.out_features == 301


def test_missing_config_is_said():
    with pytest.raises(UserError, match=r'none\.py'):
        load_config('configs/none.py')


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
               'skip_bad': False, 'json': None, 'config': 'c.py', 'checkpoint': 'c.pth'}
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


NESTED = [
    lambda metric: {'type': 'Evaluator', 'metrics': [metric]},
    lambda metric: [metric, {'type': 'CocoMetric'}],
    lambda metric: (metric, {'type': 'CocoMetric'}),
    lambda metric: {'type': Evaluator, 'metrics': {**metric, 'type': OpenImagesChallengeMetric}},
    lambda metric: {**metric, 'type': 'mmdet.OpenImagesChallengeMetric'}]


@pytest.mark.parametrize('form', NESTED)
def test_threshold_and_cap_reach_the_metric_in_whatever_form_it_is_given(form, demo_root):
    cfg = load_config(DEMO, {'data_root': str(demo_root)})
    cfg.test_evaluator = form(dict(cfg.test_evaluator))
    score_as_submitted(cfg, score_thr=0.25, max_per_img=7, expand_hierarchy=True)
    found = cfg.test_evaluator
    if isinstance(found, Mapping):
        found = found.get('metrics', found)
    metric = METRICS.build(found[0] if isinstance(found, list | tuple) else found)
    assert metric.selection == {'score_thr': 0.25, 'max_per_img': 7, 'expand_hierarchy': True}


def test_normalisation_over_processes_needs_no_processes_to_be_looked_at():
    """MMCV's cannot be built before they have joined; the tensors are the same."""
    cfg = load_config(DEMO, {'model.backbone.norm_cfg.type': 'MMSyncBN'})
    names = build_model(cfg).state_dict().keys()
    assert names == build_model(load_config(DEMO)).state_dict().keys()
    assert cfg.model.backbone.norm_cfg.type == 'MMSyncBN'  # for the runner, which joins first
    use_local_norms(cfg.model)
    assert cfg.model.backbone.norm_cfg == load_config(DEMO).model.backbone.norm_cfg


def test_a_test_set_in_a_wrapper_gets_augmentation_and_a_dump(demo_root, tmp_path):
    cfg = load_config(DEMO, {'data_root': str(demo_root)})
    inner = cfg.test_dataloader.dataset
    cfg.test_dataloader.dataset = {'type': 'RepeatDataset', 'dataset': inner, 'times': 1}
    cfg.tta_model, cfg.tta_pipeline = {'type': 'MaskAveragingTTA'}, [{'type': 'PackInstances'}]
    add_submission_dump(cfg, tmp_path / 'submission.csv')
    pipeline = cfg.test_dataloader.dataset.dataset.pipeline
    assert pipeline[0].type == 'LoadImageOrBlank'
    use_tta(cfg)
    assert cfg.test_dataloader.dataset.dataset.pipeline == cfg.tta_pipeline
    assert 'pipeline' not in cfg.test_dataloader.dataset
    cfg.test_dataloader.dataset = {'type': 'ConcatDataset', 'datasets': [inner, inner]}
    for ask in (use_tta, lambda cfg: add_submission_dump(cfg, tmp_path / 'submission.csv')):
        with pytest.raises(UserError, match='ConcatDataset: test one split at a time'):
            ask(cfg)


def test_a_class_instead_of_its_name_gets_another_split(demo_root):
    cfg = load_config(DEMO, {'data_root': str(demo_root)})
    cfg.test_dataloader.dataset.type = OpenImagesInstanceDataset
    use_split(cfg, 'train')
    assert cfg.test_dataloader.dataset.data_prefix == {'img': 'images/train/'}


@pytest.mark.parametrize(('options', 'message'), [
    ({'model.backbone.extra': 1}, "ResNet.*unexpected keyword argument 'extra'"),
    ({'model.backbone.type': 'NoNet'}, 'NoNet is not in the mmdet::model registry$')])
def test_a_model_that_cannot_be_built_is_one_line(options, message):
    with pytest.raises(UserError, match=message):
        build_model(load_config(DEMO, options))


def test_other_mistakes_keep_their_traceback():
    with pytest.raises(TypeError, match='unsupported operand'), mistakes_in_one_line():
        raise TypeError('unsupported operand type')
