"""Why a false detection is false, by the challenge's own overlaps and its hierarchy.

In: the matches of one image, its ground truth and measured detections. Out: a :class:`Cause` for
every detection, and the instance that it is about. Whether a detection is true, false, ignored or
dropped is the metric's word. A false one is, in this order:

1. duplicate: it lies on an instance of its class (IoU from 0.5) that another one has taken;
2. wrong class: it lies on an instance of another class, which is so verified in the image as well;
   by the hierarchy that class is a sibling, an ancestor or descendant (``RELATIVE``), or neither;
3. poor mask: IoU from 0.1 to below 0.5 with an instance mask of its class;
4. background: none of these.

Where an instance has only a box, boxes are compared, as in rule 6 of the challenge. A group-of
instance makes no wrong class: half the image may lie in it. The kinds are
TIDE's (https://arxiv.org/abs/2008.08115), but for the order: a detection that lies on an instance
of another class is of the wrong class also where it touches one of its own.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from projects.openimages.labels import LabelSpace
from projects.openimages.metric import (
    DROPPED,
    FALSE,
    IGNORED,
    OFFICIAL_THRESHOLD,
    TRUE,
    GroundTruth,
    Matches,
    MeasuredMasks,
)
from projects.openimages.metric.overlaps import (
    box_intersections,
    box_ioa,
    box_iou,
    mask_intersections,
    mask_ioa,
    mask_iou,
)

POOR_FROM = 0.1  # IoU below which a mask has not found its object (TIDE's background threshold)


class Cause(IntEnum):
    """What became of a detection; every detection has exactly one."""

    TRUE = 0        # true positive
    DUPLICATE = 1   # false, as are the five after it
    SIBLING = 2
    RELATIVE = 3
    OTHER_CLASS = 4
    POOR_MASK = 5
    BACKGROUND = 6
    BOX = 7         # ignored: taken by a box without mask
    GROUP = 8       # ignored: taken by a group-of box
    ABSORBED = 9    # ignored: beside a better one in a group-of mask
    UNVERIFIED = 10  # dropped: the class is not verified in the image
    EMPTY = 11      # dropped: nothing in the mask
    CUT = 12        # dropped: beyond the evaluator's cap of a class and image


WRONG_CLASS = (Cause.SIBLING, Cause.RELATIVE, Cause.OTHER_CLASS)


def direct_parents(space: LabelSpace) -> np.ndarray:
    """(C, C) bool, ``[c, p]`` where ``p`` is a parent of ``c`` with no other class between."""
    above = space.ancestor_matrix.astype(np.int64)
    return space.ancestor_matrix & ~(above @ above > 0)


def relations(space: LabelSpace) -> np.ndarray:
    """(C, C) int8: SIBLING where two classes share a direct parent, RELATIVE where one is above
    the other, OTHER_CLASS elsewhere."""
    parents = direct_parents(space).astype(np.int64)
    result = np.full(parents.shape, Cause.OTHER_CLASS, np.int8)
    result[parents @ parents.T > 0] = Cause.SIBLING
    result[space.ancestor_matrix | space.ancestor_matrix.T] = Cause.RELATIVE
    return result


class Overlaps:
    """Overlaps of an image's false detections with all its instances, by the metric's rules.

    Args:
        truth: the expanded ground truth.
        own, sources: (M,) which of its rows are no repetitions, and what each is one of.
        found: the detections' masks, (D,), of those whose class is verified.
    """

    def __init__(self, truth: GroundTruth, own: np.ndarray, sources: np.ndarray,
                 found: MeasuredMasks) -> None:
        assert truth.measured is not None
        self.class_ids, self.own = truth.class_ids, own
        self.has_mask = truth.measured.areas > 0
        self.is_group = truth.is_group_of
        self._truth, self._found = truth, found
        # Repetitions have the same mask and box: each is measured once.
        places: dict[tuple[int, int], int] = {}
        masks = truth.masks or ()
        keys = [(source, id(mask)) for source, mask in zip(sources.tolist(), masks, strict=True)]
        self._copies = np.array([places.setdefault(key, len(places)) for key in keys], np.int64)
        self._once = np.unique(self._copies, return_index=True)[1]

    def of(self, rows: np.ndarray) -> np.ndarray:
        """(F, M) float64 IoU, or IoA with a group-of instance, of the detections in ``rows``."""
        truth, measured = self._truth, self._truth.measured
        assert measured is not None
        masked = self.has_mask[self._once]
        with_mask, box_only = self._once[masked], self._once[~masked]
        found = self._found.take(rows)
        result = np.zeros((len(rows), len(self._once)))
        if len(with_mask):
            common = np.zeros((len(rows), len(with_mask)), np.int64)
            near = np.flatnonzero(box_intersections(
                found.boxes[:, None], measured.boxes[with_mask]).any(axis=1))
            common[near] = mask_intersections(found.present(near), measured.present(with_mask),
                                              found.areas[near])
            areas = found.areas[:, None]
            result[:, masked] = np.where(truth.is_group_of[with_mask], mask_ioa(common, areas),
                                         mask_iou(common, areas, measured.areas[with_mask]))
        found_boxes, boxes = found.boxes[:, None], truth.boxes[box_only]
        result[:, ~masked] = np.where(truth.is_group_of[box_only], box_ioa(found_boxes, boxes),
                                      box_iou(found_boxes, boxes))
        return result[:, self._copies]


def causes(matches: Matches, verified: np.ndarray, areas: np.ndarray, overlaps: Overlaps,
           related: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What became of an image's detections.

    Args:
        matches: of the image, D rows, those that are dropped as well.
        verified: (D,) bool, by the detection's place in the image: whether its class is verified.
        areas: (D,) int, by the detection's place: pixels of its mask.
        overlaps: with the image's instances.
        related: :func:`relations` of the classes.

    Returns:
        (D,) int8 :class:`Cause` and (D,) int32 target among the image's instances (the one that a
        true positive took, that a duplicate, a wrong class or a poor mask is about, or -1), in the
        order of the matches.
    """
    cause = np.full(len(matches), Cause.TRUE, np.int8)
    target = np.where(matches.outcome == TRUE, matches.instance, -1).astype(np.int32)
    ignored = np.flatnonzero(matches.outcome == IGNORED)
    taker = matches.instance[ignored]
    cause[ignored] = np.where(overlaps.has_mask[taker], Cause.ABSORBED,
                              np.where(overlaps.is_group[taker], Cause.GROUP, Cause.BOX))
    dropped = np.flatnonzero(matches.outcome == DROPPED)
    rows = matches.detection[dropped]
    cause[dropped] = np.where(~verified[rows], Cause.UNVERIFIED, np.where(
        areas[rows] == 0, Cause.EMPTY, Cause.CUT))
    false = np.flatnonzero(matches.outcome == FALSE)
    if len(false):
        cause[false] = Cause.BACKGROUND
    if len(false) and len(overlaps.class_ids):
        cause[false], target[false] = _why_false(
            overlaps.of(matches.detection[false]), matches.class_id[false], overlaps, related)
    return cause, target


def _why_false(overlap: np.ndarray, class_ids: np.ndarray, about: Overlaps,
               related: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cause and target of the F false detections of an image with M instances."""
    same = about.class_ids[None] == class_ids[:, None]
    masked = same & (about.has_mask & ~about.is_group)[None]
    others = ~same & (about.own & ~about.is_group)[None]
    cause = np.full(len(class_ids), Cause.BACKGROUND, np.int8)
    target = np.full(len(class_ids), -1, np.int32)
    rows = np.arange(len(class_ids))
    # From the last rule to the first, so that the first one that holds stands.
    for among, least, kind in ((masked, POOR_FROM, Cause.POOR_MASK),
                               (others, OFFICIAL_THRESHOLD, None),
                               (same, OFFICIAL_THRESHOLD, Cause.DUPLICATE)):
        values = np.where(among, overlap, -1.0)
        best = values.argmax(axis=1)
        holds = np.flatnonzero(values[rows, best] >= least)
        target[holds] = best[holds]
        cause[holds] = related[class_ids[holds], about.class_ids[best[holds]]] if kind is None \
            else kind
    return cause, target
