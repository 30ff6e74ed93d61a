"""Regression targets of boxes, made without a copy from the host to the device."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor


@TASK_UTILS.register_module()
class ResidentDeltaXYWHBBoxCoder(DeltaXYWHBBoxCoder):
    """``DeltaXYWHBBoxCoder`` that gives the same and keeps its means and deviations on the device.

    The stock one makes two tensors of them for every image, and a GPU is waited for each time.

    Args:
        arguments, options: those of ``DeltaXYWHBBoxCoder``.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._kept: dict[torch.device, Tensor] = {}

    def encode(self, bboxes: Tensor, gt_bboxes: Tensor) -> Tensor:
        """(P, 4) shifts of centres, in sides, and logarithms of the sides' ratios, normalised.

        Args:
            bboxes: (P, 4) x1, y1, x2, y2 to start from.
            gt_bboxes: (P, 4) to reach. (Formulas: https://arxiv.org/abs/1311.2524, appendix C.)
        """
        (center, size), (goal, goal_size) = (
            ((low + high) * 0.5, high - low) for low, high in (
                get_box_tensor(boxes).float().split(2, dim=-1) for boxes in (bboxes, gt_bboxes)))
        deltas = torch.cat([(goal - center) / size, (goal_size / size).log()], dim=-1)
        means, deviations = self._normal(deltas.device)
        return deltas.sub_(means).div_(deviations)

    def _normal(self, device: torch.device) -> Tensor:
        if device not in self._kept:
            self._kept[device] = torch.tensor([self.means, self.stds], device=device)
        return self._kept[device]
