"""What goes into matching and what comes out: ground truth, detections, matches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from projects.openimages.masks import Rle
from projects.openimages.metric.overlaps import (
    MeasuredMasks,
    measure,
    measure_images,
    read_masks,
)

DROPPED = 0   # class not verified in the image, or nothing in the mask or box
FALSE = 1     # false positive
TRUE = 2      # true positive
IGNORED = 3   # taken by a box without mask, or absorbed beside a better one: neither true nor false


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

    @staticmethod
    def measure_together(truths: Iterable[GroundTruth]) -> None:
        """Fill ``measured`` of many images at once, which takes little more than for one."""
        missing = [(truth, read_masks(truth.masks)) for truth in truths
                   if truth.masks is not None and 'measured' not in vars(truth)]
        for (truth, _), measured in zip(missing, measure_images([masks for _, masks in missing]),
                                        strict=True):
            vars(truth)['measured'] = measured  # where cached_property looks for it


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
