"""Checkpoints: reading them without running what is in them, and start weights from COCO models.

A checkpoint is a pickle, and a pickle can run any program. :func:`read_checkpoint` lets through
tensors, plain values, and what MMEngine itself stores to go on with a training (log histories);
importing this module makes it MMEngine's loader of local files, so that testing, ``load_from`` and
``--resume`` are as careful. (MMEngine's own loader falls back to unpickling everything.)

:func:`trim` turns a COCO Mask R-CNN, in the key scheme of MMDetection, maskrcnn-benchmark or
torchvision, into start weights for a model of other classes.
"""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.runner import CheckpointLoader
from torch import Tensor

from projects.openimages.common.errors import UserError


def _history_method(owner: type, name: str) -> Any:
    """Stands in for ``getattr``, by which MMEngine's histories store their own methods."""
    if owner is not HistoryBuffer or name.startswith('_'):
        raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not allowed')
    return getattr(HistoryBuffer, name)


SAFE_GLOBALS = [
    (_history_method, 'builtins.getattr'), HistoryBuffer, np.ndarray, np.dtype,
    np._core.multiarray._reconstruct, np._core.multiarray.scalar,
    *(type(np.dtype(name)) for name in ('bool', 'int32', 'int64', 'uint32', 'uint64', 'float32',
                                        'float64'))]


