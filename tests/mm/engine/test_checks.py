"""What a training or a test needs is asked for before it starts."""

import importlib.util
from contextlib import nullcontext

import pytest
import torch

from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine.checks import (
    check_data,
    check_federated,
    check_loop,
    check_start_weights,
    class_counts,
)
from projects.openimages.mm.engine.config import build_model, load_config
from tests.helpers import REPOSITORY, assert_one_line_error, run_main, run_tool

MAIN, DEMO = (REPOSITORY / 'configs' / f'oi_mask_rcnn_r50{name}.py' for name in ('', '_demo'))


@pytest.fixture(scope='module')
def model():
    return build_model(load_config(DEMO))


def test_class_count_of_the_data_must_be_the_models(demo_root):
    cfg = load_config(DEMO, {'data_root': str(demo_root), 'num_classes': 299})
    with pytest.raises(UserError, match=r'300 classes.*299.*num_classes=300'):
        check_data(cfg, build_model(cfg), 'train_dataloader')


def test_the_layers_of_the_model_count_not_the_variable(demo_root, model):
    cfg = load_config(DEMO, {'data_root': str(demo_root)})
    cfg.num_classes = 80  # as in configs of Mask2Former, whose head has its own
    check_data(cfg, model, 'train_dataloader', 'val_dataloader')
    cfg = load_config(DEMO, {'data_root': str(demo_root),
                             'model.roi_head.mask_head.num_classes': 80})
    with pytest.raises(UserError, match=r'300 classes .*roi_head\.mask_head 80; '
                                        r'.*model\.roi_head\.mask_head\.num_classes=300'):
        check_data(cfg, build_model(cfg), 'train_dataloader')


def test_heads_of_a_part_of_the_data_sets_classes(demo_root):
    cfg = load_config(DEMO, {'data_root': str(demo_root), 'num_classes': 2,
                             'train_dataloader.dataset.metainfo.classes': ['Cat', 'Dog']})
    check_data(cfg, build_model(cfg), 'train_dataloader')
    with pytest.raises(UserError, match=r'2 classes .*roi_head\.bbox_head 300'):
        check_data(cfg, build_model(load_config(DEMO)), 'train_dataloader')


def test_only_classes_of_objects_are_counted(model):
    assert class_counts(model) == {'roi_head.bbox_head': 300, 'roi_head.mask_head': 300}
    assert model.rpn_head.num_classes == 1
    agnostic = load_config(DEMO, {'model.roi_head.mask_head.class_agnostic': True,
                                  'model.roi_head.mask_head.num_classes': 80})
    assert class_counts(build_model(agnostic)) == {'roi_head.bbox_head': 300}


def test_heads_of_another_data_set_are_one_line_before_training(demo_root, tmp_path):
    """With too few outputs the loss would fail at the first label beyond them."""
    result = run_tool('tools/train.py', DEMO, '--work-dir', tmp_path, '--cfg-options',
                      f'data_root={demo_root}', 'model.roi_head.bbox_head.num_classes=80')
    assert_one_line_error(result, 'the index has 300 classes', 'roi_head.bbox_head 80')


@pytest.mark.parametrize('wrap', [
    lambda good, bad: {'type': 'ConcatDataset', 'datasets': [good, bad]},
    lambda good, bad: {'type': 'RepeatDataset', 'times': 2, 'dataset': bad},
    lambda good, bad: {'type': 'RepeatDataset', 'times': 2, 'dataset': {
        'type': 'ConcatDataset', 'datasets': [good, bad]}}])
def test_each_data_set_in_a_wrapper_is_looked_at(demo_root, model, wrap):
    cfg = load_config(DEMO, {'data_root': str(demo_root)})
    good = cfg.train_dataloader.dataset
    for change, message in (({'data_prefix': {'img': 'images/none/'}}, 'images/none'),
                            ({'metainfo': {'classes': ['Cat']}}, 'has 1 classes')):
        cfg.train_dataloader.dataset = wrap(good, {**good, **change})
        with pytest.raises(UserError, match=message):
            check_data(cfg, model, 'train_dataloader')
    cfg.train_dataloader.dataset = wrap(good, good)
    check_data(cfg, model, 'train_dataloader')


def test_boxes_without_masks_are_for_heads_that_leave_them_out_of_the_mask_loss(demo_root, model):
    options = {'data_root': str(demo_root),
               'train_dataloader.dataset.learn_boxes_without_masks': True}
    with pytest.raises(UserError, match='needs a FederatedRoIHead'):
        check_data(load_config(DEMO, options), model, 'train_dataloader')
    recipe = load_config(REPOSITORY / 'configs' / 'oi_mask_rcnn_r50_federated_demo.py', options)
    check_data(recipe, build_model(recipe), 'train_dataloader')


FEDERATED = REPOSITORY / 'configs' / 'oi_mask_rcnn_r50_federated_demo.py'
CASCADE = REPOSITORY / 'configs' / 'zoo' / 'cascade_mask_rcnn_x101.py'
OUR_LOSS = {'type': 'FederatedLoss', 'num_classes': 300, '_delete_': True}


