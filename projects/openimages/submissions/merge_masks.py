"""Several models' masks of one class in one image into one set, on mask IoU.

In: masks, their scores and which model each is from. Out: :class:`Merged` masks and scores. Whole
files are merged in :mod:`merge_submissions`. Libraries that merge detections (``ensemble-boxes``
and its like) merge boxes; masks of two models differ where boxes agree, so overlaps here are of
masks, and masks are fused on their run lengths.

Scores are first multiplied by the model's weight over the largest weight. Then, in each class:

- ``nms``: best first, a detection that overlaps a kept one by ``iou_thr`` or more is left out;
- ``soft-nms``: best first, the others' scores are multiplied by exp(-IoU^2 / sigma) (Bodla et al.,
  https://arxiv.org/abs/1704.04503);
- ``wbf``: best first, each detection joins the group whose best one it overlaps most, from
  ``iou_thr`` on, or starts its own. A group's mask holds the pixels that members with half of the
  summed scores have; its score is the weighted mean over all models of each one's best, a model
  that has none counting 0 (weighted boxes fusion, https://arxiv.org/abs/1910.13302, with masks);
- ``vote``: groups as for ``wbf``, but each model has one vote of its weight: a group stays if
  models with at least half of the weights are in it, its mask holds the pixels with half of the
  members' votes, and its score is the weighted mean over the models in it.

Equal scores keep the order of the files and rows, so the result does not depend on chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from projects.openimages.common.errors import UserError
from projects.openimages.masks import Rle, decompress_many, iou, rle_from_edges


@dataclass(frozen=True)
class Merged:
    """Detections of one class: masks, and scores (N,) float64."""

    masks: list[Rle]
    scores: np.ndarray


@dataclass(frozen=True)
class MergeOptions:
    """How to merge.

    Attributes:
        method: one of :data:`METHODS`.
        weights: one a model, above 0.
        iou_thr: from which two masks are taken for one object.
        sigma: of soft-nms, above 0; smaller is stricter.

    Raises:
        UserError: an option outside its range.
    """

    method: str
    weights: tuple[float, ...]
    iou_thr: float = 0.5
    sigma: float = 0.5

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UserError(f'method {self.method!r}, expected one of {", ".join(METHODS)}')
        if not all(weight > 0 for weight in self.weights) or not math.isfinite(sum(self.weights)):
            raise UserError(f'weights {" ".join(map(str, self.weights))}, expected finite numbers '
                            'above 0')
        if not 0 < self.iou_thr <= 1:
            raise UserError(f'IoU threshold {self.iou_thr}, expected above 0 and at most 1')
        if not 0 < self.sigma < math.inf:
            raise UserError(f'sigma {self.sigma}, expected a finite number above 0')


def merge_class(masks: Sequence[Rle], scores: np.ndarray, models: np.ndarray,
                options: MergeOptions) -> Merged:
    """Merge one image's detections of one class.

    Args:
        masks: N masks of one image size.
        scores: (N,) as the models gave them.
        models: (N,) int, which model each is from.
        options: how.
    """
    weights = np.asarray(options.weights)
    weighted = np.asarray(scores, np.float64) * weights[models] / weights.max()
    order = np.argsort(-weighted, kind='stable')
    masks = [masks[n] for n in order]
    group = METHODS[options.method]
    return group(_Class(masks, np.asarray(scores, np.float64)[order], weighted[order],
                        np.asarray(models)[order], iou(masks, masks), weights), options)


@dataclass(frozen=True)
class _Class:
    """Detections of one class by descending weighted score, and (N, N) overlaps."""

    masks: list[Rle]
    scores: np.ndarray
    weighted: np.ndarray
    models: np.ndarray
    overlaps: np.ndarray
    weights: np.ndarray


def _nms(one: _Class, options: MergeOptions) -> Merged:
    kept: list[int] = []
    for n in range(len(one.masks)):
        if not (one.overlaps[n, kept] >= options.iou_thr).any():
            kept.append(n)
    return Merged([one.masks[n] for n in kept], one.weighted[kept])


def _soft_nms(one: _Class, options: MergeOptions) -> Merged:
    scores = one.weighted.copy()
    left = np.ones(len(scores), bool)
    kept: list[int] = []
    while left.any():
        best = int(np.where(left, scores, -1).argmax())
        left[best] = False
        kept.append(best)
        scores[left] *= np.exp(-one.overlaps[best, left] ** 2 / options.sigma)
    return Merged([one.masks[n] for n in kept], scores[kept])


def _groups(one: _Class, iou_thr: float) -> list[list[int]]:
    groups: list[list[int]] = []
    for n in range(len(one.masks)):
        overlaps = one.overlaps[n, [group[0] for group in groups]]
        if len(overlaps) and overlaps.max() >= iou_thr:
            groups[int(overlaps.argmax())].append(n)
        else:
            groups.append([n])
    return groups


def _best_by_model(one: _Class, group: list[int]) -> dict[int, float]:
    best: dict[int, float] = {}
    for n in group:  # by descending weighted score, so a model's first is its best
        best.setdefault(int(one.models[n]), float(one.scores[n]))
    return best


def _wbf(one: _Class, options: MergeOptions) -> Merged:
    masks, scores = [], []
    for group in _groups(one, options.iou_thr):
        masks.append(fuse([one.masks[n] for n in group], one.weighted[group]))
        best = _best_by_model(one, group)
        scores.append(sum(one.weights[model] * score for model, score in best.items())
                      / one.weights.sum())
    return Merged(masks, np.array(scores))


def _vote(one: _Class, options: MergeOptions) -> Merged:
    masks, scores = [], []
    for group in _groups(one, options.iou_thr):
        best = _best_by_model(one, group)
        votes = sum(one.weights[model] for model in best)
        if 2 * votes < one.weights.sum():
            continue
        of_model = np.bincount(one.models[group], minlength=len(one.weights))
        masks.append(fuse([one.masks[n] for n in group],
                          (one.weights / np.maximum(of_model, 1))[one.models[group]]))
        scores.append(sum(one.weights[model] * score for model, score in best.items()) / votes)
    return Merged(masks, np.array(scores))


METHODS: dict[str, Callable[[_Class, MergeOptions], Merged]] = {
    'nms': _nms, 'soft-nms': _soft_nms, 'wbf': _wbf, 'vote': _vote}


def fuse(masks: Sequence[Rle], weights: np.ndarray) -> Rle:
    """The pixels that masks with at least half of the summed weights have.

    Only the places where runs begin and end are looked at: sorted, each adding or taking away its
    mask's weight, the running sum is the weight of the masks that hold the pixels from there on.

    Args:
        masks: N of one image size.
        weights: (N,) float, not negative.
    """
    if len(masks) == 1:
        return masks[0]
    if not np.any(weights):
        weights = np.ones(len(masks))
    height, width = masks[0]['size']
    runs, offsets = decompress_many([mask['counts'] for mask in masks])
    places, changes = [], []
    for weight, (start, end) in zip(weights, pairwise(offsets), strict=True):
        edges = np.cumsum(runs[start:end])
        places.append(edges[:len(edges) // 2 * 2])  # a last run of zeros ends the image, no run
        changes.append(np.resize([weight, -weight], len(places[-1])))
    place, change = np.concatenate(places), np.concatenate(changes)
    order = np.argsort(place, kind='stable')
    place, total = place[order], np.cumsum(change[order])
    last = np.flatnonzero(np.diff(place, append=-1))  # what holds after all changes at a place
    inside = total[last] >= np.sum(weights) * (0.5 - 1e-9)
    turns = np.flatnonzero(np.diff(inside, prepend=False))
    return rle_from_edges(place[last][turns], height, width)
