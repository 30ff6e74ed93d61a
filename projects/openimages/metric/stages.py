"""The stages that detections go through (rules 4 to 6 of the challenge), many images side by side.

A key stands for an image and a class of it: instances and detections meet where keys are equal.
Detections come by key, and within a key in descending score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from projects.openimages.metric.overlaps import (
    MeasuredMasks,
    box_ioa,
    box_iou,
    mask_intersections,
    mask_ioa,
    mask_iou,
)
from projects.openimages.metric.records import FALSE, IGNORED, TRUE, GroundTruth


@dataclass(frozen=True)
class FoundBoxes:
    """Detections that are boxes, (N, 4) as in :class:`Detections`."""

    boxes: np.ndarray

    @property
    def extent(self) -> np.ndarray:
        """(N,) bool: where there is something inside."""
        return (self.boxes[:, 1::2] > self.boxes[:, ::2]).all(axis=1)

    def take(self, rows: np.ndarray) -> FoundBoxes:
        return FoundBoxes(self.boxes[rows])


@dataclass(frozen=True)
class Stage:
    """One pass of matching: each detection's best instance, and what taking it means.

    Attributes:
        met: (K,) int, the detections that have instances in it.
        best: (K,) int, which instance of the batch overlaps most.
        overlap: (K,) IoU or IoA with it.
        absorbs: True for group-of instances, which take any number of detections.
        counts: False where what is taken is ignored.
    """

    met: np.ndarray
    best: np.ndarray
    overlap: np.ndarray
    absorbs: bool
    counts: bool


@dataclass(frozen=True)
class _Pairs:
    """Detections, each with all instances of its image and class that are in a stage.

    Attributes:
        met: (K,) int, the detections that have any.
        starts, counts: (K,) int, where their pairs begin, and how many there are.
        detection, instance: (P,) int, the pairs.
    """

    met: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    detection: np.ndarray
    instance: np.ndarray

    @staticmethod
    def of(key: np.ndarray, instance_key: np.ndarray, instances: np.ndarray) -> _Pairs:
        """Pairs of the detections of (N,) ``key`` and some ``instances``, by their (M,) keys."""
        instances = instances[np.argsort(instance_key[instances], kind='stable')]
        first, last = (np.searchsorted(instance_key[instances], key, side)
                       for side in ('left', 'right'))
        met = np.flatnonzero(last > first)
        counts = (last - first)[met]
        starts = np.cumsum(counts) - counts
        within = np.arange(counts.sum()) - np.repeat(starts, counts)
        return _Pairs(met, starts, counts, np.repeat(met, counts),
                      instances[np.repeat(first[met], counts) + within])

    def best(self, overlaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(K,) instance with which each detection has most, the first such, and how much."""
        most = np.maximum.reduceat(overlaps, self.starts)
        reached = np.flatnonzero(~(overlaps < np.repeat(most, self.counts)))
        return self.instance[reached[np.searchsorted(reached, self.starts)]], most


def find_stages(truths: Sequence[GroundTruth], instance_key: np.ndarray, key: np.ndarray,
            found: MeasuredMasks | FoundBoxes) -> list[Stage]:
    """The stages of rules 4 to 6, those without instances left out.

    Args:
        truths: of the batch's images, and the (M,) ``instance_key`` of their instances.
        key: (N,) of the detections, ascending, and ``found``, the N of them.
    """
    boxes = np.concatenate([truth.boxes.reshape(-1, 4) for truth in truths])
    is_group = np.concatenate([truth.is_group_of for truth in truths]).astype(bool)
    GroundTruth.measure_together(truths)
    measured = [truth.measured for truth in truths if truth.measured is not None]
    has_mask = np.zeros(len(boxes), bool)
    if measured:
        masks = MeasuredMasks.concatenate(measured)
        has_mask = masks.areas > 0
    stages = []
    for with_mask, absorbs in product((True, False), (False, True)):
        pairs = _Pairs.of(key, instance_key,
                          np.flatnonzero((has_mask == with_mask) & (is_group == absorbs)))
        if not len(pairs.met):
            continue
        if with_mask:
            assert isinstance(found, MeasuredMasks)
            common, areas = _common_pixels(found, masks, pairs), found.areas[pairs.detection]
            overlaps = mask_ioa(common, areas) if absorbs else mask_iou(
                common, areas, masks.areas[pairs.instance])
        else:
            found_boxes = np.repeat(found.take(pairs.met).boxes, pairs.counts, axis=0)
            overlaps = (box_ioa if absorbs else box_iou)(found_boxes, boxes[pairs.instance])
        stages.append(Stage(pairs.met, *pairs.best(overlaps), absorbs,
                             counts=with_mask or not measured))
    return stages


