"""Matching: what becomes of every detection of an image (rules 2 to 6 of the challenge).

In: one image's ground truth and detections. Out: :class:`Matches`, flat arrays with a row for each
detection. The rules are numbered in the package's docstring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from projects.openimages.masks import MaskError, Rle
from projects.openimages.metric.overlaps import (
    MeasuredMasks,
    box_intersections,
    box_ioa,
    box_iou,
    mask_intersections,
    mask_ioa,
    mask_iou,
    measure,
)

DROPPED = 0   # class not verified in the image, or nothing in the mask or box
FALSE = 1     # false positive
TRUE = 2      # true positive
IGNORED = 3   # taken by a box without mask, or absorbed beside a better one: neither true nor false

OFFICIAL_THRESHOLD = 0.5
MAX_PER_CLASS = 10_000  # the evaluator keeps no more detections of one class in one image


@dataclass(frozen=True)
class GroundTruth:
    """One image's ground truth, hierarchically expanded, in the evaluator's order.

    Attributes:
        class_ids: (M,) int.
        boxes: (M, 4) float64, ``XMin, XMax, YMin, YMax`` in 0..1.
        is_group_of: (M,) bool.
        verified: (V,) int, classes with an image label of either sign; the classes of the
            instances are verified without being listed.
        masks: M RLEs, None where an instance has only a box; None as a whole for box evaluation.
    """

    class_ids: np.ndarray
    boxes: np.ndarray
    is_group_of: np.ndarray
    verified: np.ndarray
    masks: Sequence[Rle | None] | None

    @cached_property
    def measured(self) -> MeasuredMasks | None:
        """The masks with areas and tight boxes; None for box evaluation."""
        return None if self.masks is None else measure(self.masks)


@dataclass(frozen=True)
class Detections:
    """One image's detections, in the order of the submission.

    Attributes:
        class_ids: (N,) int.
        scores: (N,) float64.
        masks: N RLEs (None counts as empty), or None for box evaluation.
        boxes: (N, 4) float64 as in :class:`GroundTruth`, read only when ``masks`` is None.
    """

    class_ids: np.ndarray
    scores: np.ndarray
    masks: Sequence[Rle | None] | None = None
    boxes: np.ndarray | None = None


@dataclass(frozen=True)
class Matches:
    """What became of detections: flat arrays, one row a detection, in scoring order.

    Scoring order is by image, then class, then as the evaluator lists scores; ties in the final
    sort are broken by it, so filter rows as you like but do not reorder them.

    Attributes:
        image: (D,) int32, the number given to :func:`match_image`.
        detection: (D,) int32, row of the detection within its image.
        class_id: (D,) int32.
        score: (D,) float64.
        outcome: (D,) int8: DROPPED, FALSE, TRUE or IGNORED.
        instance: (D,) int32, row of the instance that took it in the image's ground truth, or -1.
        overlap: (D,) float32, IoU or IoA with that instance; for a false positive its best IoU
            with an instance of its class, by masks if there are any with masks.
    """

    image: np.ndarray
    detection: np.ndarray
    class_id: np.ndarray
    score: np.ndarray
    outcome: np.ndarray
    instance: np.ndarray
    overlap: np.ndarray

    def __len__(self) -> int:
        return len(self.score)

    def select(self, rows: np.ndarray) -> Matches:
        """The given rows: (D,) bool, or ascending int.

        Dropping the lowest-scoring detections of an image (a score threshold, a cap) does not
        change how the others match: matching is greedy in descending score and a detection never
        looks at a later one. So one matching pass serves every threshold and cap, and
        ``score(matches.select(...))`` is the score of the smaller submission. Only where equal
        scores straddle the cut can the evaluator's unstable sort order the rest differently.
        """
        return Matches(*(getattr(self, field.name)[rows] for field in fields(self)))

    @staticmethod
    def empty() -> Matches:
        """No rows, of the types that all matches have."""
        kinds = (np.int32, np.int32, np.int32, np.float64, np.int8, np.int32, np.float32)
        return Matches(*(np.zeros(0, kind) for kind in kinds))

    @staticmethod
    def concatenate(parts: Sequence[Matches]) -> Matches:
        """All rows of ``parts`` in the order given, which must be the order of images."""
        parts = [Matches.empty(), *parts]
        return Matches(*(np.concatenate([getattr(part, field.name) for part in parts])
                         for field in fields(Matches)))


@dataclass(frozen=True)
class _Stage:
    """One pass of matching: against which instances, how, and whether it counts.

    Attributes:
        overlaps: (N, M) IoU or IoA of the class's detections, in descending score.
        instances: (M,) int, their rows in the image's ground truth.
        absorbs: True for group-of instances, which take any number of detections.
        counts: False where what is taken is ignored.
    """

    overlaps: np.ndarray
    instances: np.ndarray
    absorbs: bool
    counts: bool


def match_image(truth: GroundTruth, detections: Detections,
                thresholds: Sequence[float] = (OFFICIAL_THRESHOLD,), *,
                image: int = 0) -> list[Matches]:
    """Decide for every detection of an image whether it is true, false, ignored or dropped.

    Only masks of verified classes are looked at, so ``detections.masks`` may decode on access.

    Args:
        truth: the image's ground truth.
        detections: the image's detections; with masks if the ground truth has masks.
        thresholds: IoU (and IoA) from which an instance takes a detection; 0.5 is official.
        image: a number that goes into the result.

    Returns:
        One :class:`Matches` a threshold, each with a row for every detection.

    Raises:
        MaskError: malformed masks, or masks of different sizes.
    """
    scores = np.asarray(detections.scores, np.float64)
    class_ids = np.asarray(detections.class_ids, np.int64)
    verified = np.concatenate((truth.verified, truth.class_ids))
    rows = np.flatnonzero(np.isin(class_ids, verified))
    found = _found(truth, detections, rows)
    classes = [_Class(truth, found, members, scores[rows[members]], class_id)
               for class_id, members in _by_class(class_ids[rows], scores[rows], found.extent)]
    return [_match_classes(classes, rows, scores, class_ids, threshold, image)
            for threshold in thresholds]


@dataclass(frozen=True)
class _FoundBoxes:
    """Detections that are boxes, (N, 4) as in :class:`Detections`."""

    boxes: np.ndarray

    @property
    def extent(self) -> np.ndarray:
        """(N,) bool: where there is something inside."""
        return (self.boxes[:, 1::2] > self.boxes[:, ::2]).all(axis=1)

    def take(self, rows: np.ndarray) -> _FoundBoxes:
        return _FoundBoxes(self.boxes[rows])


def _found(truth: GroundTruth, detections: Detections,
           rows: np.ndarray) -> MeasuredMasks | _FoundBoxes:
    """Rule 3 for the detections in the given rows; without masks, their boxes as they are."""
    if detections.masks is None:
        if truth.masks is not None:
            raise ValueError('detections without masks against ground truth with masks')
        return _FoundBoxes(np.asarray(detections.boxes, np.float64).reshape(-1, 4)[rows])
    found = measure(detections.masks[row] for row in rows.tolist())
    check_same_size([*(truth.measured.rles if truth.measured else ()), *found.rles])
    return found


def _by_class(class_ids: np.ndarray, scores: np.ndarray,
              extent: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Each class with its detections in descending score, those without extent left out."""
    result = []
    for class_id in np.unique(class_ids[extent]).tolist():
        members = np.flatnonzero(extent & (class_ids == class_id))
        # The evaluator's own sort call: its order among equal scores is part of the result.
        members = members[np.argsort(scores[members])[::-1]]
        result.append((class_id, members[:MAX_PER_CLASS]))
    return result


