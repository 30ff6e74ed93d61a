"""Box and RoI heads that hand what is known of an image on to the classification loss.

MMDetection's RoI heads call their box head with sampled regions only. The RoI heads here collect
each image's evidence once a step, attach it to the sampling results, and leave instances without a
mask out of the mask loss; the box head makes regions of both for
:class:`~projects.openimages.mm.models.federated.losses.FederatedLoss`. At test, a box that is
detected as several classes has its mask made once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from projects.openimages.common.errors import ConfigError, check_number
from projects.openimages.mm.models.assigners import pair_overlaps
from projects.openimages.mm.models.federated.losses import (
    PRIOR_LOGIT,
    FederatedLoss,
    FederatedSoftmaxLoss,
)
from projects.openimages.mm.models.federated.targets import (
    COVERED,
    Hierarchy,
    ImageClasses,
    Regions,
)

_LEAST = 1e-6  # of a proposal's score: its logarithm is needed


@dataclass(frozen=True)
class Evidence:
    """What one image says of its classes and objects.

    Attributes:
        boxes, labels: (G, 4) and (G,) of its instances, those to learn from first.
        ignored: (G,) bool, those that are ignored though they are no group.
        group_boxes, group_labels: (K, 4) and (K,) of its group-of boxes.
        known, lost: (C,) bool as in :class:`ImageClasses`.
    """

    boxes: Tensor
    labels: Tensor
    ignored: Tensor
    group_boxes: Tensor
    group_labels: Tensor
    known: Tensor
    lost: Tensor

    def regions(self, result: SamplingResult) -> Regions:
        """What the sampled regions, positive ones first, lie on."""
        priors = result.priors
        background = result.pos_assigned_gt_inds.new_full((len(result.neg_priors),), -1)
        return Regions(
            torch.cat([result.pos_assigned_gt_inds, background]),
            pair_overlaps(priors, self.boxes), self.labels,
            pair_overlaps(priors, self.group_boxes, mode='iof') >= COVERED, self.group_labels,
            self.ignored)


def collect_evidence(samples: Sequence[DetDataSample], hierarchy: Hierarchy) -> list[Evidence]:
    """The evidence of a batch, from instances and the metainfo that ``PackInstances`` keeps.

    Args:
        samples: with ``gt_instances``, ``ignored_instances`` (``group_of`` tells the two kinds
            apart), ``verified_labels`` (L, 2) and ``boxed_labels`` (N,), the labels of all boxes of
            the image before any augmentation; without them, those of the boxes that are there.
        hierarchy: the classes'.
    """
    device = hierarchy.ancestors.device
    boxed, present, absent = [], [], []
    for sample in samples:
        verified = torch.as_tensor(sample.metainfo.get('verified_labels', ()), dtype=torch.long,
                                   device=device).reshape(-1, 2)
        present.append(verified[verified[:, 1] == 1, 0])
        absent.append(verified[verified[:, 1] == 0, 0])
        boxed.append(_boxed_labels(sample, device))
    classes = ImageClasses.collect(boxed, present, absent, hierarchy)
    return [Evidence(*_objects(sample), *_group_of(sample, device), classes.known[n],
                     classes.lost[n]) for n, sample in enumerate(samples)]


def _boxed_labels(sample: DetDataSample, device: torch.device) -> Tensor:
    there = [part.labels for part in (sample.gt_instances, sample.get('ignored_instances'))
             if part is not None]
    of_image = torch.as_tensor(sample.metainfo.get('boxed_labels', ()), dtype=torch.long,
                               device=device)
    return torch.cat([of_image, *there])


def _objects(sample: DetDataSample) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (G, 4), labels (G,) and which are ignored (G,) bool, of all but groups."""
    learnt, ignored = sample.gt_instances, sample.get('ignored_instances')
    is_ignored = torch.zeros_like(learnt.labels, dtype=torch.bool)
    if ignored is None or 'group_of' not in ignored:
        return learnt.bboxes, learnt.labels, is_ignored
    single = ignored[~ignored.group_of]
    return (torch.cat([learnt.bboxes, single.bboxes]), torch.cat([learnt.labels, single.labels]),
            torch.cat([is_ignored, torch.ones_like(single.labels, dtype=torch.bool)]))


def _group_of(sample: DetDataSample, device: torch.device) -> tuple[Tensor, Tensor]:
    ignored = sample.get('ignored_instances')
    if ignored is None or not len(ignored):
        return torch.zeros(0, 4, device=device), torch.zeros(0, dtype=torch.long, device=device)
    if 'group_of' in ignored:
        ignored = ignored[ignored.group_of]
    return ignored.bboxes, ignored.labels