def _common_pixels(found: MeasuredMasks, masks: MeasuredMasks, pairs: _Pairs) -> np.ndarray:
    """(P,) int64 pixels that the masks of each pair have in common."""
    common = np.zeros(len(pairs.detection), np.int64)
    first, last = found.spans[pairs.detection].T
    other_first, other_last = masks.spans[pairs.instance].T
    near = np.logical_or.reduceat((first < other_last) & (other_first < last), pairs.starts)
    near = np.flatnonzero(near)
    if not len(near):
        return common
    counts = pairs.counts[near]
    first = pairs.instance[pairs.starts[near]]  # the same for all of an image and class
    for block in np.split(np.arange(len(near)), np.flatnonzero(np.diff(first)) + 1):
        places = pairs.starts[near[block]][:, None] + np.arange(counts[block[0]])
        detections = pairs.detection[places[:, 0]]
        common[places] = mask_intersections(
            found.present(detections), masks.present(pairs.instance[places[0]]),
            found.areas[detections])
    return common


def decide(stages: Sequence[Stage], scores: np.ndarray,
            threshold: float) -> tuple[np.ndarray, ...]:
    """Send detections, by image and class and then in descending score, through the stages.

    Returns:
        (N,) outcome, instance of the batch that took it or -1, overlap, and whether it stands for a
        group-of instance.
    """
    outcome = np.full(len(scores), FALSE, np.int8)
    taken_by = np.full(len(scores), -1)
    overlap = np.zeros(len(scores), np.float32)
    stands_for_group = np.zeros(len(scores), bool)
    is_new = np.ones(len(scores), bool)
    for stage in stages:
        if not stage.absorbs:
            overlap[stage.met] = np.where(is_new[stage.met], stage.overlap, overlap[stage.met])
        is_new[stage.met] = False
        hits = np.flatnonzero((stage.overlap >= threshold) & (outcome[stage.met] == FALSE))
        # Of the detections whose best instance is the same, the first in descending score has it;
        # the others do not look for their second best. A group-of instance takes them all.
        claimed = hits[np.unique(stage.best[hits], return_index=True)[1]]
        taken = hits if stage.absorbs else claimed
        rows = stage.met[taken]
        outcome[rows] = TRUE if stage.counts and not stage.absorbs else IGNORED
        taken_by[rows], overlap[rows] = stage.best[taken], stage.overlap[taken]
        if stage.absorbs and stage.counts:
            best = stage.met[claimed]
            best = best[scores[best] > 0]  # a group whose best score is 0 counts for nothing
            outcome[best], stands_for_group[best] = TRUE, True
    return outcome, taken_by, overlap, stands_for_group


def scoring_order(key: np.ndarray, instance: np.ndarray, is_group: np.ndarray) -> np.ndarray:
    """The evaluator lists a class's detections in descending score, then its groups.

    Args:
        key: (N,) ascending.
        instance: (N,) that took it.
        is_group: (N,) bool, whether it stands for that instance, a group-of one.
    """
    if not is_group.any():
        return np.arange(len(key))
    return np.lexsort((np.where(is_group, instance, np.arange(len(key))), is_group, key))
