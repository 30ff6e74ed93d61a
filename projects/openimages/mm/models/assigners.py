"""Assigning proposals where the annotation is incomplete: ignored instances are not background.

MMDetection's ``MaxIoUAssigner`` ignores nothing by default, makes everything background in an image
that has only ignored instances, and, when told to ignore, also drops proposals that lie on a true
object inside an ignored one; its other assigners take no notice of ignored instances. Those here do
what the challenge's scoring does (rule 6): a proposal that matches a true object stays positive;
one that would be background but lies on an ignored instance is left out of the loss.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from mmdet.models.task_modules.assigners import (
    AssignResult,
    BaseAssigner,
    BboxOverlaps2D,
    MaxIoUAssigner,
)
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from projects.openimages.common.errors import ConfigError

_LEAST_AREA = 1e-6  # of what an overlap is a part of, as in MMDetection's


def pair_overlaps(boxes: Tensor, others: Tensor, mode: str = 'iou') -> Tensor:
    """(P, G) overlaps of (P, 4) with (G, 4) boxes, the very numbers of ``bbox_overlaps``.

    MMDetection's makes a tensor of its smallest area for each call; a GPU is waited for meanwhile.

    Args:
        mode: ``'iou'``, or ``'iof'``: the part of a box inside another.
    """
    shared, area, other = _shared_area(boxes, others)
    return shared / (area if mode == 'iof' else area + other - shared).clamp(min=_LEAST_AREA)


def _shared_area(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(P, G) area that (P, 4) and (G, 4) boxes share, and the boxes' own, (P, 1) and (1, G).

    In as few operations as there may be: on a GPU each costs more than what it computes.
    """
    low, high = boxes.unsqueeze(1).chunk(2, dim=2)
    other_low, other_high = others.unsqueeze(0).chunk(2, dim=2)
    sides = (torch.minimum(high, other_high) - torch.maximum(low, other_low)).clamp(min=0)
    areas = []
    for lengths in (sides, high - low, other_high - other_low):
        width, height = lengths.unbind(2)
        areas.append(width * height)
    return tuple(areas)


@TASK_UTILS.register_module()
class PairOverlaps(BboxOverlaps2D):
    """``BboxOverlaps2D`` that does not wait for the device: :func:`pair_overlaps`."""

    def __call__(self, bboxes1: Any, bboxes2: Any, mode: str = 'iou',
                 is_aligned: bool = False) -> Tensor:
        """As the base class's."""
        boxes, others = get_box_tensor(bboxes1), get_box_tensor(bboxes2)
        if is_aligned or mode not in ('iou', 'iof') or self.dtype == 'fp16':
            return super().__call__(boxes, others, mode, is_aligned)
        return pair_overlaps(boxes[:, :4], others[:, :4], mode)


class IgnoreRule:
    """Which boxes lie on an ignored instance.

    With ``ignored.group_of`` (which :class:`PackInstances` adds) the rules are those of the score:
    the part of the box inside a group-of box, or its IoU with a box without mask, is at least
    ``ignore_thr``. Without it (a transform has removed instances) all are taken as group-of.

    Args:
        ignore_thr: the threshold of both, in (0, 1].
        ignore_group_of: with False, what is inside group-of boxes is background to the assigner,
            for a classification loss that knows which classes the group leaves open
            (``FederatedLoss``).
    """

    def __init__(self, ignore_thr: float = 0.5, ignore_group_of: bool = True) -> None:
        if not 0 < ignore_thr <= 1:
            raise ConfigError(f'ignore_thr must be in (0, 1], got {ignore_thr}')
        self.ignore_thr = ignore_thr
        self.ignore_group_of = ignore_group_of

    def lies_on(self, boxes: Tensor, ignored: InstanceData) -> Tensor:
        """(P,) bool of (P, 4) boxes.

        Args:
            ignored: ``bboxes`` (I, 4) and maybe ``group_of`` (I,) bool.
        """
        known = 'group_of' in ignored
        if not (known or self.ignore_group_of):
            raise ValueError('ignore_group_of=False needs group_of in the ignored instances')
        shared, whole, other = _shared_area(boxes, get_box_tensor(ignored.bboxes))
        if known:
            whole = torch.where(ignored.group_of, whole, whole + other - shared)
        on = shared / whole.clamp(min=_LEAST_AREA) >= self.ignore_thr
        if not self.ignore_group_of:
            on &= ~ignored.group_of
        return on.any(dim=1)

    def leave_out(self, result: AssignResult, boxes: Tensor,
                  ignored: InstanceData | None) -> AssignResult:
        """The result of an assigner, its background on ignored instances unused (-1)."""
        if ignored is not None and len(ignored):
            background = result.gt_inds == 0
            result.gt_inds.masked_fill_(self.lies_on(boxes, ignored) & background, -1)
        return result


