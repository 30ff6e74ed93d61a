"""Heads for HTC: masks as run lengths, and steps in which no region is left to learn from."""

from __future__ import annotations

from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmdet.models.roi_heads.mask_heads import HTCMaskHead
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.registry import MODELS
from mmengine.structures import InstanceData

from projects.openimages.mm.models.mask_head import BoxMaskHead


@MODELS.register_module()
class BoxHTCMaskHead(BoxMaskHead, HTCMaskHead):
    """``HTCMaskHead`` that gives ``results.masks`` as :class:`BoxMaskHead` does."""


@MODELS.register_module()
class HTCBBoxHead(Shared2FCBBoxHead):
    """``Shared2FCBBoxHead`` that refines no boxes to no boxes.

    A batch in which everything lies on ignored instances has no region at all. The stock head then
    gives None, which ``CascadeRoIHead`` knows and HTC's RoI head fails on.
    """

    def refine_bboxes(self, sampling_results: list[SamplingResult], bbox_results: dict,
                      batch_img_metas: list[dict]) -> list[InstanceData]:
        """As the stock head's, one for each image."""
        refined = super().refine_bboxes(sampling_results, bbox_results, batch_img_metas)
        if refined is None:
            none = bbox_results['rois'].new_zeros(0, 4)
            return [InstanceData(bboxes=none) for _ in batch_img_metas]
        return refined
