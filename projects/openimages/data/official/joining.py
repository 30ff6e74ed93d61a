"""Which mask belongs to which box.

The masks CSV repeats each box with other decimals, so equality finds nothing and rounding finds
the wrong one. A mask is joined to the nearest free box of its image and class, the closest pairs
first, one to one; the distance is the largest difference of the four sides, as a part of the
image's size.
"""

from __future__ import annotations

import numpy as np

JOIN_TOLERANCE = 0.02
"""A mask whose nearest box of its class is further away than this has no box."""

_PAIRS_AT_A_TIME = 4_000_000


def join_boxes(mask_keys: np.ndarray, mask_boxes: np.ndarray, box_keys: np.ndarray,
               boxes: np.ndarray, tolerance: float = JOIN_TOLERANCE
               ) -> tuple[np.ndarray, np.ndarray]:
    """Join masks to boxes one to one, the closest pairs first.

    Ties go to the mask, then the box, that comes first.

    Args:
        mask_keys: (M,) int64, equal where image and class are equal.
        mask_boxes: (M, 4) float64.
        box_keys: (B,) int64.
        boxes: (B, 4) float64, sides in the same order.
        tolerance: the largest distance of a pair.

    Returns:
        ``joined`` (M,) int64, the box of each mask or -1; ``distance`` (M,) float64 to that box,
        or without one to the nearest box of the image and class, infinite where there is none.
    """
    masks, candidates, distances, nearest = _close_pairs(mask_keys, mask_boxes, box_keys, boxes,
                                                         tolerance)
    order = np.lexsort((candidates, masks, distances))
    masks, candidates, distances = masks[order], candidates[order], distances[order]
    joined = np.full(len(mask_keys), -1, np.int64)
    taken = np.zeros(len(boxes), bool)
    while len(masks):
        # A pair that is the first of both its mask and its box is what a loop over the sorted
        # pairs would accept; taking all such pairs at once, again and again, equals that loop.
        first = _is_first(masks) & _is_first(candidates)
        joined[masks[first]] = candidates[first]
        nearest[masks[first]] = distances[first]
        taken[candidates[first]] = True
        left = (joined[masks] < 0) & ~taken[candidates]
        masks, candidates, distances = masks[left], candidates[left], distances[left]
    return joined, nearest


def _close_pairs(mask_keys: np.ndarray, mask_boxes: np.ndarray, box_keys: np.ndarray,
                 boxes: np.ndarray, tolerance: float
                 ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of equal keys within the tolerance, and each mask's least distance to any box."""
    box_order = np.argsort(box_keys, kind='stable')
    sorted_keys = box_keys[box_order]
    first = np.searchsorted(sorted_keys, mask_keys, 'left')
    counts = np.searchsorted(sorted_keys, mask_keys, 'right') - first
    ends = np.cumsum(counts)
    nearest = np.full(len(mask_keys), np.inf)
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    start = 0
    while start < len(mask_keys):
        before = ends[start] - counts[start]
        stop = max(start + 1, int(np.searchsorted(ends, before + _PAIRS_AT_A_TIME, 'right')))
        masks = np.repeat(np.arange(start, stop), counts[start:stop])
        within = np.arange(len(masks)) - (ends - counts - before)[masks]
        candidates = box_order[first[masks] + within]
        distances = np.abs(mask_boxes[masks] - boxes[candidates]).max(axis=1, initial=0)
        np.minimum.at(nearest, masks, distances)
        close = distances <= tolerance
        found.append((masks[close], candidates[close], distances[close]))
        start = stop
    masks, candidates, distances = map(np.concatenate, zip(*found, strict=True))
    return masks, candidates, distances, nearest


def _is_first(values: np.ndarray) -> np.ndarray:
    """(N,) bool, True at each value's first occurrence."""
    _, places = np.unique(values, return_index=True)
    first = np.zeros(len(values), bool)
    first[places] = True
    return first
