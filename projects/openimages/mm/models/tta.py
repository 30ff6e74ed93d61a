"""Test-time augmentation that averages what the views say before deciding, where it can.

MMDetection's ``DetTTAModel`` takes each view's finished boxes and suppresses once more; masks are
not merged at all. Here, as in the reference implementations of Mask R-CNN, the views share their
proposals: every view scores and refines every proposal, scores and boxes are averaged, suppressed
once, and every view then predicts the mask of each box that is left. Mask probabilities are
averaged on the map's own grid, flipped views turned back, and pasted once, so a mask's edge is
where the views together put it.

In: a batch as ``TestTimeAug`` and ``pseudo_collate`` give it. Out: data samples as without
augmentation.

Other detectors decide view by view, and :mod:`.merging_views` merges what they found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from mmcv.ops import batched_nms
from mmdet.models.layers import multiclass_nms
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi, bbox_flip
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel
from mmengine.structures import InstanceData
from torch import Tensor

from projects.openimages.mm.models.merging_views import merge_views
from projects.openimages.mm.structures.rle_masks import RleMasks


@dataclass
class _View:
    """A batch seen one way: features, and what is known of each image."""

    features: tuple[Tensor, ...]
    metas: list[dict]

    def from_original(self, boxes: Tensor, image: int) -> Tensor:
        """(N, 4) boxes of the original image to the view."""
        meta = self.metas[image]
        boxes = boxes * boxes.new_tensor(meta['scale_factor']).repeat(2)
        if meta.get('flip', False):
            boxes = bbox_flip(boxes, meta['img_shape'], meta['flip_direction'])
        return boxes

    def to_original(self, boxes: Tensor, image: int) -> Tensor:
        """(N, 4k) boxes of the view to the original image."""
        meta, shape = self.metas[image], boxes.shape
        boxes = boxes.reshape(-1, 4)
        if meta.get('flip', False):
            boxes = bbox_flip(boxes, meta['img_shape'], meta['flip_direction'])
        return (boxes / boxes.new_tensor(meta['scale_factor']).repeat(2)).view(shape)

    def turned_back(self, maps: Tensor, image: int) -> Tensor:
        """(N, m, m) mask maps, a flipped view's turned back."""
        meta = self.metas[image]
        if not meta.get('flip', False):
            return maps
        sides = {'horizontal': (2,), 'vertical': (1,), 'diagonal': (1, 2)}[meta['flip_direction']]
        return maps.flip(sides)


def shares_proposals(detector: torch.nn.Module) -> bool:
    """Whether a detector scores proposals and makes masks of them as Mask R-CNN does."""
    head = getattr(detector, 'roi_head', None)
    return (getattr(detector, 'with_rpn', False) and isinstance(head, StandardRoIHead)
            and (getattr(head, 'averages_views', False)
                 or all(getattr(type(head), name) is getattr(StandardRoIHead, name) for name in
                        ('predict_bbox', 'predict_mask', '_bbox_forward', '_mask_forward'))))


