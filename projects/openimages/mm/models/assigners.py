"""Assigning proposals where the annotation is incomplete: ignored instances are not background.

MMDetection's ``MaxIoUAssigner`` ignores nothing by default, makes everything background in an image
that has only ignored instances, and, when told to ignore, also drops proposals that lie on a true
object inside an ignored one. The assigner here does what the challenge's scoring does (rule 6): a
proposal that matches a true object stays positive; one that would be background but lies on an
ignored instance is left out of the loss.
"""

from __future__ import annotations

import torch
from mmdet.models.task_modules.assigners import AssignResult, MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor


@TASK_UTILS.register_module()
class IgnoreAwareAssigner(MaxIoUAssigner):
    """``MaxIoUAssigner`` that leaves out the background on ignored instances.

    With ``ignored.group_of`` (which :class:`PackInstances` adds) the rules are those of the score:
    the part of the proposal inside a group-of box, or its IoU with a box without mask, is at least
    ``ignore_thr``. Without it (a transform has removed instances) all are taken as group-of.

    Args:
        ignore_thr: the threshold of both, in (0, 1].
        ignore_group_of: with False, proposals inside group-of boxes are background to the assigner,
            for a classification loss that knows which classes the group leaves open
            (``FederatedLoss``).
        options: the other arguments of ``MaxIoUAssigner``.
    """

    def __init__(self, *, ignore_thr: float = 0.5, ignore_group_of: bool = True,
                 ignore_iof_thr: float = -1, **options) -> None:
        if not 0 < ignore_thr <= 1:
            raise ValueError(f'ignore_thr must be in (0, 1], got {ignore_thr}')
        if ignore_iof_thr > 0:
            raise ValueError('set ignore_thr; ignore_iof_thr would also drop true positives')
        super().__init__(**options)
        self.ignore_thr = ignore_thr
        self.ignore_group_of = ignore_group_of

    def assign(self, pred_instances: InstanceData, gt_instances: InstanceData,
               gt_instances_ignore: InstanceData | None = None, **options) -> AssignResult:
        """Assign each of ``pred_instances.priors`` (P, 4): 0 background, n > 0 object, -1 unused.

        Args:
            gt_instances_ignore: ``bboxes`` (I, 4) and maybe ``group_of`` (I,) bool.
        """
        result = super().assign(pred_instances, gt_instances, None, **options)
        if gt_instances_ignore is None or not len(gt_instances_ignore):
            return result
        ignored = self._lies_on_ignored(pred_instances.priors, gt_instances_ignore)
        result.gt_inds[ignored & (result.gt_inds == 0)] = -1
        return result

    def _lies_on_ignored(self, priors: Tensor, ignored: InstanceData) -> Tensor:
        if not self.ignore_group_of:
            if 'group_of' not in ignored:
                raise ValueError('ignore_group_of=False needs group_of in the ignored instances')
            ignored = ignored[~ignored.group_of]
        iof = self.iou_calculator(priors, ignored.bboxes, mode='iof')
        if 'group_of' in ignored:
            iou = self.iou_calculator(priors, ignored.bboxes)
            iof = torch.where(ignored.group_of[None], iof, iou)
        return (iof >= self.ignore_thr).any(dim=1)
