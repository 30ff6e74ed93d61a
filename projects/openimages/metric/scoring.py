"""Average precision: from matches of all images to a number per class (rule 7 of the challenge)."""

from __future__ import annotations

import numpy as np

from projects.openimages.metric.records import FALSE, IGNORED, TRUE, GroundTruth, Matches
from projects.openimages.metric.results import ChallengeScore


def count_positives(truth: GroundTruth, num_classes: int) -> np.ndarray:
    """How many instances per class are there to be found, (C,) int64: those with a non-empty mask.

    In box evaluation all instances count.
    """
    counted = np.ones(len(truth.class_ids), bool)
    if truth.measured is not None:
        counted = truth.measured.areas > 0
    return np.bincount(truth.class_ids[counted].astype(np.int64), minlength=num_classes)


def precision_recall(scores: np.ndarray, is_true: np.ndarray,
                     positives: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of one class after each detection, in descending score.

    Args:
        scores: (D,) float64 in scoring order.
        is_true: (D,) bool.
        positives: instances to be found, more than 0.

    Returns:
        ``precision`` (D,) and ``recall`` (D,) float64.
    """
    order = np.argsort(scores)[::-1]
    true = np.cumsum(is_true[order].astype(float))
    false = np.cumsum((~is_true[order]).astype(float))
    return true / (true + false), true / positives


def average_precision(precision: np.ndarray, recall: np.ndarray) -> float:
    """Area under precision, made non-increasing from the right, over recall."""
    if not len(precision):
        return 0.0
    recall = np.concatenate(([0.0], recall, [1.0]))
    precision = np.concatenate(([0.0], precision, [0.0]))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(np.sum((recall[steps] - recall[steps - 1]) * precision[steps]))


def score(matches: Matches, positives: np.ndarray) -> ChallengeScore:
    """Average precision of every class.

    Args:
        matches: of all images, in ascending image id.
        positives: (C,) int, summed over all images.
    """
    num_classes = len(positives)
    average_precisions = np.full(num_classes, np.nan)
    for class_id, scores, is_true in per_class(matches, num_classes):
        if positives[class_id] > 0:
            average_precisions[class_id] = average_precision(
                *precision_recall(scores, is_true, positives[class_id]))
    true, false, ignored = (
        np.bincount(matches.class_id[matches.outcome == outcome], minlength=num_classes)
        for outcome in (TRUE, FALSE, IGNORED))
    return ChallengeScore(average_precisions, positives, true, false, ignored)


def per_class(matches: Matches, num_classes: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """For each class id, the ``scores`` (D,) and ``is_true`` (D,) of the detections that count."""
    counted = matches.select((matches.outcome == TRUE) | (matches.outcome == FALSE))
    order = np.argsort(counted.class_id, kind='stable')
    bounds = np.searchsorted(counted.class_id[order], np.arange(num_classes + 1))
    is_true = counted.outcome == TRUE
    return [(class_id, counted.score[rows], is_true[rows]) for class_id in range(num_classes)
            for rows in [order[bounds[class_id]:bounds[class_id + 1]]]]