class _Class:
    """One class of an image: its detections and the stages that they go through.

    Args:
        truth, found: the image's ground truth and measured detections.
        members: (N,) int rows of ``found``, in descending score.
        scores: (N,) their scores.
        class_id: the class.
    """

    def __init__(self, truth: GroundTruth, found: MeasuredMasks | _FoundBoxes,
                 members: np.ndarray, scores: np.ndarray, class_id: int) -> None:
        self.members = members
        self.scores = scores
        instances = np.flatnonzero(truth.class_ids == class_id)
        self.stages: list[_Stage] = []
        if not len(instances):
            return
        found = found.take(members)
        has_mask = np.zeros(len(instances), bool)
        if isinstance(found, MeasuredMasks) and truth.measured is not None:
            has_mask = truth.measured.areas[instances] > 0
            self._add_mask_stages(truth, truth.measured, found, instances[has_mask])
        self._add_box_stages(truth, found.boxes, instances[~has_mask])

    def _add_mask_stages(self, truth: GroundTruth, measured: MeasuredMasks, found: MeasuredMasks,
                         instances: np.ndarray) -> None:
        if not len(instances):
            return
        common = np.zeros((len(found.areas), len(instances)), np.int64)
        near = np.flatnonzero(box_intersections(
            found.boxes, measured.boxes[instances]).any(axis=1))
        common[near] = mask_intersections(found.present(near), measured.present(instances),
                                          found.areas[near])
        group = truth.is_group_of[instances]
        iou = mask_iou(common[:, ~group], found.areas, measured.areas[instances[~group]])
        self._add(iou, instances[~group], absorbs=False, counts=True)
        self._add(mask_ioa(common[:, group], found.areas), instances[group], absorbs=True,
                  counts=True)

    def _add_box_stages(self, truth: GroundTruth, boxes: np.ndarray,
                        instances: np.ndarray) -> None:
        group = truth.is_group_of[instances]
        single, group = instances[~group], instances[group]
        counts = truth.measured is None
        self._add(box_iou(boxes, truth.boxes[single]), single, absorbs=False, counts=counts)
        self._add(box_ioa(boxes, truth.boxes[group]), group, absorbs=True, counts=counts)

    def _add(self, overlaps: np.ndarray, instances: np.ndarray, absorbs: bool,
             counts: bool) -> None:
        if len(instances):
            self.stages.append(_Stage(overlaps, instances, absorbs, counts))


