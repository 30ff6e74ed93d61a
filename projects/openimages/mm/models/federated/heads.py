"""Box and RoI heads that hand what is known of an image on to the classification loss.

MMDetection's RoI heads call their box head with sampled regions only. The RoI heads here collect
a batch's evidence once a step, attach it to the sampling results, and leave instances without a
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

import numpy as np
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
    """What the B images of a batch say of their classes and objects.

    Attributes:
        starts: B places at which the images' instances begin, each image's to learn from first.
        boxes, labels: (G, 4) and (G,) of all instances.
        images: (G,) int64, whose they are.
        ignored, group_of: (G,) bool, those that are not to learn from, and those that are groups.
        known, lost: (B, C) bool as in :class:`ImageClasses`.
    """

    starts: Sequence[int]
    boxes: Tensor
    labels: Tensor
    images: Tensor
    ignored: Tensor
    group_of: Tensor
    known: Tensor
    lost: Tensor

    def regions(self, results: Sequence[SamplingResult]) -> tuple[Regions, Tensor]:
        """What the regions lie on, an image's positive ones first, and the images they are of.

        Returns:
            ``regions`` of all R, in which every instance counts as one and as a group, but
            overlaps as what it is alone; and (R,) int64.
        """
        sizes = [len(one.pos_priors) + len(one.neg_priors) for one in results]
        images = _sent(np.repeat(np.arange(len(results)), sizes), self.boxes.device)
        priors, matched = [], []
        for one, start in zip(results, self.starts, strict=True):
            assigned = one.pos_assigned_gt_inds
            priors += [one.pos_priors, one.neg_priors]
            matched += [assigned + start, assigned.new_full((len(one.neg_priors),), -1)]
        priors = torch.cat(priors)
        here = images[:, None] == self.images
        overlaps = pair_overlaps(priors, self.boxes) * (here & ~self.group_of)
        covered = pair_overlaps(priors, self.boxes, mode='iof') >= COVERED
        return Regions(torch.cat(matched), overlaps, self.labels, covered & here & self.group_of,
                       self.labels, self.ignored), images


def collect_evidence(samples: Sequence[DetDataSample], hierarchy: Hierarchy) -> Evidence:
    """The evidence of a batch, from instances and the metainfo that ``PackInstances`` keeps.

    A GPU is asked nothing: what is on the host stays there until it can be sent at once.

    Args:
        samples: with ``gt_instances``, ``ignored_instances`` (``group_of`` tells the two kinds
            apart; without it all are groups), ``verified_labels`` (L, 2) and ``boxed_labels`` (N,),
            the labels of all boxes of the image before any augmentation; without them, those of the
            boxes that are there.
        hierarchy: the classes'.
    """
    device = hierarchy.ancestors.device
    said = np.zeros((3, len(samples), len(hierarchy.ancestors)), bool)
    starts, parts, images, ignored, group_of = [], [], [], [], []
    for n, sample in enumerate(samples):
        labels, present = np.asarray(
            sample.metainfo.get('verified_labels', ()), np.int64).reshape(-1, 2).T
        said[0, n, np.asarray(sample.metainfo.get('boxed_labels', ()), np.int64)] = True
        said[1, n, labels[present == 1]] = True
        said[2, n, labels[present == 0]] = True
        starts.append(len(images))
        for part, is_ignored in ((sample.gt_instances, False),
                                 (sample.get('ignored_instances'), True)):
            if part is None:
                continue
            parts.append(part)
            images += [n] * len(part)
            ignored += [is_ignored] * len(part)
            group_of.append(part.group_of if is_ignored and 'group_of' in part else
                            torch.full_like(part.labels, is_ignored, dtype=torch.bool))
    boxed, present, absent = _sent(said, device)
    images, labels = _sent(np.array(images, np.int64), device), torch.cat(
        [part.labels for part in parts])
    boxed[images, labels] = True
    classes = ImageClasses.collect(boxed, present, absent, hierarchy)
    return Evidence(starts, torch.cat([part.bboxes for part in parts]), labels, images,
                    _sent(np.array(ignored, bool), device), torch.cat(group_of), classes.known,
                    classes.lost)


def _sent(values: np.ndarray, device: torch.device) -> Tensor:
    """The values there; the host goes on meanwhile, for CUDA keeps a copy of what is not pinned."""
    return torch.from_numpy(values).to(device, non_blocking=True)


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
        """As the stock head's; the sampling results have their batch's ``evidence``."""
        targets = self.get_targets(sampling_results, rcnn_train_cfg, concat=concat)
        losses = self.loss(None, bbox_pred, rois, *targets, reduction_override=reduction_override)
        evidence = sampling_results[0].evidence
        regions, images = evidence.regions(sampling_results)
        losses['loss_cls'] = self.loss_cls(cls_score, regions, evidence.known[images],
                                           evidence.lost[images])
        if any(len(result.pos_priors) for result in sampling_results):
            losses.update(self.loss_cls.get_accuracy(cls_score, targets[0]))
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
        for result in arguments[-1]:
            result.evidence = self._evidence
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
        flags = have_mask(sampling_results, batch_gt_instances)
        if self.share_roi_extractor:  # their features are found by where they stand among all
            rows = [torch.cat([of_image, torch.ones(len(result.neg_priors), dtype=torch.bool)])
                    for of_image, result in zip(flags, sampling_results, strict=True)]
            bbox_feats = bbox_feats[_sent(np.flatnonzero(torch.cat(rows)), bbox_feats.device)]
        return super().mask_loss(x, with_masks(sampling_results, flags), bbox_feats,
                                 batch_gt_instances)


@MODELS.register_module()
class FederatedCascadeRoIHead(_Federated, CascadeRoIHead):
    """``CascadeRoIHead`` for stages of :class:`FederatedBBoxHead`."""

    def mask_loss(self, stage: int, x: tuple[Tensor, ...], sampling_results: list[SamplingResult],
                  batch_gt_instances: list[InstanceData]) -> dict:
        """As the stock head's, over the regions of instances that have a mask."""
        flags = have_mask(sampling_results, batch_gt_instances)
        return super().mask_loss(stage, x, with_masks(sampling_results, flags), batch_gt_instances)


def have_mask(results: Sequence[SamplingResult],
              instances: Sequence[InstanceData]) -> list[Tensor]:
    """Which positive regions are of an instance that has a mask, (P,) bool of each image.

    On the host, for which a GPU is asked once a batch.

    Args:
        results: of B images.
        instances: theirs, with ``has_mask`` (G,) bool; without it all have one.
    """
    flags = [of_image.has_mask[result.pos_assigned_gt_inds] if 'has_mask' in of_image
             else torch.ones_like(result.pos_assigned_gt_inds, dtype=torch.bool)
             for result, of_image in zip(results, instances, strict=True)]
    return list(torch.cat(flags).cpu().split([len(of_image) for of_image in flags]))


def with_masks(results: Sequence[SamplingResult], flags: Sequence[Tensor]) -> list[SamplingResult]:
    """The sampling results without positive regions whose flags, by :func:`have_mask`, are off."""
    rows = [np.flatnonzero(of_image) for of_image in flags]
    sent = _sent(np.concatenate(rows), results[0].pos_priors.device)
    kept = []
    for result, use in zip(results, sent.split([len(part) for part in rows]), strict=True):
        result = copy.copy(result)
        for name in ('pos_inds', 'pos_priors', 'pos_is_gt', 'pos_assigned_gt_inds',
                     'pos_gt_labels', 'pos_gt_bboxes'):
            setattr(result, name, getattr(result, name)[use])
        kept.append(result)
    return kept
