"""A region proposal network that handles a batch at once: a GPU need not wait for its CPU.

MMDetection's ``RPNHead`` goes from image to image, and in each from level to level: some 430 small
operations an image in training, whose handing out takes longer than a fast GPU needs for them. It
numbers each image's anchors anew and shuffles all that are background, on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmcv.ops import nms
from mmdet.models.dense_heads import RPNHead
from mmdet.models.losses import CrossEntropyLoss, L1Loss, SmoothL1Loss
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.models.task_modules.samplers import RandomSampler
from mmdet.registry import MODELS
from mmdet.structures.bbox import get_box_tensor
from mmdet.utils import InstanceList, OptInstanceList
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from projects.openimages.mm.models.coders import ResidentDeltaXYWHBBoxCoder

_USUAL_CODERS = (DeltaXYWHBBoxCoder, ResidentDeltaXYWHBBoxCoder)
_MOST_SIZES = 16  # of which the anchors are kept; at 1333 x 800 they are 4 MB
_SPLIT_THRESHOLD = 10_000  # boxes; MMCV suppresses more level by level


class Anchors(NamedTuple):
    """The anchors of a batch's feature maps.

    Attributes:
        boxes: (A, 4), level after level, in pixels.
        corners: (A, 2) x and y of the upper left corner of an anchor's cell, in pixels.
        level_sizes: number of anchors a level.
        extent: height and width that the last row and column of cells begin at, the largest of all
            levels.
    """

    boxes: Tensor
    corners: Tensor
    level_sizes: list[int]
    extent: tuple[int, int]


class Drawn(NamedTuple):
    """Anchors drawn at random in each of B images.

    Attributes:
        index: (B, N) anchors, in random order.
        valid: (B, N) bool: False fills up where there are fewer.
    """

    index: Tensor
    valid: Tensor


def draw(keys: Tensor, among: Tensor, number: int) -> Drawn:
    """Draw at most ``number`` in each row, each with the same chance.

    Args:
        keys: (B, A) random numbers in [0, 1).
        among: (B, A) bool: what may be drawn.
    """
    largest, index = keys.masked_fill(~among, -1).topk(min(number, keys.shape[1]), dim=1)
    return Drawn(index, largest >= 0)


@MODELS.register_module()
class BatchRPNHead(RPNHead):
    """``RPNHead`` for a batch at once: the same weights, losses and proposals but for ties.

    Anchors are drawn with the same chances, but by other random numbers. Where a setting is not the
    usual one (an anchor must lie inside the image, other losses, targets of decoded boxes, another
    sampler, coder or suppression) the stock head's own way is taken.
    """

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self._anchors_of: dict[tuple, Anchors] = {}
        usual = (self.cls_out_channels == 1 and type(self.bbox_coder) in _USUAL_CODERS
                 and type(self.prior_generator) is AnchorGenerator
                 and not self.bbox_coder.use_box_type and not self.prior_generator.use_box_type)
        self._proposes = usual
        self._learns = (
            usual and bool(self.train_cfg) and not self.reg_decoded_bbox
            and self.train_cfg.allowed_border < 0
            and type(self.loss_bbox) in (L1Loss, SmoothL1Loss)
            and type(self.loss_cls) is CrossEntropyLoss and self.loss_cls.class_weight is None
            and type(self.sampler) is RandomSampler and self.sampler.neg_pos_ub < 0
            and not self.sampler.add_gt_as_proposals)

    def anchors(self, sizes: Sequence[tuple[int, int]], device: torch.device) -> Anchors:
        """Those of feature maps of (height, width) cells each, kept for the next batch."""
        key = (tuple(sizes), device)
        if key not in self._anchors_of:
            if len(self._anchors_of) == _MOST_SIZES:
                del self._anchors_of[next(iter(self._anchors_of))]
            self._anchors_of[key] = self._make_anchors(sizes, device)
        return self._anchors_of[key]

    def _make_anchors(self, sizes: Sequence[tuple[int, int]], device: torch.device) -> Anchors:
        corners, rows, columns = [], [], []
        for (height, width), (across, down) in zip(sizes, self.prior_generator.strides,
                                                   strict=True):
            x = torch.arange(width, device=device) * across
            y = torch.arange(height, device=device) * down
            cells = torch.stack(torch.meshgrid(x, y, indexing='xy'), dim=-1)
            corners.append(cells.view(-1, 1, 2).expand(-1, self.num_base_priors, 2).reshape(-1, 2))
            rows.append((height - 1) * down)
            columns.append((width - 1) * across)
        levels = self.prior_generator.grid_priors(sizes, device=device)
        return Anchors(torch.cat(levels), torch.cat(corners), [len(level) for level in levels],
                       (max(rows), max(columns)))

    # ------------------------------------------------------------------------------- training

    def loss_by_feat(self, cls_scores: list[Tensor], bbox_preds: list[Tensor],
                     batch_gt_instances: InstanceList, batch_img_metas: list[dict],
                     batch_gt_instances_ignore: OptInstanceList = None) -> dict:
        """As the base class's; a list of one loss in the place of one a level, the same in sum."""
        if not self._learns:
            return super().loss_by_feat(cls_scores, bbox_preds, batch_gt_instances,
                                        batch_img_metas, batch_gt_instances_ignore)
        anchors = self.anchors(_sizes(cls_scores), cls_scores[0].device)
        ignored = batch_gt_instances_ignore or [None] * len(batch_gt_instances)
        assigned = torch.stack([
            self._assign(anchors, objects, left_out, meta) for objects, left_out, meta in zip(
                batch_gt_instances, ignored, batch_img_metas, strict=True)])
        positive, negative = self._sample(assigned)
        index = torch.cat([positive.index, negative.index], 1)
        on_object = torch.zeros_like(index, dtype=torch.float)
        on_object[:, :positive.index.shape[1]] = 1
        weights = torch.cat([positive.valid, negative.valid], 1).float()
        if self.train_cfg.pos_weight > 0:
            weights = torch.where(on_object > 0, weights * self.train_cfg.pos_weight, weights)
        count = (positive.valid.sum(1).clamp(min=1) + negative.valid.sum(1).clamp(min=1)).sum()
        scores = torch.cat(_flat(cls_scores, 1), 1)[..., 0].gather(1, index)
        loss_cls = self.loss_cls(scores.flatten(), on_object.flatten(), weights.flatten(),
                                 avg_factor=count)
        deltas = torch.cat(_flat(bbox_preds, 4), 1).gather(
            1, positive.index[..., None].expand(-1, -1, 4)).flatten(0, 1)
        priors = anchors.boxes[positive.index]
        targets = self.bbox_coder.encode(
            priors.flatten(0, 1),
            _matched_boxes(priors, positive, assigned, batch_gt_instances).flatten(0, 1))
        # No weights: losses ask the device whether there are any.
        targets = torch.where(positive.valid.flatten()[:, None], targets, deltas.detach())
        loss_bbox = self.loss_bbox(deltas, targets, avg_factor=count)
        return {'loss_rpn_cls': [loss_cls], 'loss_rpn_bbox': [loss_bbox]}

    def _assign(self, anchors: Anchors, objects: InstanceData, ignored: InstanceData | None,
                meta: dict) -> Tensor:
        """(A,) 0 for background, n > 0 for the n-th object, -1 for unused."""
        boxes, height, width = anchors.boxes, *meta['pad_shape'][:2]
        padding = None
        if anchors.extent[0] >= height or anchors.extent[1] >= width:  # by larger images beside it
            padding = (anchors.corners[:, 0] >= width) | (anchors.corners[:, 1] >= height)
            boxes = boxes.masked_fill(padding[:, None], 0)  # overlaps nothing
        assigned = self.assigner.assign(InstanceData(priors=boxes), objects, ignored).gt_inds
        return assigned if padding is None else assigned.masked_fill(padding, -1)

    def _sample(self, assigned: Tensor) -> tuple[Drawn, Drawn]:
        """Positive and negative anchors, as ``RandomSampler`` draws them, of (B, A) assigned."""
        sampler = self.sampler
        keys = torch.rand(assigned.shape, device=assigned.device)
        positive = draw(keys, assigned > 0, int(sampler.num * sampler.pos_fraction))
        negative = draw(keys, assigned == 0, sampler.num)
        left = sampler.num - positive.valid.sum(1, keepdim=True)
        place = torch.arange(negative.valid.shape[1], device=assigned.device)
        return positive, Drawn(negative.index, negative.valid & (place < left))

    # ------------------------------------------------------------------------------- proposals

    def predict_by_feat(self, cls_scores: list[Tensor], bbox_preds: list[Tensor],
                        score_factors: list[Tensor] | None = None,
                        batch_img_metas: list[dict] | None = None, cfg: ConfigDict | None = None,
                        rescale: bool = False, with_nms: bool = True) -> InstanceList:
        """As the base class's."""
        config = self.test_cfg if cfg is None else cfg
        suppression = dict(config.nms or {'type': None})
        anchors = self.anchors(_sizes(cls_scores), cls_scores[0].device)
        most = config.get('nms_pre', -1)
        kept = [min(size, most) if most > 0 else size for size in anchors.level_sizes]
        if (not self._proposes or rescale or not with_nms
                or suppression.pop('type', 'nms') != 'nms'
                or suppression.pop('class_agnostic', False)
                or sum(kept) >= suppression.pop('split_thr', _SPLIT_THRESHOLD)):
            return super().predict_by_feat(cls_scores, bbox_preds, score_factors, batch_img_metas,
                                           cfg, rescale, with_nms)
        scores, deltas, priors = self._best(cls_scores, bbox_preds, anchors, kept)
        boxes = self.bbox_coder.decode(priors.flatten(0, 1), deltas.flatten(0, 1)).view_as(deltas)
        if self.bbox_coder.clip_border:
            for of_image, meta in zip(boxes, batch_img_metas, strict=True):
                of_image[:, 0::2].clamp_(0, meta['img_shape'][1])
                of_image[:, 1::2].clamp_(0, meta['img_shape'][0])
        level = torch.cat([boxes.new_full((size,), number) for number, size in enumerate(kept)])
        least = config.get('min_bbox_size', -1)
        large = (boxes[..., 2:] - boxes[..., :2] > least).all(-1)
        all_large = [True] * len(boxes)
        if least >= 0:
            all_large = large.all(1).tolist()
        # Levels are moved apart, and suppressed together, as MMCV's batched_nms does.
        apart = boxes.amax((1, 2)) + 1
        moved = boxes + (apart[:, None] * level)[..., None]
        proposals = []
        for number, whole in enumerate(all_large):
            parts = boxes[number], scores[number], moved[number]
            if not whole:
                parts = [part[large[number]] for part in parts]
            proposals.append(_suppress(*parts, suppression, config.max_per_img))
        return proposals

    def _best(self, cls_scores: list[Tensor], bbox_preds: list[Tensor], anchors: Anchors,
              kept: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (B, K), deltas and priors (B, K, 4) of the best anchors of each level."""
        found = []
        for logits, deltas, priors, count in zip(
                _flat(cls_scores, 1), _flat(bbox_preds, 4),
                anchors.boxes.split(anchors.level_sizes), kept, strict=True):
            scores, deltas = logits.detach()[..., 0].sigmoid(), deltas.detach()
            priors = priors.expand(len(scores), -1, -1)
            if count < scores.shape[1]:
                scores, index = scores.topk(count, dim=1)
                index = index[..., None].expand(-1, -1, 4)
                deltas, priors = deltas.gather(1, index), priors.gather(1, index)
            found.append((scores, deltas, priors))
        return tuple(torch.cat(parts, 1) for parts in zip(*found, strict=True))


def _sizes(maps: list[Tensor]) -> list[tuple[int, int]]:
    """Height and width of each level."""
    return [tuple(level.shape[-2:]) for level in maps]


def _flat(maps: list[Tensor], values: int) -> list[Tensor]:
    """(B, anchors of the level, values) of each (B, anchors of a cell · values, height, width)."""
    return [level.permute(0, 2, 3, 1).reshape(len(level), -1, values) for level in maps]


def _matched_boxes(priors: Tensor, positive: Drawn, assigned: Tensor,
                   objects: InstanceList) -> Tensor:
    """(B, N, 4) boxes of the objects that the drawn (B, N, 4) anchors are assigned to.

    Those of what only fills up mean nothing.
    """
    which = (assigned.gather(1, positive.index) - 1).clamp(min=0)
    return torch.stack([
        get_box_tensor(one.bboxes)[index] if len(one) else own
        for one, index, own in zip(objects, which, priors, strict=True)])


def _suppress(boxes: Tensor, scores: Tensor, moved: Tensor, options: dict,
              most: int) -> InstanceData:
    """The proposals of an image: at most ``most`` of (K, 4) boxes with (K,) scores."""
    found, kept = nms(moved, scores, **options)
    kept = kept[:most]
    return InstanceData(bboxes=boxes[kept], scores=found[:most, 4],
                        labels=scores.new_zeros(len(kept), dtype=torch.long))