@MODELS.register_module()
class FederatedBBoxHead(Shared2FCBBoxHead):
    """``Shared2FCBBoxHead`` whose classification is a :class:`FederatedLoss`.

    Args:
        loss_cls: config of a ``FederatedLoss`` or ``FederatedSoftmaxLoss``.
        objectness: the power of a proposal's own score by which the odds of its classes are
            multiplied at test; 0 leaves it out. Background is hardly learnt where nothing is
            known of a class, so the proposals' view of it is worth hearing. (Scores of proposal
            and class are combined with equal weights in https://arxiv.org/abs/2103.07461.)
        options: the other arguments of ``Shared2FCBBoxHead``.
    """

    def __init__(self, *, loss_cls: dict, objectness: float = 0.5, **options: Any) -> None:
        check_number('objectness', objectness, 0)
        super().__init__(loss_cls=loss_cls, **options)
        self.objectness = objectness
        self._proposal_scores: Sequence[Tensor] | None = None
        if not isinstance(self.loss_cls, FederatedLoss):
            raise ConfigError('FederatedBBoxHead needs loss_cls of type FederatedLoss, got '
                              f'{type(self.loss_cls).__name__}')

    def init_weights(self) -> None:
        """Start every class at about 0.01 where each has a sigmoid."""
        super().init_weights()
        if not isinstance(self.loss_cls, FederatedSoftmaxLoss):
            torch.nn.init.constant_(self.fc_cls.bias, PRIOR_LOGIT)

    @contextmanager
    def on_proposals(self, scores: Sequence[Tensor]) -> Iterator[None]:
        """Within, regions are those of proposals with these scores, (R,) 0 to 1 an image."""
        self._proposal_scores = scores
        try:
            yield
        finally:
            self._proposal_scores = None

    def predict_by_feat(self, rois: Sequence[Tensor], cls_scores: Sequence[Tensor],
                        *arguments: Any, **options: Any) -> list[InstanceData]:
        """As the stock head's, with the odds of classes multiplied by the objectness."""
        if self._proposal_scores is not None and self.objectness:
            cls_scores = [self._weighed(*pair) for pair in zip(
                cls_scores, self._proposal_scores, strict=True)]
        return super().predict_by_feat(rois, cls_scores, *arguments, **options)

    def _weighed(self, logits: Tensor, scores: Tensor) -> Tensor:
        """(R, C) or (R, C + 1) outputs, those of classes raised by the proposals' scores (R,)."""
        raised = self.objectness * scores.clamp(min=_LEAST)[:, None].log()
        return torch.cat([logits[:, :self.num_classes] + raised, logits[:, self.num_classes:]], 1)

    def loss_and_target(self, cls_score: Tensor, bbox_pred: Tensor, rois: Tensor,
                        sampling_results: list[SamplingResult], rcnn_train_cfg: Any,
                        concat: bool = True, reduction_override: str | None = None) -> dict:
        """As the stock head's; each sampling result has its image's ``evidence``."""
        targets = self.get_targets(sampling_results, rcnn_train_cfg, concat=concat)
        losses = self.loss(None, bbox_pred, rois, *targets, reduction_override=reduction_override)
        evidence = [result.evidence for result in sampling_results]
        losses['loss_cls'] = self.loss_cls(
            cls_score, [one.regions(result) for one, result in
                        zip(evidence, sampling_results, strict=True)],
            torch.stack([one.known for one in evidence]),
            torch.stack([one.lost for one in evidence]))
        on_object = targets[0] < self.num_classes
        losses.update(self.loss_cls.get_accuracy(cls_score, targets[0])
                      if on_object.any() else {})
        return {'loss_bbox': losses, 'bbox_targets': targets}


