"""Options that mean something are taken, slips of the pen refused, dead ones said."""

import os

import pytest

from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine import options as module
from projects.openimages.mm.engine.config import build_model, load_config
from projects.openimages.mm.engine.options import arguments_of, class_of, is_a
from tests.helpers import REPOSITORY, assert_one_line_error, run_tool

MAIN, DEMO = (REPOSITORY / 'configs' / f'oi_mask_rcnn_r50{name}.py' for name in ('', '_demo'))


@pytest.fixture
def said(monkeypatch):
    """What is printed about options."""
    lines = []
    monkeypatch.setattr(module, 'print_log', lambda text, **_: lines.append(text))
    return lines


def value_at(node, key):
    for part in key.split('.'):
        node = node[int(part)] if isinstance(node, list) else node[part]
    return node


@pytest.mark.parametrize('options', [
    {'train_dataloader.batch_size': 1}, {'optim_wrapper.accumulative_counts': 8},
    {'param_scheduler.1.milestones': [1, 2]}, {'randomness.seed': 3},
    {'train_dataloader.dataset.pipeline.2.scale': (64, 48)}, {'load_from': None},
    {'model.backbone.with_cp': True}, {'optim_wrapper.clip_grad.max_norm': 35},
    {'optim_wrapper.paramwise_cfg.norm_decay_mult': 0.},
    {'optim_wrapper.paramwise_cfg.custom_keys.norm.decay_mult': 0.,
     'optim_wrapper.paramwise_cfg.custom_keys.norm1.decay_mult': 0.1},
    {'model.backbone.dcn.type': 'DCNv2', 'model.backbone.dcn.deform_groups': 1},
    {'visualizer.vis_backends.1.type': 'TensorboardVisBackend'},
    {'default_hooks.early_stopping.type': 'EarlyStoppingHook',
     'default_hooks.early_stopping.monitor': 'openimages/mAP'},
    {'train_dataloader.dataset.metainfo.classes': ['Cat']},
    {'runner_type': 'FlexibleRunner', 'strategy.type': 'DDPStrategy'},
    {'train_dataloader.pin_memory': True}, {'train_dataloader.prefetch_factor': 4},
    {'optim_wrapper.dtype': 'bfloat16'},
    {'model.test_cfg.rcnn.nms_pre': 3}, {'env_cfg.cudnn_benchmark': True},
    {'optim_wrapper.optimizer.type': 'AdamW', 'optim_wrapper.optimizer.betas': (0.9, 0.99)},
    {'default_hooks.checkpoint.published_keys': ['meta']}, {'compile.mode': 'default'}])
def test_good_options_are_taken_without_a_word(options, said):
    cfg = load_config(MAIN, options)
    assert {key: value_at(cfg, key) for key in options} == options
    assert said == []


@pytest.mark.parametrize(('options', 'message'), [
    ({'train_dataloder.batch_size': 2}, "'train_dataloder' in the config.*'train_dataloader'"),
    ({'model.backbne.depth': 18}, "'backbne' in model, a MaskRCNN; .*'backbone'"),
    ({'model.backbone.dept': 18}, "'dept' in model.backbone, a ResNet; .*'depth'"),
    ({'model.backbone.stem_chanels': 18}, "'stem_channels'"),  # not in the config, but an argument
    ({'optim_wrapper.optimizer.lrr': 1}, "a SGD; did you mean 'lr'"),
    ({'optim_wrapper.optimizer.nestrov': True}, "'nesterov'"),
    ({'optim_wrapper.acumulative_counts': 2}, "'accumulative_counts'"),
    ({'optim_wrapper.clip_gradient.max_norm': 2}, "'clip_grad'"),
    ({'optim_wrapper.paramwise_cfg.norm_decay_mutl': 0}, "'norm_decay_mult'"),
    ({'model.test_cfg.rcnn.score_threshold': 0.1}, "'score_thr'"),
    ({'train_dataloader.batchsize': 2}, "'batch_size'"),
    ({'train_dataloader.pin_memry': True}, "'pin_memory'"),
    ({'train_cfg.max_itres': 2}, "'max_iters'"),
    ({'activation_checkpointing': ['backbone']}, 'freeze.*with_cp'),
    ({'param_scheduler.7.end': 2}, "no '7' in param_scheduler, a list of 2"),
    ({'model.backbone.depth.x': 2}, 'model.backbone.depth is 50, which has nothing in it'),
    ({'num_classes': 'many'}, 'num_classes=many'), ({'num_classes': 0}, 'num_classes=0')])