@TASK_UTILS.register_module()
class IgnoreAwareAssigner(MaxIoUAssigner):
    """``MaxIoUAssigner`` that leaves out the background on ignored instances.

    It gives the same and never waits for the device: the stock one asks it for a number for every
    object and selects by masks, whose sizes it has to know.

    Args:
        ignore_thr, ignore_group_of: as of :class:`IgnoreRule`.
        options: the other arguments of ``MaxIoUAssigner``.
    """

    def __init__(self, *, ignore_thr: float = 0.5, ignore_group_of: bool = True,
                 ignore_iof_thr: float = -1, iou_calculator: dict | None = None,
                 **options) -> None:
        if ignore_iof_thr > 0:
            raise ConfigError('set ignore_thr; ignore_iof_thr would also drop true positives')
        super().__init__(iou_calculator=iou_calculator or {'type': 'PairOverlaps'}, **options)
        self.ignore_rule = IgnoreRule(ignore_thr, ignore_group_of)

    def assign(self, pred_instances: InstanceData, gt_instances: InstanceData,
               gt_instances_ignore: InstanceData | None = None, **options) -> AssignResult:
        """Assign each of ``pred_instances.priors`` (P, 4): 0 background, n > 0 object, -1 unused.

        Args:
            gt_instances_ignore: ``bboxes`` (I, 4) and maybe ``group_of`` (I,) bool.
        """
        result = super().assign(pred_instances, gt_instances, None, **options)
        return self.ignore_rule.leave_out(result, pred_instances.priors, gt_instances_ignore)

    def assign_wrt_overlaps(self, overlaps: Tensor, gt_labels: Tensor) -> AssignResult:
        """As the stock one, for (G, P) overlaps of G objects with P priors."""
        objects, priors = overlaps.shape
        if not objects or not priors:
            return super().assign_wrt_overlaps(overlaps, gt_labels)
        best, best_object = overlaps.max(dim=0)
        low, high = (self.neg_iou_thr if isinstance(self.neg_iou_thr, tuple)
                     else (0, self.neg_iou_thr))
        assigned = torch.where((best >= low) & (best < high), 0, -1)
        assigned = torch.where(best >= self.pos_iou_thr, best_object + 1, assigned)
        if self.match_low_quality:
            last = self._own_best(overlaps)
            assigned = torch.where(last > 0, last, assigned)
        labels = torch.where(assigned > 0, gt_labels[(assigned - 1).clamp(min=0)], -1)
        return AssignResult(objects, assigned, best, labels)

    def _own_best(self, overlaps: Tensor) -> Tensor:
        """(P,) the last object of which a prior is the best, from 1 on; 0 where there is none."""
        best, best_prior = overlaps.max(dim=1, keepdim=True)
        if self.gt_max_assign_all:
            matched = overlaps == best
        else:
            matched = torch.zeros_like(overlaps, dtype=torch.bool).scatter_(1, best_prior, True)
        matched &= best >= self.min_pos_iou
        # Of few bytes, for there is one for every pair; no image has 32,768 objects.
        numbers = torch.arange(1, len(overlaps) + 1, dtype=torch.int16, device=overlaps.device)
        return (matched * numbers[:, None]).amax(dim=0).long()


@TASK_UTILS.register_module()
class IgnoreAwareAdapter(BaseAssigner):
    """Any assigner, with the background on ignored instances left out.

    What lies on an ignored instance is a prediction's box where the head gives one (``bboxes``, as
    RTMDet's does), otherwise its prior, a point counting as a pixel. The head must hand ignored
    instances to its assigner, which DETR's and its relatives do not.

    Args:
        assigner: config of the assigner.
        ignore_thr, ignore_group_of: as of :class:`IgnoreRule`.
    """

    def __init__(self, assigner: dict, ignore_thr: float = 0.5,
                 ignore_group_of: bool = True) -> None:
        self.assigner = TASK_UTILS.build(assigner)
        self.ignore_rule = IgnoreRule(ignore_thr, ignore_group_of)
        self._signature = inspect.signature(self.assigner.assign)

    def assign(self, *arguments: Any, **options: Any) -> AssignResult:
        """As the assigner, -1 being unused; see :class:`IgnoreAwareAssigner`.

        Args:
            arguments, options: the assigner's own, ``pred_instances`` and maybe
                ``gt_instances_ignore`` among them, in whatever order it has them.
        """
        call = self._signature.bind(*arguments, **options)
        ignored = call.arguments.pop('gt_instances_ignore', None)
        predictions = call.arguments['pred_instances']
        result = self.assigner.assign(**call.arguments)
        return self.ignore_rule.leave_out(result, _boxes(predictions), ignored)


def _boxes(predictions: InstanceData) -> Tensor:
    """(P, 4) boxes of predictions: their own, else their priors'."""
    boxes = get_box_tensor(predictions.bboxes if 'bboxes' in predictions else predictions.priors)
    if boxes.shape[1] == 4:
        return boxes
    return torch.cat([boxes[:, :2] - 0.5, boxes[:, :2] + 0.5], 1)
