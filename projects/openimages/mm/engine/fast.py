"""``--fast`` and ``--compile``: the settings that make training and testing fast, in one place."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.config import Config, ConfigDict

from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine.options import arguments_of, class_of, is_a
from projects.openimages.mm.models.adapting import mappings

_PREFETCHED = 4  # batches a worker: one with many masks must not keep the others waiting


def train_fast(cfg: Config, compile_parts: bool = False) -> None:
    """Train fast; what is learnt stays the same up to bfloat16's rounding.

    bfloat16 autocast; weights with channels last; normalisation with fixed statistics folded into
    the convolutions before it; proposals for a batch at once; regression targets without a copy
    from the host; one kernel for an optimiser's step;
    batches loaded ahead into pinned memory and copied beside the work.

    Args:
        cfg: changed in place. What it sets of these itself stays.
        compile_parts: also compile backbone and neck, and pad batches to a few shapes.

    Raises:
        UserError: the config's optimiser wrapper or preprocessor is one that this cannot replace.
    """
    wrapper = cfg.optim_wrapper
    wrapper.setdefault('type', 'OptimWrapper')
    if not is_a(wrapper, 'OptimWrapper', exactly=True):
        raise UserError(f'--fast trains in bfloat16 in the place of OptimWrapper, but the config '
                        f'has {wrapper.type}; --amp is another way')
    wrapper.type = 'Bfloat16OptimWrapper'
    optimizer = wrapper.get('optimizer') or {}
    built = class_of(optimizer.get('type'))
    if built is not None and 'fused' in arguments_of(built):
        optimizer.setdefault('fused', True)
    _fast_loading(cfg, 'train_dataloader', 'val_dataloader')
    preprocessor = cfg.model.get('data_preprocessor') or {}
    if compile_parts:
        if not is_a(preprocessor, 'DetDataPreprocessor', exactly=True):
            raise UserError('--compile pads batches in the place of DetDataPreprocessor, but the '
                            f'config has {preprocessor.get("type")}')
        preprocessor['type'] = 'BucketPreprocessor'
    _propose_for_batches(cfg)
    for part in mappings(cfg.model):
        if is_a(part.get('bbox_coder'), 'DeltaXYWHBBoxCoder', exactly=True):
            part['bbox_coder']['type'] = 'ResidentDeltaXYWHBBoxCoder'
    _add_hook(cfg, type='FastModelHook', compile_parts=compile_parts)


def use_mixed_precision(cfg: Config, fast: bool = False) -> None:
    """Test in float16 on a GPU and in bfloat16 on a CPU.

    Args:
        cfg: changed in place.
        fast: also with what else makes :func:`train_fast` fast and can be had in a test.
    """
    cfg.test_cfg.setdefault('type', 'TestLoop')
    if 'fp16' not in arguments_of(class_of(cfg.test_cfg.type)):
        raise UserError(f'mixed precision needs a test loop with fp16, not {cfg.test_cfg.type}')
    cfg.test_cfg.fp16 = True
    if fast:
        _fast_loading(cfg, 'test_dataloader')
        _propose_for_batches(cfg)
    _add_hook(cfg, type='FastModelHook' if fast else 'MixedPrecisionHook')


def _add_hook(cfg: Config, **hook: Any) -> None:
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), hook]


def _propose_for_batches(cfg: Config) -> None:
    head = _detector(cfg).get('rpn_head')
    if head and is_a(head, 'RPNHead', exactly=True):
        head.type = 'BatchRPNHead'


def _detector(cfg: Config) -> ConfigDict:
    return cfg.model.get('module') or cfg.model  # with test-time augmentation


def _fast_loading(cfg: Config, *loaders: str) -> None:
    for loader in (cfg[name] for name in loaders if cfg.get(name)):
        loader.setdefault('pin_memory', torch.cuda.is_available())
        if loader.get('num_workers'):
            loader.setdefault('persistent_workers', True)
            loader.setdefault('prefetch_factor', _PREFETCHED)
    model = _detector(cfg)
    if model.get('data_preprocessor'):
        model.data_preprocessor.setdefault('non_blocking', True)
