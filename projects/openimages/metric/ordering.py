"""The order of ground truth, as the official evaluator has it.

The evaluator joins the boxes and the segmentations CSV by a pandas outer merge on all that they
share. Two things follow that change numbers: the rows of an image are sorted by those columns
(which of two instances with equal IoU is taken depends on it), and where a box stands in the
files more than once every box is paired with every mask (each pair is an instance to be found).
"""

from __future__ import annotations

import numpy as np


def join_boxes_and_masks(box_keys: np.ndarray, mask_keys: np.ndarray,
                         ) -> tuple[np.ndarray, np.ndarray]:
    """Outer join on equal keys, sorted by key; within a key every box with every mask, in order.

    Args:
        box_keys: (B, K) float64, by priority, such as image, class, XMin, XMax, YMin, YMax,
            IsGroupOf.
        mask_keys: (S, K) float64.

    Returns:
        ``boxes`` (M,) int64 rows of ``box_keys`` and ``masks`` (M,) int64 rows of ``mask_keys``,
        -1 where there is none.
    """
    keys = np.concatenate((box_keys, mask_keys))
    order = np.lexsort(keys.T[::-1])
    starts = np.flatnonzero(np.append(True, (np.diff(keys[order], axis=0) != 0).any(axis=1)))[
        :len(keys)]
    sizes = np.diff(np.append(starts, len(keys)))
    box_counts = np.add.reduceat(order < len(box_keys), starts) if len(keys) else sizes
    mask_counts = sizes - box_counts
    pairs = np.maximum(box_counts, 1) * np.maximum(mask_counts, 1)
    group = np.repeat(np.arange(len(starts)), pairs)
    within = np.arange(len(group)) - np.repeat(np.cumsum(pairs) - pairs, pairs)
    box, mask = np.divmod(within, np.maximum(mask_counts, 1)[group])
    # The sort is stable, so a group's boxes come before its masks, each in file order.
    box_rows = order[starts[group] + np.where(box_counts[group] > 0, box, 0)]
    mask_rows = order[starts[group] + np.where(mask_counts[group] > 0, box_counts[group] + mask, 0)]
    return (np.where(box_counts[group] > 0, box_rows, -1),
            np.where(mask_counts[group] > 0, mask_rows - len(box_keys), -1))