class _Federated:
    """What both RoI heads share; ``bbox_loss``'s last argument is the sampling results."""

    # Suppression and masks are the stock head's in effect, so views may be averaged before them.
    averages_views = True

    def loss(self, x: tuple[Tensor, ...], rpn_results_list: list[InstanceData],
             batch_data_samples: list[DetDataSample]) -> dict:
        """As the stock head's."""
        heads = (self.bbox_head if isinstance(self.bbox_head, torch.nn.ModuleList)
                 else [self.bbox_head])
        self._evidence = collect_evidence(batch_data_samples, heads[0].loss_cls.hierarchy)
        try:
            return super().loss(x, rpn_results_list, batch_data_samples)
        finally:
            self._evidence = None

    def bbox_loss(self, *arguments: Any) -> dict:
        """As the stock head's."""
        for result, evidence in zip(arguments[-1], self._evidence, strict=True):
            result.evidence = evidence
        return super().bbox_loss(*arguments)

    def predict_bbox(self, x: tuple[Tensor, ...], batch_img_metas: list[dict],
                     rpn_results_list: list[InstanceData], *arguments: Any,
                     **options: Any) -> list[InstanceData]:
        """As the stock head's, with the proposals' scores where they have any."""
        head = (self.bbox_head[-1] if isinstance(self.bbox_head, torch.nn.ModuleList)
                else self.bbox_head)
        scores = [result.get('scores') for result in rpn_results_list]
        known = all(one is not None for one in scores)  # not those of a file of boxes
        with head.on_proposals(scores) if known else nullcontext():
            return super().predict_bbox(x, batch_img_metas, rpn_results_list, *arguments,
                                        **options)

    def predict_mask(self, x: tuple[Tensor, ...], batch_img_metas: list[dict],
                     results_list: list[InstanceData],
                     rescale: bool = False) -> list[InstanceData]:
        """As the stock head's, with one mask a box where its classes share it.

        A region is detected as several classes, a class and its ancestors among them: on the
        hard world under a third of an image's detections differ in their box.
        """
        heads = self.mask_head if isinstance(self.mask_head, torch.nn.ModuleList) else [
            self.mask_head]
        if not all(head.class_agnostic for head in heads):
            return super().predict_mask(x, batch_img_metas, results_list, rescale)
        boxes, owners = [], []
        for results in results_list:
            unique, owner = torch.unique(results.bboxes, dim=0, return_inverse=True)
            boxes.append(InstanceData(bboxes=unique, labels=owner.new_zeros(len(unique))))
            owners.append(owner)
        boxes = super().predict_mask(x, batch_img_metas, boxes, rescale)
        for results, of_boxes, owner in zip(results_list, boxes, owners, strict=True):
            results.bboxes, results.masks = of_boxes.bboxes[owner], of_boxes.masks[owner]
        return results_list


@MODELS.register_module()
class FederatedRoIHead(_Federated, StandardRoIHead):
    """``StandardRoIHead`` for a :class:`FederatedBBoxHead`."""

    def mask_loss(self, x: tuple[Tensor, ...], sampling_results: list[SamplingResult],
                  bbox_feats: Tensor, batch_gt_instances: list[InstanceData]) -> dict:
        """As the stock head's, over the regions of instances that have a mask."""
        kept = with_masks(sampling_results, batch_gt_instances)
        if self.share_roi_extractor:  # their features are found by where they stand among all
            rows = [torch.cat([_have_mask(*one), torch.ones_like(one[0].neg_inds).bool()])
                    for one in zip(sampling_results, batch_gt_instances, strict=True)]
            bbox_feats = bbox_feats[torch.cat(rows)]
        return super().mask_loss(x, kept, bbox_feats, batch_gt_instances)


@MODELS.register_module()
class FederatedCascadeRoIHead(_Federated, CascadeRoIHead):
    """``CascadeRoIHead`` for stages of :class:`FederatedBBoxHead`."""

    def mask_loss(self, stage: int, x: tuple[Tensor, ...], sampling_results: list[SamplingResult],
                  batch_gt_instances: list[InstanceData]) -> dict:
        """As the stock head's, over the regions of instances that have a mask."""
        return super().mask_loss(stage, x, with_masks(sampling_results, batch_gt_instances),
                                 batch_gt_instances)


def with_masks(results: Sequence[SamplingResult],
               instances: Sequence[InstanceData]) -> list[SamplingResult]:
    """The sampling results without positive regions of instances that have no mask.

    Args:
        results: of B images.
        instances: theirs, with ``has_mask`` (G,) bool; without it all have one.
    """
    kept = []
    for result, of_image in zip(results, instances, strict=True):
        result = copy.copy(result)
        if 'has_mask' in of_image:
            use = _have_mask(result, of_image)
            for name in ('pos_inds', 'pos_priors', 'pos_is_gt', 'pos_assigned_gt_inds',
                         'pos_gt_labels', 'pos_gt_bboxes'):
                setattr(result, name, getattr(result, name)[use])
        kept.append(result)
    return kept


def _have_mask(result: SamplingResult, instances: InstanceData) -> Tensor:
    """(P,) bool: which positive regions are of an instance that has a mask."""
    of = result.pos_assigned_gt_inds
    return instances.has_mask[of] if 'has_mask' in instances else torch.ones_like(of).bool()
