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

    @cached_property
    def measured(self) -> MeasuredMasks:
        """The masks with areas and tight boxes; without masks, only the boxes."""
        if self.masks is not None:
            return measure(self.masks)
        number = len(self.class_ids)
        boxes = np.asarray(self.boxes, np.float64).reshape(number, 4)
        return MeasuredMasks([None] * number, np.zeros(number, np.int64), boxes)


@dataclass(frozen=True)
class Matches:
    """What became of detections: flat arrays, one row a detection, in scoring order.

    Scoring order is by image, then class, then as the evaluator lists scores; ties in the final
    sort are broken by it, so filter rows as you like but do not reorder them.

    Attributes:
        image: (D,) int, the number given to :func:`match_image`.
        detection: (D,) int, row of the detection within its image.
        class_id: (D,) int.
        score: (D,) float64.
        outcome: (D,) int8: DROPPED, FALSE, TRUE or IGNORED.
        instance: (D,) int, row of the instance that took it within the image's ground truth, or -1.
        overlap: (D,) float64, IoU or IoA with that instance; for a false positive its best IoU
            with an instance of its class that has a mask (in box evaluation: a box).
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
    def concatenate(parts: Sequence[Matches]) -> Matches:
        """All rows of ``parts`` in the order given, which must be the order of images."""
        parts = parts or [_no_matches()]
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

    Args:
        truth: the image's ground truth.
        detections: the image's detections; with masks if the ground truth has masks.
        thresholds: IoU (and IoA) from which an instance takes a detection; 0.5 is official.
        image: a number that goes into the result.

    Returns:
        One :class:`Matches` a threshold.

    Raises:
        MaskError: malformed masks, or masks of different sizes.
    """
    found = detections.measured
    if truth.masks is not None:
        if detections.masks is None:
            raise ValueError('detections without masks against ground truth with masks')
        check_same_size([*truth.masks, *detections.masks])
    extent = found.boxes[:, 1::2] > found.boxes[:, ::2]
    verified = np.concatenate((truth.verified, truth.class_ids)).astype(np.int64)
    alive = extent.all(axis=1) & np.isin(detections.class_ids, verified)
    blocks: list[list[Matches]] = [[] for _ in thresholds]
    for class_id in np.unique(detections.class_ids[alive]).tolist():
        rows = np.flatnonzero(alive & (detections.class_ids == class_id))
        # The evaluator's own sort call: its order among equal scores is part of the result.
        rows = rows[np.argsort(detections.scores[rows])[::-1]]
        alive[rows[MAX_PER_CLASS:]] = False
        rows = rows[:MAX_PER_CLASS]
        stages = _stages(truth, found, class_id, rows)
        for block, threshold in zip(blocks, thresholds, strict=True):
            block.append(_match_class(stages, detections.scores, class_id, rows, image, threshold))
    dropped = _dropped(detections, np.flatnonzero(~alive), image)
    return [Matches.concatenate([*block, dropped]) for block in blocks]


def _stages(truth: GroundTruth, found: MeasuredMasks, class_id: int,
            rows: np.ndarray) -> list[_Stage]:
    """The passes for one class, in order: masks, group-of masks, boxes, group-of boxes."""
    instances = np.flatnonzero(truth.class_ids == class_id)
    has_mask = np.zeros(len(instances), bool)
    stages = []
    true_masks = truth.measured
    if true_masks is not None:
        has_mask = true_masks.areas[instances] > 0
        masked = instances[has_mask]
        if len(masked):
            areas = found.areas[rows]
            common = mask_intersections([found.rles[row] for row in rows],
                                        [true_masks.rles[row] for row in masked], areas)
            group = truth.is_group_of[masked]
            iou = mask_iou(common[:, ~group], areas, true_masks.areas[masked[~group]])
            stages = [_Stage(iou, masked[~group], absorbs=False, counts=True),
                      _Stage(mask_ioa(common[:, group], areas), masked[group], True, True)]
    boxed = instances[~has_mask]
    if len(boxed):
        group = truth.is_group_of[boxed]
        single, group = boxed[~group], boxed[group]
        boxes, counts = found.boxes[rows], true_masks is None
        stages += [_Stage(box_iou(boxes, truth.boxes[single]), single, False, counts),
                   _Stage(box_ioa(boxes, truth.boxes[group]), group, True, counts)]
    return [stage for stage in stages if len(stage.instances)]


def _match_class(stages: list[_Stage], scores: np.ndarray, class_id: int, rows: np.ndarray,
                 image: int, threshold: float) -> Matches:
    """Send the detections of one class, in descending score, through the stages."""
    outcome = np.full(len(rows), FALSE, np.int8)
    instance = np.full(len(rows), -1, np.int64)
    overlap = np.zeros(len(rows))
    groups = [np.zeros(0, np.int64)]
    for number, stage in enumerate(stages):
        best = np.argmax(stage.overlaps, axis=1)
        value = stage.overlaps[np.arange(len(rows)), best]
        if number == 0 and not stage.absorbs:
            overlap[:] = value
        hits = np.flatnonzero((value >= threshold) & (outcome == FALSE))
        if stage.absorbs:
            taken, chosen = _absorb(hits, best, scores[rows])
            outcome[taken] = IGNORED
            if stage.counts:
                outcome[chosen] = TRUE
                groups.append(chosen)
        else:
            taken = _claim(hits, best)
            outcome[taken] = TRUE if stage.counts else IGNORED
        instance[taken] = stage.instances[best[taken]]
        overlap[taken] = value[taken]
    order = _scoring_order(len(rows), np.concatenate(groups))
    return Matches(np.full(len(rows), image), rows[order], np.full(len(rows), class_id),
                   scores[rows[order]], outcome[order], instance[order], overlap[order])


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
    sizes = {tuple(mask['size']) for mask in masks if mask is not None}
    if len(sizes) > 1:
        (height, width), (other_height, other_width) = sorted(sizes)[:2]
        raise MaskError(f'masks of different sizes in one image: {width} x {height} and '
                        f'{other_width} x {other_height}')


def _dropped(detections: Detections, rows: np.ndarray, image: int) -> Matches:
    number = len(rows)
    return Matches(np.full(number, image), rows, np.asarray(detections.class_ids, np.int64)[rows],
                   np.asarray(detections.scores, np.float64)[rows],
                   np.full(number, DROPPED, np.int8), np.full(number, -1), np.zeros(number))


def _no_matches() -> Matches:
    none = Detections(np.zeros(0, np.int64), np.zeros(0))
    return _dropped(none, np.zeros(0, np.int64), 0)