def read_checkpoint(path: str | os.PathLike, map_location: Any = 'cpu') -> dict:
    """Read a checkpoint file that may come from a stranger.

    Args:
        path: a file that ``torch.save`` wrote.
        map_location: as in ``torch.load``.

    Raises:
        UserError: no such file, a bare pickle, half a file, or one that asks for other code.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError('no such file (the checkpoint)', path=path)
    if path.suffix in ('.pkl', '.pickle'):
        raise UserError('a bare pickle can run any program and is not read; convert it with the '
                        'program that made it', path=path)
    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r'Unsupported (?:global|class)[^`\w]*(?:GLOBAL)?\s*`?([\w.]+)',
                          str(error))
        asked = f' ({found[1]})' if found else ''
        raise UserError(f'not a checkpoint of tensors and plain values{asked}; it is not read, '
                        'because loading it could run any program', path=path) from None
    except (RuntimeError, EOFError, KeyError, zipfile.BadZipFile, ValueError):
        # torch's own words for these ("Invalid magic number", a bare KeyError) help nobody.
        raise UserError('not a whole checkpoint: cut short, or another kind of file',
                        path=path) from None
    if not isinstance(checkpoint, Mapping):
        raise UserError(f'a {type(checkpoint).__name__}, expected a checkpoint', path=path)
    return checkpoint


def _load_local(filename: str, map_location: Any = None) -> dict:
    return read_checkpoint(filename, map_location)


CheckpointLoader.register_scheme('', _load_local, force=True)

# From the keys without a leading "module.", to MMDetection's. Both torchvision's older and newer
# names are known: since 0.13 its convolutions may be one level deeper ("inner_blocks.0.0").
_RULES = {
    'maskrcnn-benchmark': [
        (r'backbone\.body\.stem\.', 'backbone.'),
        (r'backbone\.body\.', 'backbone.'),
        (r'backbone\.fpn\.fpn_inner(\d)\.', lambda m: f'neck.lateral_convs.{int(m[1]) - 1}.conv.'),
        (r'backbone\.fpn\.fpn_layer(\d)\.', lambda m: f'neck.fpn_convs.{int(m[1]) - 1}.conv.'),
        (r'rpn\.head\.conv\.', 'rpn_head.rpn_conv.'),
        (r'rpn\.head\.cls_logits\.', 'rpn_head.rpn_cls.'),
        (r'rpn\.head\.bbox_pred\.', 'rpn_head.rpn_reg.'),
        (r'roi_heads\.box\.feature_extractor\.fc6\.', 'roi_head.bbox_head.shared_fcs.0.'),
        (r'roi_heads\.box\.feature_extractor\.fc7\.', 'roi_head.bbox_head.shared_fcs.1.'),
        (r'roi_heads\.box\.predictor\.cls_score\.', 'roi_head.bbox_head.fc_cls.'),
        (r'roi_heads\.box\.predictor\.bbox_pred\.', 'roi_head.bbox_head.fc_reg.'),
        (r'roi_heads\.mask\.feature_extractor\.mask_fcn(\d)\.',
         lambda m: f'roi_head.mask_head.convs.{int(m[1]) - 1}.conv.'),
        (r'roi_heads\.mask\.predictor\.conv5_mask\.', 'roi_head.mask_head.upsample.'),
        (r'roi_heads\.mask\.predictor\.mask_fcn_logits\.', 'roi_head.mask_head.conv_logits.')],
    'torchvision': [
        (r'backbone\.body\.', 'backbone.'),
        (r'backbone\.fpn\.inner_blocks\.(\d)\.(0\.)?', r'neck.lateral_convs.\1.conv.'),
        (r'backbone\.fpn\.layer_blocks\.(\d)\.(0\.)?', r'neck.fpn_convs.\1.conv.'),
        (r'rpn\.head\.conv\.(0\.0\.)?', 'rpn_head.rpn_conv.'),
        (r'rpn\.head\.cls_logits\.', 'rpn_head.rpn_cls.'),
        (r'rpn\.head\.bbox_pred\.', 'rpn_head.rpn_reg.'),
        (r'roi_heads\.box_head\.fc6\.', 'roi_head.bbox_head.shared_fcs.0.'),
        (r'roi_heads\.box_head\.fc7\.', 'roi_head.bbox_head.shared_fcs.1.'),
        (r'roi_heads\.box_predictor\.cls_score\.', 'roi_head.bbox_head.fc_cls.'),
        (r'roi_heads\.box_predictor\.bbox_pred\.', 'roi_head.bbox_head.fc_reg.'),
        (r'roi_heads\.mask_head\.mask_fcn(\d)\.',
         lambda m: f'roi_head.mask_head.convs.{int(m[1]) - 1}.conv.'),
        (r'roi_heads\.mask_head\.(\d)\.0\.', r'roi_head.mask_head.convs.\1.conv.'),
        (r'roi_heads\.mask_predictor\.conv5_mask\.', 'roi_head.mask_head.upsample.'),
        (r'roi_heads\.mask_predictor\.mask_fcn_logits\.', 'roi_head.mask_head.conv_logits.')],
    'MMDetection': []}

# What the weights expect of the pixels and the strides, where it is not what MMDetection's
# Mask R-CNN gives them.
_NOTES = {
    'maskrcnn-benchmark': (
        "maskrcnn-benchmark's models take BGR pixels less their mean and have the stride in the "
        '1x1 convolution: train and test with --cfg-options model.backbone.style=caffe '
        'model.data_preprocessor.mean=[102.9801,115.9465,122.7717] '
        'model.data_preprocessor.std=[1,1,1] model.data_preprocessor.bgr_to_rgb=False')}

CLASS_LAYERS = ('roi_head.bbox_head.fc_cls.', 'roi_head.bbox_head.fc_reg.',
                'roi_head.mask_head.conv_logits.')


@dataclass(frozen=True)
class StartWeights:
    """A trimmed checkpoint.

    Attributes:
        scheme: whose keys the checkpoint had.
        state_dict: MMDetection key to tensor.
        renamed: old key by new key, where they differ.
        dropped: reason by old key (or by the name of a whole part, such as ``optimizer``).
        missing: the model's tensors that stay at their start values: its class-specific layers.
        note: what else to set, or ``''``.
    """

    scheme: str
    state_dict: dict[str, Tensor]
    renamed: dict[str, str]
    dropped: dict[str, str]
    missing: tuple[str, ...]
    note: str

    def report(self) -> str:
        """Every key that was kept, renamed and dropped."""
        kept = [key for key in self.state_dict if key not in self.renamed]
        lines = [f'{self.scheme} keys', f'kept {len(kept)}', *(f'  {key}' for key in kept),
                 f'renamed {len(self.renamed)}',
                 *(f'  {old} -> {new}' for new, old in self.renamed.items()),
                 f'dropped {len(self.dropped)}',
                 *(f'  {key}: {reason}' for key, reason in self.dropped.items()),
                 f'left at their start values {len(self.missing)}',
                 *(f'  {key}' for key in self.missing)]
        return '\n'.join([*lines, *([self.note] if self.note else [])])


def trim(checkpoint: Mapping[str, Any], model: Mapping[str, Tensor]) -> StartWeights:
    """Start weights for a model from a checkpoint of the same architecture and other classes.

    Tensors keep their bits. Class-specific layers are kept only where a checkpoint of MMDetection
    has exactly the model's shapes: the other schemes order their classes otherwise.

    Args:
        checkpoint: what :func:`read_checkpoint` gave: a state dict, or one under ``state_dict`` or
            ``model`` beside optimizer and schedule.
        model: the state dict of the model to start.

    Raises:
        UserError: no Mask R-CNN of a known scheme, or one that lacks tensors of the model.
    """
    inner = next((name for name in ('state_dict', 'model') if name in checkpoint), None)
    weights = checkpoint if inner is None else checkpoint[inner]
    dropped = {} if inner is None else {
        key: 'not weights' for key in checkpoint if key != inner}
    weights = {key: value for key, value in weights.items() if isinstance(value, Tensor)}
    scheme = _scheme(weights)
    state_dict: dict[str, Tensor] = {}
    renamed: dict[str, str] = {}
    for key, tensor in weights.items():
        new = _rename(key.removeprefix('module.'), scheme)
        reason = _why_not(new, tensor, model, scheme)
        if reason:
            dropped[key] = reason
            continue
        state_dict[new] = tensor
        if new != key:
            renamed[new] = key
    missing = tuple(key for key in model
                    if key not in state_dict and not key.endswith('num_batches_tracked'))
    unexpected = [key for key in missing if not key.startswith(CLASS_LAYERS)]
    if unexpected:
        raise UserError(f'the checkpoint does not fit the model: {len(unexpected)} tensors have '
                        f'no counterpart, the first is {unexpected[0]}')
    return StartWeights(scheme, state_dict, renamed, dropped, missing, _NOTES.get(scheme, ''))


def _scheme(weights: Mapping[str, Tensor]) -> str:
    keys = {key.removeprefix('module.') for key in weights}
    if any(key.startswith('roi_heads.box.') for key in keys):
        return 'maskrcnn-benchmark'
    if any(key.startswith('roi_heads.box_head.') for key in keys):
        return 'torchvision'
    if any(key.startswith('roi_head.bbox_head.') for key in keys):
        return 'MMDetection'
    sample = ', '.join(sorted(keys)[:3]) or 'no tensors'
    raise UserError(f'no Mask R-CNN in the key scheme of {", ".join(_RULES)}; it has {sample}')


def _rename(key: str, scheme: str) -> str:
    for pattern, replacement in _RULES[scheme]:
        new, count = re.subn(f'^{pattern}', replacement, key)
        if count:
            return new
    return key


def _why_not(key: str, tensor: Tensor, model: Mapping[str, Tensor], scheme: str) -> str:
    """Why a tensor is not taken; ``''`` if it is."""
    if key.startswith(CLASS_LAYERS) and scheme != 'MMDetection':
        return 'class-specific'
    if key not in model:
        return 'not in the model'
    if tensor.shape != model[key].shape:
        kind = 'class-specific' if key.startswith(CLASS_LAYERS) else 'another size'
        return f'{kind}: {tuple(tensor.shape)}, the model has {tuple(model[key].shape)}'
    return ''