@MODELS.register_module()
class MaskAveragingTTA(BaseTTAModel):
    """Averages a two-stage detector's boxes, scores and mask maps over views.

    A detector whose RoI head is not that of Mask R-CNN has its views' detections merged instead.
    All thresholds are those of the detector's own ``test_cfg``.

    Args:
        module: a detector.
    """

    def __init__(self, module: Mapping | torch.nn.Module, data_preprocessor: Any = None) -> None:
        super().__init__(module, data_preprocessor)
        self._averages = shares_proposals(self.module)
        if not self._averages:
            print_log(f"{type(self.module).__name__}: its views' detections are merged, not "
                      'averaged before they are decided on', logger='current')

    @torch.no_grad()
    def test_step(self, data: Mapping[str, Sequence]) -> list[DetDataSample]:
        """Detections of a batch from all its views; ``data`` holds a list of views by key."""
        if not self._averages:
            return self._merge_views(data)
        samples: list[DetDataSample] = []
        views = []
        for number in range(len(data['inputs'])):
            batch = self.module.data_preprocessor(
                {key: value[number] for key, value in data.items()}, False)
            views.append(_View(self.module.extract_feat(batch['inputs']),
                               [sample.metainfo for sample in batch['data_samples']]))
            samples = samples or batch['data_samples']
        proposals = self._proposals(views, samples)
        for image, sample in enumerate(samples):
            sample.pred_instances = self._detect(views, image, *proposals[image])
        return samples

    def merge_preds(self, data_samples_list: Sequence[Sequence[DetDataSample]]
                    ) -> list[DetDataSample]:
        """Each image's detections from those of its views, where they have been decided on."""
        config = self.module.test_cfg
        config = config.get('rcnn', config)
        most = config.get('max_per_img', config.get('max_per_image'))
        return [merge_views(views, most) for views in data_samples_list]

    def _merge_views(self, data: Mapping[str, Sequence]) -> list[DetDataSample]:
        found = []
        for number in range(len(data['inputs'])):
            view = {key: value[number] for key, value in data.items()}
            flips = [{'flip': sample.metainfo.get('flip', False)} for sample in
                     view['data_samples']]
            for sample in view['data_samples']:  # a cascade would turn masks back itself, and fail
                sample.set_metainfo({'flip': False})
            found.append(self.module.test_step(view))
            for sample, flip in zip(found[-1], flips, strict=True):
                sample.set_metainfo(flip)
        return self.merge_preds(list(zip(*found, strict=True)))

    def _proposals(self, views: list[_View],
                   samples: list[DetDataSample]) -> list[tuple[Tensor, Tensor]]:
        """Each image's proposals from all views, (P, 4) in its original size, and (P,) scores."""
        config = self.module.test_cfg.rpn
        found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in samples]
        for view in views:
            of_view = [DetDataSample(metainfo=meta) for meta in view.metas]
            results = self.module.rpn_head.predict(view.features, of_view, rescale=False)
            for image, result in enumerate(results):
                found[image].append((view.to_original(result.bboxes, image), result.scores))
        merged = []
        for items in found:
            boxes, scores = (torch.cat(parts) for parts in zip(*items, strict=True))
            _, kept = batched_nms(boxes, scores, torch.zeros_like(scores, dtype=torch.long),
                                  config.nms)
            kept = kept[:config.max_per_img]
            merged.append((boxes[kept], scores[kept]))
        return merged

    def _detect(self, views: list[_View], image: int, proposals: Tensor,
                objectness: Tensor) -> InstanceData:
        boxes, scores, labels = self._boxes(views, image, proposals, objectness)
        result = InstanceData(bboxes=boxes, scores=scores, labels=labels)
        if self.module.roi_head.with_mask:
            self._add_masks(views, image, result)
        return result

    def _boxes(self, views: list[_View], image: int, proposals: Tensor,
               objectness: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 4) boxes in the original image, (N,) scores and (N,) labels."""
        head, config = self.module.roi_head, self.module.test_cfg.rcnn
        if not len(proposals):
            return proposals, proposals.new_zeros(0), proposals.new_zeros(0, dtype=torch.long)
        boxes, scores = [], []
        for view in views:
            rois = bbox2roi([view.from_original(proposals, image)])
            found = head._bbox_forward(self._features(view, image), rois)
            weighed = getattr(head.bbox_head, 'on_proposals', nullcontext)
            with weighed([objectness]):
                [raw] = head.bbox_head.predict_by_feat(  # no test_cfg: without suppression
                    (rois,), (found['cls_score'],), (found['bbox_pred'],), [view.metas[image]])
            boxes.append(view.to_original(raw.bboxes, image))
            scores.append(raw.scores)
        detections, labels = multiclass_nms(
            torch.stack(boxes).mean(0), torch.stack(scores).mean(0), config.score_thr, config.nms,
            config.max_per_img)
        return detections[:, :4], detections[:, 4], labels

    def _add_masks(self, views: list[_View], image: int, result: InstanceData) -> None:
        """Give ``result`` the masks that the detector's mask head makes of the averaged maps."""
        head, labels = self.module.roi_head, result.labels
        if not len(labels):
            result.masks = RleMasks.from_rles([], *views[0].metas[image]['ori_shape'][:2])
            return
        total: Tensor | float = 0.
        for view in views:
            rois = bbox2roi([view.from_original(result.bboxes, image)])
            maps = head._mask_forward(self._features(view, image), rois)['mask_preds']
            chosen = torch.zeros_like(labels) if head.mask_head.class_agnostic else labels
            own = maps[torch.arange(len(labels), device=labels.device), chosen].sigmoid()
            total = total + view.turned_back(own, image)
        # As a map for each class, as the head expects it; all but the own class are never read.
        maps = (total / len(views))[:, None].expand(-1, int(labels.max()) + 1, -1, -1)
        meta = {**views[0].metas[image], 'scale_factor': (1., 1.)}
        head.mask_head.predict_by_feat((maps,), [result], [meta], self.module.test_cfg.rcnn,
                                       rescale=True, activate_map=True)

    @staticmethod
    def _features(view: _View, image: int) -> tuple[Tensor, ...]:
        return tuple(level[image:image + 1] for level in view.features)