def _match_classes(classes: list[_Class], rows: np.ndarray, scores: np.ndarray,
                   class_ids: np.ndarray, threshold: float, image: int) -> Matches:
    """All classes of an image at one threshold; dropped detections are listed last."""
    outcome = np.full(len(scores), DROPPED, np.int8)
    instance = np.full(len(scores), -1, np.int32)
    overlap = np.zeros(len(scores), np.float32)
    order = []
    for one in classes:
        here = rows[one.members]
        outcome[here] = FALSE
        if one.stages:
            outcome[here], instance[here], overlap[here], groups = _match_class(one, threshold)
            here = here[_scoring_order(len(here), groups)]
        order.append(here)
    listed = np.concatenate([*order, np.flatnonzero(outcome == DROPPED)])
    return Matches(np.full(len(listed), image, np.int32), listed.astype(np.int32),
                   class_ids[listed].astype(np.int32), scores[listed], outcome[listed],
                   instance[listed], overlap[listed])


def _match_class(one: _Class, threshold: float) -> tuple[np.ndarray, ...]:
    """Send the detections of one class, in descending score, through its stages.

    Returns:
        (N,) outcome, instance and overlap, and (G,) int, which of them stand for a group-of
        instance, in the order of the instances.
    """
    number = len(one.members)
    outcome = np.full(number, FALSE, np.int8)
    instance = np.full(number, -1, np.int32)
    overlap = np.zeros(number, np.float32)
    groups = np.zeros(0, np.int64)
    for stage in one.stages:
        best = np.argmax(stage.overlaps, axis=1)
        value = stage.overlaps[np.arange(number), best]
        if stage is one.stages[0] and not stage.absorbs:
            overlap[:] = value
        hits = np.flatnonzero((value >= threshold) & (outcome == FALSE))
        if stage.absorbs:
            taken, chosen = _absorb(hits, best, one.scores)
            outcome[taken] = IGNORED
            if stage.counts:
                outcome[chosen] = TRUE
                groups = chosen
        else:
            taken = _claim(hits, best)
            outcome[taken] = TRUE if stage.counts else IGNORED
        instance[taken] = stage.instances[best[taken]]
        overlap[taken] = value[taken]
    return outcome, instance, overlap, groups


def _claim(hits: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Rule 4: of the detections whose best instance is the same, only the first has it.

    The others stay unmatched; they do not look for their second best.

    Args:
        hits: (H,) rows in descending score that reach the threshold.
        best: (N,) the best instance of every row.

    Returns:
        The rows that have taken an instance.
    """
    _, first = np.unique(best[hits], return_index=True)
    return hits[first]


def _absorb(hits: np.ndarray, best: np.ndarray,
            scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rule 5: a group-of instance takes all of them; the best one stands for it.

    A group whose best score is 0 counts for nothing.

    Returns:
        The rows taken, and the rows that count as true positives, in the order of the instances.
    """
    chosen = _claim(hits, best)
    return hits, chosen[scores[chosen] > 0]


def _scoring_order(length: int, groups: np.ndarray) -> np.ndarray:
    """The evaluator lists a class's detections in descending score, then its groups."""
    if not len(groups):
        return np.arange(length)
    return np.append(np.delete(np.arange(length), groups), groups)


def check_same_size(masks: Sequence[Rle | None]) -> None:
    """Raise a MaskError unless all masks of an image have one size."""
    sizes = [mask['size'] for mask in masks if mask is not None]
    if sizes and sizes.count(sizes[0]) < len(sizes):
        (height, width), (other_height, other_width) = sorted(set(map(tuple, sizes)))[:2]
        raise MaskError(f'masks of different sizes in one image: {width} x {height} and '
                        f'{other_width} x {other_height}')
