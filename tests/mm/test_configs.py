"""The configs: what they share, and that another model is a few lines on top of it."""

import re

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config

from projects.openimages.mm.engine.config import build_model, load_config
from projects.openimages.mm.models.assigners import IgnoreAwareAssigner
from tests.helpers import REPOSITORY

CONFIGS = REPOSITORY / 'configs'
MAIN = CONFIGS / 'oi_mask_rcnn_r50.py'
PAGE = (REPOSITORY / 'docs' / 'training.md').read_text(encoding='utf-8')
CASCADE, SWIN = re.findall(r'```python\n(_base_ = .*?)```', PAGE, re.DOTALL)
PIECES = {'datasets/openimages_instance.py', 'schedules/openimages_270k.py',
          'openimages_runtime.py'}


def code_lines(text: str) -> int:
    text = re.sub(r'""".*?"""', '', text, flags=re.DOTALL)
    return len([line for line in text.splitlines() if line.strip() and line.strip()[0] != '#'])


@pytest.mark.parametrize('text', [MAIN.read_text(encoding='utf-8'), CASCADE, SWIN],
                         ids=['Mask R-CNN', 'Cascade Mask R-CNN', 'Swin-T'])
def test_a_model_is_fifteen_lines_and_learns_from_a_batch(tmp_path, text):
    assert code_lines(text) <= 15
    path = tmp_path / 'model.py'
    path.write_text(text.replace('./_base_/', f'{CONFIGS}/_base_/'))
    cfg = load_config(path, {'num_classes': 7, 'data_root': '/data/oi'})
    assert cfg.train_dataloader.dataset.data_root == '/data/oi/'
    cfg.model.backbone.init_cfg = None
    model = build_model(cfg)
    heads = [module for module in model.modules() if hasattr(module, 'fc_cls')]
    assert heads and {head.fc_cls.out_features for head in heads} == {8}
    assert set(map(type, assigners(model))) == {IgnoreAwareAssigner}
    batch = demo_mm_inputs(1, [[3, 64, 64]], num_classes=7, with_mask=True)
    loss, parts = model.parse_losses(
        model.forward(**model.data_preprocessor(batch, True), mode='loss'))
    assert torch.isfinite(loss)
    assert any('loss_mask' in name for name in parts)


def assigners(model) -> list:
    """Those of the RPN and of each stage of the RoI head."""
    of_stages = model.roi_head.bbox_assigner
    return [model.rpn_head.assigner,
            *(of_stages if isinstance(of_stages, list) else [of_stages])]


def test_the_shared_pieces_set_no_key_twice_and_are_the_whole_of_a_config():
    """Between bases MMEngine refuses a key that two of them set."""
    keys = [key for piece in PIECES for key in Config.fromfile(CONFIGS / '_base_' / piece)]
    assert len(keys) == len(set(keys))
    assert set(Config.fromfile(MAIN)) == {*keys, 'model'}


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*.py')), ids=lambda path: path.stem)
def test_every_config_is_for_the_classes_and_ignores_what_is_not_background(path):
    cfg = load_config(path)
    heads = cfg.model.roi_head
    assert heads.bbox_head.num_classes == heads.mask_head.num_classes == cfg.num_classes == 300
    assert {cfg.model.train_cfg[stage].assigner.type
            for stage in ('rpn', 'rcnn')} == {'IgnoreAwareAssigner'}


def backward(**options) -> tuple[dict[str, torch.Tensor], int]:
    """Of the main config's backbone, made thin, for one image: gradients, and numbers kept."""
    cfg = load_config(MAIN, options)
    cfg.model.backbone.update(base_channels=4, init_cfg=None)
    torch.manual_seed(0)
    backbone = MODELS.build(cfg.model.backbone)
    backbone.train()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor):
        levels = backbone(torch.randn(1, 3, 64, 64))
    sum(level.square().mean() for level in levels).backward()
    return {name: parameter.grad for name, parameter in backbone.named_parameters()
            if parameter.requires_grad}, sum(kept)


def test_recomputed_activations_are_not_kept_and_change_no_gradient():
    plain, all_kept = backward()
    recomputed, kept = backward(**{'model.backbone.with_cp': True})
    assert len(plain) > 100 and plain.keys() == recomputed.keys()
    for name, gradient in plain.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(recomputed[name], gradient)
    assert kept < all_kept / 2
