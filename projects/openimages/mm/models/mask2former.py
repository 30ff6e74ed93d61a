"""Mask2Former that does not learn background from ignored instances.

Its queries are matched to objects by masks and classes; those without an object learn "no object".
MMDetection hands its head no ignored instances, so a query that rightly finds an object without a
mask would be taught that nothing is there.
"""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from projects.openimages.mm.models.assigners import IgnoreRule


@MODELS.register_module()
class IgnoreAwareMask2FormerHead(Mask2FormerHead):
    """``Mask2FormerHead`` whose unmatched queries on ignored instances have no say.

    Such a query's mask has its box on an ignored instance as in :class:`IgnoreRule`; the weight of
    its classification loss is then 0. (The loss is still divided by the weights of all queries.)

    Args:
        ignore_thr: as of :class:`IgnoreRule`.
        options: those of ``Mask2FormerHead``.
    """

    respects_ignored = True

    def __init__(self, *, ignore_thr: float = 0.5, **options: Any) -> None:
        super().__init__(**options)
        self.ignore_rule = IgnoreRule(ignore_thr)

    def loss(self, x: tuple[Tensor, ...], batch_data_samples: list[DetDataSample]) -> dict:
        """As the stock head's, which hands on of each sample its objects and its metainfo only."""
        for sample in batch_data_samples:
            ignored = sample.get('ignored_instances')
            if ignored is not None and len(ignored):
                kept = {key: ignored[key] for key in ('bboxes', 'group_of') if key in ignored}
                sample.set_metainfo({'ignored': InstanceData(**kept)})
        return super().loss(x, batch_data_samples)

    def _get_targets_single(self, cls_score: Tensor, mask_pred: Tensor,
                            gt_instances: InstanceData, img_meta: dict) -> tuple:
        targets = super()._get_targets_single(cls_score, mask_pred, gt_instances, img_meta)
        labels, label_weights = targets[:2]
        if 'ignored' in img_meta:
            height, width = img_meta['batch_input_shape']
            rows, columns = mask_pred.shape[-2:]
            scale = mask_pred.new_tensor([width / columns, height / rows]).repeat(2)
            boxes = mask_boxes(mask_pred > 0) * scale
            on_ignored = self.ignore_rule.lies_on(boxes, img_meta['ignored'])
            label_weights = torch.where(on_ignored & (labels == self.num_classes), 0.,
                                        label_weights.float())
        return (labels, label_weights, *targets[2:])


def mask_boxes(masks: Tensor) -> Tensor:
    """(Q, 4) int64 tight x1, y1, x2, y2 of (Q, H, W) bool, zeros for an empty mask.

    MMDetection's ``mask2bbox`` asks the device about one mask after the other.
    """
    first, last = [], []
    for line in (masks.any(1), masks.any(2)):
        first.append(line.int().argmax(1))
        last.append((line.shape[1] - line.flip(1).int().argmax(1)) * line.any(1))
    return torch.stack([*first, *last], 1)
