"""What makes a detector fast and leaves its results: precision, memory layout, compiled parts.

Convolutions and linear layers gain from 16 bits and from channels-last tensors. What stands between
them does not, or goes wrong: MMCV's operators take no bfloat16 and read memory as if channels came
first, MMDetection's RoI extractors round the coordinates of proposals to the precision of the
features (bfloat16 keeps 8 bits, steps of 4 pixels at 1,000), and scores that are rounded tie. So
operators, RoI extractors and what comes out of heads are float32 here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.backbones import ResNet
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor
from mmdet.registry import HOOKS, MODELS
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.model.efficient_conv_bn_eval import turn_on_efficient_conv_bn_eval
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn

_HEADS = (BaseDenseHead, BBoxHead, FCNMaskHead)


@OPTIM_WRAPPERS.register_module()
class Bfloat16OptimWrapper(OptimWrapper):
    """``OptimWrapper`` whose forward passes run under bfloat16 autocast, on any device.

    bfloat16 has float32's range, so losses need no scaling as in ``AmpOptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """As the base class's, for one batch."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield


@HOOKS.register_module()
class MixedPrecisionHook(Hook):
    """Makes a model ready for autocast: :func:`operators_in_float32`."""

    def before_run(self, runner: Any) -> None:
        """Once for a training or a test."""
        operators_in_float32(_model_of(runner))


@HOOKS.register_module()
class FastModelHook(MixedPrecisionHook):
    """Also folded normalisation and channels-last weights; backbone and neck compiled on request.

    Args:
        compile_parts: with ``torch.compile``, anew for each shape: see :class:`BucketPreprocessor`.
    """

    def __init__(self, compile_parts: bool = False) -> None:
        self.compile_parts = compile_parts

    def before_run(self, runner: Any) -> None:
        """Once for a training or a test."""
        super().before_run(runner)
        model = _model_of(runner)
        fold_norms(model)
        if self.compile_parts:
            compile_features(model)

    def before_train(self, runner: Any) -> None:
        """When the weights and maybe the optimiser's state have been loaded."""
        use_channels_last(_model_of(runner), runner.optim_wrapper)

    def before_test(self, runner: Any) -> None:
        """When the weights have been loaded."""
        use_channels_last(_model_of(runner))


def _model_of(runner: Any) -> nn.Module:
    """The detector, without what distributes it or gives it several views."""
    model = runner.model
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def operators_in_float32(model: nn.Module) -> None:
    """Run MMCV's operators and RoI extractors without autocast, and give heads' outputs as float32.

    Args:
        model: a detector; changed in place, once.
    """
    for part in model.modules():
        if isinstance(part, BaseRoIExtractor) or type(part).__module__.startswith('mmcv.ops.'):
            if not isinstance(part.forward, functools.partial):
                part.forward = functools.partial(_in_float32, part.forward)
        elif isinstance(part, _HEADS) and _float_outputs not in part._forward_hooks.values():
            part.register_forward_hook(_float_outputs)


def _in_float32(forward: Callable, *inputs: Any, **options: Any) -> Any:
    inputs, options = _map(inputs, _plain), _map(options, _plain)
    with torch.autocast('cuda', enabled=False), torch.autocast('cpu', enabled=False):
        return forward(*inputs, **options)


def _float_outputs(part: nn.Module, inputs: Any, outputs: Any) -> Any:
    return _map(outputs, _float)


def _float(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _plain(tensor: Tensor) -> Tensor:
    return _float(tensor).contiguous()


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A nested value with its tensors changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _map(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_map(item, change) for item in value])
    return value


def fold_norms(model: nn.Module) -> bool:
    """Fold normalisation with fixed statistics into the convolutions before it, in a ResNet.

    On the fly, from the very same parameters: scale and shift are learnt as before, checkpoints
    stay as they are, and a norm that gathers statistics works as before. What is saved is a pass
    over every feature map, and keeping it for the backward pass.

    Returns:
        Whether the backbone is one that this is done to.
    """
    backbone = getattr(model, 'backbone', None)
    foldable = isinstance(backbone, ResNet) and not backbone.with_cp and backbone.dcn is None
    if foldable:
        turn_on_efficient_conv_bn_eval(model, 'backbone')
    return foldable


def use_channels_last(model: nn.Module, optim_wrapper: OptimWrapper | None = None) -> None:
    """Lay out the weights with channels last, and the optimiser's state like its weights.

    A convolution's output is laid out as its weights are. A state that was resumed from a training
    with another layout would be read wrongly by a fused optimiser.
    """
    model.to(memory_format=torch.channels_last)
    state = {} if optim_wrapper is None else optim_wrapper.optimizer.state
    for weight, values in state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                values[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def compile_features(model: nn.Module) -> None:
    """Compile a detector's backbone and neck, anew for each shape of its batches."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_SHAPES)
    for name in ('backbone', 'neck'):
        if hasattr(model, name):
            getattr(model, name).compile(dynamic=False)


_MOST_SHAPES = 64  # the buckets, in training and in testing, and other sizes of the last batch
# Of images of 1333 x 800: square, 4:3, 3:2, 16:9 lying and upright, and whatever else; and of those
# that come in several sizes, up to 1666 x 1000.
BUCKETS = ((800, 832), (800, 1088), (800, 1216), (800, 1344), (832, 800), (1088, 800), (1216, 800),
           (1344, 800), (1344, 1344),
           (1024, 1024), (1024, 1344), (1024, 1504), (1024, 1696), (1344, 1024), (1504, 1024),
           (1696, 1024), (1696, 1696))


@MODELS.register_module()
class BucketPreprocessor(DetDataPreprocessor):
    """``DetDataPreprocessor`` that pads batches to one of a few shapes, for compiled models.

    Args:
        buckets: (height, width) each, in pixels. The one with the fewest pixels that holds a batch
            is taken; a batch that fits into none stays as it is.
        options: the other arguments of ``DetDataPreprocessor``.
    """

    def __init__(self, buckets: Sequence[tuple[int, int]] = BUCKETS, **options: Any) -> None:
        super().__init__(**options)
        self.buckets = sorted(map(tuple, buckets), key=lambda size: size[0] * size[1])

    def forward(self, data: dict, training: bool = False) -> dict:
        """As the base class's, on larger canvases."""
        batch = super().forward(data, training)
        height, width = batch['inputs'].shape[-2:]
        size = next((size for size in self.buckets if size[0] >= height and size[1] >= width), None)
        if size is None:
            return batch
        batch['inputs'] = F.pad(batch['inputs'], (0, size[1] - width, 0, size[0] - height),
                                value=self.pad_value)
        samples = batch['data_samples']
        for sample in samples or ():
            sample.set_metainfo({'batch_input_shape': size})
        if self.pad_mask and training and samples:
            self.pad_gt_masks(samples)
        return batch
