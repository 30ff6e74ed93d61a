"""Start weights from COCO models: :func:`trim` turns a checkpoint into one for other classes.

In: any detector of MMDetection, or a Mask R-CNN in the key scheme of maskrcnn-benchmark or
torchvision. Out: its tensors under MMDetection's keys, without the layers that depend on the
classes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine.checkpoints import weights_of

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

# Mask R-CNN's layers that other schemes order by their own classes, whatever their shapes.
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

    def to_dict(self) -> dict[str, Any]:
        """What was kept, renamed and dropped, without the tensors."""
        return {'scheme': self.scheme, 'tensors': len(self.state_dict), 'note': self.note,
                'kept': [key for key in self.state_dict if key not in self.renamed],
                'renamed': self.renamed, 'dropped': self.dropped, 'missing': self.missing}

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


def trim(checkpoint: Mapping[str, Any], model: Mapping[str, Tensor],
         path: str | os.PathLike | None = None) -> StartWeights:
    """Start weights for a model from a checkpoint of the same architecture and other classes.

    Tensors keep their bits. A layer is class-specific where it is the model's but for the number of
    its outputs. Had another layer more or fewer, the one after it would not fit either. The other
    schemes order their classes otherwise, so that :data:`CLASS_LAYERS` go whatever their shape.

    Args:
        checkpoint: what :func:`~projects.openimages.mm.engine.checkpoints.read_checkpoint` gave.
        model: the state dict of the model to start.
        path: the checkpoint's, named in errors.

    Raises:
        UserError: a model of another kind, or one that lacks tensors of this one.
    """
    weights = weights_of(checkpoint, path)
    dropped = {} if weights is checkpoint else {
        key: 'not weights' for key, value in checkpoint.items() if value is not weights}
    scheme = _scheme(weights, model, path)
    state_dict: dict[str, Tensor] = {}
    renamed: dict[str, str] = {}
    class_specific: set[str] = set()
    for key, tensor in weights.items():
        new = _rename(key.removeprefix('module.'), scheme)
        reason = _why_not(new, tensor, model, scheme)
        if reason:
            dropped[key] = reason
            if reason.startswith(_CLASS_SPECIFIC):
                class_specific.add(new)
            continue
        state_dict[new] = tensor
        if new != key:
            renamed[new] = key
    missing = tuple(key for key in model
                    if key not in state_dict and not key.endswith('num_batches_tracked'))
    unexpected = [key for key in missing if key not in class_specific
                  and not key.startswith(CLASS_LAYERS) and not _of_loss(key)]
    if unexpected:
        raise UserError(f'does not fit the model: {len(unexpected)} of its tensors have no '
                        f'counterpart, the first is {unexpected[0]}', path=path)
    return StartWeights(scheme, state_dict, renamed, dropped, missing, _NOTES.get(scheme, ''))


_CLASS_SPECIFIC = 'class-specific'


def _of_loss(key: str) -> bool:
    """Whether a tensor belongs to a loss, such as the class counts that some are made for."""
    return any(part.startswith('loss_') for part in key.split('.'))


def _scheme(weights: Mapping[str, Tensor], model: Mapping[str, Tensor],
            path: str | os.PathLike | None) -> str:
    keys = {key.removeprefix('module.') for key in weights}
    if any(key.startswith('roi_heads.box.') for key in keys):
        return 'maskrcnn-benchmark'
    if any(key.startswith('roi_heads.box_head.') for key in keys):
        return 'torchvision'
    if not keys.isdisjoint(model):
        return 'MMDetection'
    raise UserError('neither tensors of the model nor a Mask R-CNN in the key scheme of '
                    f'maskrcnn-benchmark or torchvision; it has {", ".join(sorted(keys)[:3])}',
                    path=path)


def _rename(key: str, scheme: str) -> str:
    for pattern, replacement in _RULES[scheme]:
        new, count = re.subn(f'^{pattern}', replacement, key)
        if count:
            return new
    return key


def _why_not(key: str, tensor: Tensor, model: Mapping[str, Tensor], scheme: str) -> str:
    """Why a tensor is not taken; ``''`` if it is."""
    if key.startswith(CLASS_LAYERS) and scheme != 'MMDetection':
        return _CLASS_SPECIFIC
    if key not in model:
        return 'not in the model'
    own = model[key].shape
    if tensor.shape != own:
        outputs_alone = (tensor.shape[1:] == own[1:] and len(tensor.shape) == len(own) > 0
                         and not key.startswith(('backbone.', 'neck.')))
        kind = _CLASS_SPECIFIC if outputs_alone else 'another size'
        return f'{kind}: {tuple(tensor.shape)}, the model has {tuple(own)}'
    return ''