@pytest.mark.parametrize(('config', 'options', 'words'), [
    (FEDERATED, {'model.roi_head.type': 'StandardRoIHead'},
     'roi_head is a StandardRoIHead with a FederatedBBoxHead'),
    (FEDERATED, {'model.roi_head.bbox_head.type': 'Shared2FCBBoxHead'},
     'roi_head is a FederatedRoIHead with a Shared2FCBBoxHead'),
    (DEMO, {'model.roi_head.bbox_head.loss_cls': OUR_LOSS},
     'roi_head.bbox_head is a Shared2FCBBoxHead with a FederatedLoss'),
    (CASCADE, {'model.roi_head.type': 'FederatedCascadeRoIHead'},
     'roi_head is a FederatedCascadeRoIHead with a Shared2FCBBoxHead'),
    (FEDERATED, {}, None), (DEMO, {}, None), (CASCADE, {}, None)])
def test_parts_of_the_recipe_beside_stock_ones_are_said(config, options, words):
    model = build_model(load_config(config, options))
    with pytest.raises(UserError, match=words) if words else nullcontext():
        check_federated(model)


@pytest.mark.parametrize(('option', 'words'), [
    ('model.roi_head.bbox_head.objectness=-1', 'objectness must be 0 or more, got -1'),
    ('model.roi_head.bbox_head.loss_cls.doubt=3', 'doubt must be from 0 to 1, got 3'),
    ('model.roi_head.type=StandardRoIHead', 'FederatedBBoxHead')])
def test_an_option_of_the_recipe_that_cannot_be_is_one_line(option, words, demo_root, tmp_path):
    result = run_tool('tools/train.py', FEDERATED, '--work-dir', tmp_path, '--cfg-options',
                      f'data_root={demo_root}', option)
    assert_one_line_error(result, words)


@pytest.mark.parametrize('sampler', [
    'InfiniteSampler', 'InfiniteClassAwareSampler', 'SoftClassAwareSampler'])
def test_epochs_that_would_never_end_are_said(sampler, tmp_path, monkeypatch):
    for loop in ({'type': 'EpochBasedTrainLoop', 'max_epochs': 2},
                 {'by_epoch': True, 'max_epochs': 2}):
        cfg = load_config(MAIN, {'train_dataloader.sampler.type': sampler})
        cfg.train_cfg = loop
        with pytest.raises(UserError, match=f'an epoch of {sampler} never ends'):
            check_loop(cfg)
        cfg.train_dataloader.sampler.type = 'DefaultSampler'
        check_loop(cfg)
    check_loop(load_config(MAIN))
    with pytest.raises(UserError, match='never ends'):
        run_main(monkeypatch, 'tools/train.py', MAIN, '--work-dir', tmp_path, '--cfg-options',
                 'train_cfg.type=EpochBasedTrainLoop', f'train_dataloader.sampler.type={sampler}')


def test_missing_images_are_said(demo_root, model):
    cfg = load_config(DEMO, {'data_root': str(demo_root)})
    check_data(cfg, model, 'train_dataloader', 'val_dataloader')
    cfg.val_dataloader.dataset.data_prefix = {'img': 'pictures/'}
    with pytest.raises(UserError, match='pictures'):
        check_data(cfg, model, 'train_dataloader', 'val_dataloader')


def test_missing_start_weights_are_said_with_the_ways_out(model):
    with pytest.raises(UserError, match=r'trim_checkpoint.*load_from=None'):
        check_start_weights(load_config(MAIN), model)


def test_nothing_is_fetched_when_start_weights_are_there(tmp_path, model):
    torch.save({'state_dict': {'backbone.conv1.weight': torch.zeros(1)}}, tmp_path / 'start.pth')
    cfg = load_config(MAIN, {'load_from': str(tmp_path / 'start.pth')})
    check_start_weights(cfg, model)
    assert cfg.model.backbone.init_cfg is None


def test_start_weights_of_another_program_are_said(tmp_path, model):
    torch.save({'state_dict': {'stem.weight': torch.zeros(1)}}, tmp_path / 'start.pth')
    cfg = load_config(MAIN, {'load_from': str(tmp_path / 'start.pth')})
    with pytest.raises(UserError, match=r'start\.pth: none of its 1 tensors .*trim_checkpoint'):
        check_start_weights(cfg, model)


def test_weights_alone_are_not_resumed_from(tmp_path, model):
    torch.save({'state_dict': {'a': torch.zeros(1)}}, tmp_path / 'start.pth')
    cfg = load_config(MAIN, {'load_from': str(tmp_path / 'start.pth'), 'resume': True})
    with pytest.raises(UserError, match=r'start\.pth: has no iter'):
        check_start_weights(cfg, model)


def test_another_models_run_is_not_resumed(tmp_path, model):
    torch.save({'state_dict': {'a': torch.zeros(1)}, 'meta': {'iter': 1, 'epoch': 0},
                'message_hub': {}}, tmp_path / 'start.pth')
    cfg = load_config(MAIN, {'load_from': str(tmp_path / 'start.pth'), 'resume': True})
    with pytest.raises(UserError, match=r'start\.pth: does not fit the config'):
        check_start_weights(cfg, model)


def test_imagenet_weights_need_torchvision(monkeypatch, model):
    from_imagenet = load_config(MAIN, {'load_from': None})
    from_scratch = load_config(MAIN, {'load_from': None, 'model.backbone.init_cfg': None})
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match='needs torchvision'):
        check_start_weights(from_imagenet, model)
    check_start_weights(from_scratch, model)