def test_a_slip_of_the_pen_is_an_error(options, message):
    with pytest.raises(UserError, match=message):
        load_config(MAIN, options)


def test_an_argument_of_another_class_is_an_error(tmp_path):
    """What IgnoreAwareAssigner takes would do nothing for MMDetection's own assigner."""
    option = {'model.train_cfg.rpn.assigner.ignore_thr': 0.4}
    assert load_config(MAIN, option).model.train_cfg.rpn.assigner.ignore_thr == 0.4
    (tmp_path / 'stock.py').write_text("_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'\n")
    with pytest.raises(UserError, match="a MaxIoUAssigner; did you mean 'ignore_iof_thr'"):
        load_config(tmp_path / 'stock.py', option)


@pytest.mark.parametrize(('options', 'parts'), [
    ({'train_pipeline.2.scale': (64, 48)}, ['set train_dataloader.dataset.pipeline.2.scale']),
    ({'assigner.ignore_thr': 0.4}, ['model.train_cfg.rpn.assigner.ignore_thr',
                                    'model.train_cfg.rcnn.assigner.ignore_thr']),
    ({'something': 3}, ['nothing reads it'])])
def test_an_option_that_changes_nothing_is_said(options, parts, said):
    model = load_config(MAIN, options).model
    assert model == load_config(MAIN).model
    [line] = said
    assert all(part in line for part in [*options, *parts]), line


def test_a_tensorboard_is_one_more_backend():
    cfg = load_config(DEMO, {'visualizer.vis_backends.1.type': 'TensorboardVisBackend'})
    assert [one.type for one in cfg.visualizer.vis_backends] == ['LocalVisBackend',
                                                                 'TensorboardVisBackend']


def test_a_part_that_the_config_leaves_out_is_built():
    options = {'model.backbone.plugins': None, 'model.backbone.norm_cfg.type': 'GN',
               'model.backbone.norm_cfg.num_groups': 2}
    model = build_model(load_config(DEMO, options))
    assert type(model.backbone.layer1[0].gn1).__name__ == 'GroupNorm'


def test_arguments_of_a_class_are_its_own_and_those_it_hands_on():
    assert {'fc_out_channels', 'num_cls_convs', 'reg_class_agnostic'} <= arguments_of(
        class_of('Shared2FCBBoxHead'))  # its own, its parent's, and that one's parent's
    assert 'momentum' in arguments_of(class_of('SGD'))
    assert class_of('Nothing') is None


def test_a_class_is_known_by_any_of_its_names():
    shared = class_of('Shared2FCBBoxHead')
    for kind in ('Shared2FCBBoxHead', 'mmdet.Shared2FCBBoxHead', shared):
        assert is_a({'type': kind}, 'Shared2FCBBoxHead')
        assert is_a({'type': kind}, 'ConvFCBBoxHead')  # its parent
        assert not is_a({'type': kind}, 'FCNMaskHead')
        assert is_a({'type': kind}, 'Shared2FCBBoxHead', exactly=True)
        assert not is_a({'type': kind}, 'ConvFCBBoxHead', exactly=True)
    assert not is_a({}, 'FCNMaskHead') and not is_a(None, 'FCNMaskHead')


@pytest.mark.parametrize(('flags', 'options', 'parts'), [
    (['--amp'], [], ['needs a GPU']),
    ([], ['optim_wrapper.optimizer.extra=18'], ['AdamW', 'extra'])])
def test_mistakes_in_a_command_are_one_line(flags, options, parts, demo_root, tmp_path):
    result = run_tool('tools/train.py', DEMO, '--work-dir', tmp_path, *flags, '--cfg-options',
                      f'data_root={demo_root}', *options,
                      env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''})
    assert_one_line_error(result, *parts)
