"""The score under other conditions: thresholds, caps, IoU, sizes of objects; and PR curves.

All from one pass of matching: leaving out an image's lowest scores does not change what becomes of
the rest (:meth:`metric.Matches.select`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from projects.openimages.analysis.outcomes import IOU_THRESHOLDS, Outcomes
from projects.openimages.metric import TRUE, per_class, precision_recall, score

SCORE_THRESHOLDS = tuple(n / 20 for n in range(20))
CAPS = (1, 2, 5, 10, 20, 50, 100, 200, 300, 500)
SIZES = {'small': (1, 32**2), 'medium': (32**2, 96**2), 'large': (96**2, np.inf)}  # as COCO has it
_CURVE_POINTS = 60


def by_threshold(outcomes: Outcomes, positives: np.ndarray) -> dict[float, float]:
    """The mAP without the detections below each score threshold."""
    kept = {thr: outcomes.matches.score >= thr for thr in SCORE_THRESHOLDS}
    return {thr: score(outcomes.matches.select(rows), positives).mean_average_precision
            for thr, rows in kept.items()}


def by_cap(outcomes: Outcomes, positives: np.ndarray) -> dict[int, float]:
    """The mAP with so many detections an image, counted before expansion; to the cap that cuts
    nothing."""
    most = int(outcomes.rank.max(initial=0)) + 1
    return {cap: score(outcomes.matches.select(outcomes.rank < cap), positives)
            .mean_average_precision for cap in [*(cap for cap in CAPS if cap < most), most]}


def by_iou(outcomes: Outcomes, positives: np.ndarray) -> dict[float, float]:
    """The mAP at each IoU threshold from 0.5 to 0.95."""
    return {thr: score(outcomes.at_threshold(n), positives).mean_average_precision
            for n, thr in enumerate(IOU_THRESHOLDS)}


def by_size(outcomes: Outcomes, num_classes: int,
            sizes: Mapping[str, tuple[float, float]] = SIZES) -> dict[str, tuple[float, int]]:
    """The mAP over small, medium and large objects, and how many instances there are to find.

    As COCO has it: other instances are not looked for, what found them is ignored, and so are
    false detections of other sizes.

    Args:
        sizes: the least pixels of a mask, and those that are too many, by name.
    """
    result = {}
    size_of_row = outcomes.area.copy()
    true = outcomes.matches.outcome == TRUE
    size_of_row[true] = outcomes.instance_area[outcomes.target[true]]
    for name, (low, high) in sizes.items():
        wanted = (outcomes.instance_area >= low) & (outcomes.instance_area < high)
        positives = np.bincount(outcomes.instance_class[wanted], minlength=num_classes)
        rows = (size_of_row >= low) & (size_of_row < high)
        result[name] = (score(outcomes.matches.select(rows), positives).mean_average_precision,
                        int(positives.sum()))
    return result


def pr_curves(outcomes: Outcomes, positives: np.ndarray) -> dict[int, np.ndarray]:
    """Precision and recall of every class that has positives and detections that count.

    Returns:
        By class id (K, 3) float64: recall, precision made non-increasing from the right, and the
        score of the detection; at the true positives, at most 60 of them.
    """
    curves = {}
    for class_id, scores, is_true in per_class(outcomes.matches, len(positives)):
        if positives[class_id] and len(scores):
            precision, recall = precision_recall(scores, is_true, positives[class_id])
            order = np.argsort(scores)[::-1]
            envelope = np.maximum.accumulate(precision[::-1])[::-1]
            points = np.flatnonzero(is_true[order])
            if len(points) > _CURVE_POINTS:
                points = points[np.linspace(0, len(points) - 1, _CURVE_POINTS).astype(int)]
            curves[class_id] = np.column_stack((recall, envelope, scores[order]))[points]
    return curves

