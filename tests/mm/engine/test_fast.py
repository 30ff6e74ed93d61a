"""``--fast`` by the command: a training and a test, what they set, and what they refuse."""

import pytest
import torch

from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine.config import load_config
from projects.openimages.mm.engine.fast import train_fast, use_mixed_precision
from projects.openimages.mm.models.adapting import mappings
from tests.helpers import REPOSITORY, run_main
from tests.mm.engine.training_run import write_config

MAIN = REPOSITORY / 'configs' / 'oi_mask_rcnn_r50.py'
CASCADE = REPOSITORY / 'configs' / 'zoo' / 'cascade_mask_rcnn_x101.py'


def test_a_training_and_its_validation_run(demo_root, tmp_path, monkeypatch):
    monkeypatch.setenv('WITNESS', str(tmp_path / 'witness'))
    config = write_config(tmp_path, 'train_cfg = dict(max_iters=2, val_interval=2)\n')
    run_main(monkeypatch, 'tools/train.py', config, '--fast', '--work-dir', tmp_path / 'work',
             '--cfg-options', f'data_root={demo_root}')
    stored = torch.load(tmp_path / 'work' / 'iter_2.pth', weights_only=False)
    weight = stored['state_dict']['backbone.layer4.0.conv1.weight']
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    assert weight.dtype == torch.float32 and all(
        torch.isfinite(value).all() for value in stored['state_dict'].values())
    assert stored['optimizer']['param_groups'][0]['fused'] is True


def test_what_is_set_reaches_the_runners_config():
    cfg = load_config(MAIN)
    train_fast(cfg, compile_parts=True)
    assert cfg.optim_wrapper.type == 'Bfloat16OptimWrapper' and cfg.optim_wrapper.optimizer.fused
    loader = cfg.train_dataloader
    assert loader.prefetch_factor == 4 and loader.persistent_workers
    assert loader.pin_memory is torch.cuda.is_available()
    assert cfg.model.data_preprocessor.type == 'BucketPreprocessor'
    assert cfg.model.data_preprocessor.non_blocking
    assert cfg.custom_hooks == [{'type': 'FastModelHook', 'compile_parts': True}]


def test_what_the_config_sets_itself_stays():
    cfg = load_config(MAIN, {'train_dataloader.prefetch_factor': 2,
                             'train_dataloader.pin_memory': True,
                             'optim_wrapper.optimizer.fused': False})
    train_fast(cfg)
    assert cfg.train_dataloader.prefetch_factor == 2 and cfg.train_dataloader.pin_memory
    assert cfg.optim_wrapper.optimizer.fused is False
    assert cfg.model.data_preprocessor.type == 'DetDataPreprocessor'


def test_proposals_are_made_for_batches_where_the_config_has_the_usual_head():
    for prepare in (train_fast, lambda cfg: use_mixed_precision(cfg, fast=True)):
        cfg = load_config(MAIN)
        prepare(cfg)
        assert cfg.model.rpn_head.type == 'BatchRPNHead'
        cfg = load_config(MAIN, {'model.rpn_head.type': 'GARPNHead'})
        prepare(cfg)
        assert cfg.model.rpn_head.type == 'GARPNHead'
    cfg = load_config(MAIN)
    use_mixed_precision(cfg)
    assert cfg.model.rpn_head.type == 'RPNHead'


def test_every_usual_coder_of_boxes_is_one_that_does_not_wait():
    for config in (MAIN, CASCADE):
        cfg = load_config(config)
        train_fast(cfg)
        coders = [part.bbox_coder.type for part in mappings(cfg.model) if 'bbox_coder' in part]
        assert set(coders) == {'ResidentDeltaXYWHBBoxCoder'} and len(coders) in (2, 4)
    other = 'LegacyDeltaXYWHBBoxCoder'
    cfg = load_config(MAIN, {'model.roi_head.bbox_head.bbox_coder.type': other})
    train_fast(cfg)
    assert cfg.model.roi_head.bbox_head.bbox_coder.type == other


def test_types_that_a_config_leaves_to_mmengine_are_known():
    cfg = load_config(MAIN)
    del cfg.optim_wrapper['type'], cfg.test_cfg['type']
    train_fast(cfg)
    use_mixed_precision(cfg)
    assert cfg.optim_wrapper.type == 'Bfloat16OptimWrapper'
    assert cfg.test_cfg == {'type': 'TestLoop', 'fp16': True}


def test_without_workers_nothing_is_fetched_ahead():
    cfg = load_config(MAIN, {'train_dataloader.num_workers': 0,
                             'train_dataloader.persistent_workers': False})
    train_fast(cfg)
    assert 'prefetch_factor' not in cfg.train_dataloader


def test_what_cannot_be_made_fast_is_said(tmp_path, monkeypatch):
    cfg = load_config(MAIN, {'optim_wrapper.type': 'AmpOptimWrapper'})
    with pytest.raises(UserError, match='AmpOptimWrapper'):
        train_fast(cfg)
    cfg = load_config(MAIN, {'model.data_preprocessor.type': 'BoxInstDataPreprocessor'})
    with pytest.raises(UserError, match='BoxInstDataPreprocessor'):
        train_fast(cfg, compile_parts=True)
    cfg = load_config(MAIN)
    cfg.test_cfg.type = 'ValLoop'
    use_mixed_precision(cfg)
    assert cfg.test_cfg.fp16
    for options, said in ((['--compile'], '--compile needs --fast'),
                          (['--fast', '--amp'], 'give --fast or --amp')):
        with pytest.raises(UserError, match=said):
            run_main(monkeypatch, 'tools/train.py', MAIN, *options, '--work-dir', tmp_path)
