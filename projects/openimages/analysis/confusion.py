"""Which class is taken for which, where both are verified in the image.

A detection that the challenge counts is of a verified class, and one that lies on an instance of
another class shows that the other class is verified as well: nothing else is counted. Detections
repeated for ancestor classes are left out, and so are repeated instances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from projects.openimages.analysis.causes import WRONG_CLASS, Cause
from projects.openimages.analysis.outcomes import Outcomes


@dataclass(frozen=True)
class Confusion:
    """Detections of one class on instances of another.

    Attributes:
        predicted, actual: class ids.
        relation: ``SIBLING``, ``RELATIVE`` or ``OTHER_CLASS``.
        count: such detections; ``confident`` those with at least the threshold's score.
        mean_score: of all of them.
        rows: the best-scored in :class:`Outcomes`, at most three of different images.
    """

    predicted: int
    actual: int
    relation: Cause
    count: int
    confident: int
    mean_score: float
    rows: tuple[int, ...]


def confusions(outcomes: Outcomes, score_thr: float) -> list[Confusion]:
    """All pairs of classes that are confused, those with the most confident detections first."""
    rows = np.flatnonzero(np.isin(outcomes.cause, WRONG_CLASS) & ~outcomes.copy)
    predicted = outcomes.matches.class_id[rows].astype(np.int64)
    actual = outcomes.instance_class[outcomes.target[rows]].astype(np.int64)
    scores = outcomes.matches.score[rows]
    order = np.lexsort((-scores, actual, predicted))
    rows, predicted, actual, scores = (a[order] for a in (rows, predicted, actual, scores))
    starts = np.flatnonzero(np.append(True, (np.diff(predicted) != 0) | (np.diff(actual) != 0)))[
        :len(rows)]
    found = [Confusion(int(predicted[start]), int(actual[start]),
                       Cause(int(outcomes.cause[rows[start]])), stop - start,
                       int((scores[start:stop] >= score_thr).sum()),
                       float(scores[start:stop].mean()),
                       _of_different_images(outcomes, rows[start:stop]))
             for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(rows)],
                                    strict=False)]
    return sorted(found, key=lambda pair: (-pair.confident, -pair.count, pair.predicted,
                                           pair.actual))


def _of_different_images(outcomes: Outcomes, rows: np.ndarray, most: int = 3) -> tuple[int, ...]:
    _, first = np.unique(outcomes.matches.image[rows], return_index=True)
    return tuple(rows[np.sort(first)[:most]].tolist())


def confusion_matrix(outcomes: Outcomes, pairs: Sequence[Confusion], score_thr: float,
                     most: int = 12) -> tuple[list[int], np.ndarray]:
    """The classes in the most frequent confusions, and how often each is taken for which.

    Returns:
        K class ids, and (K, K) int64 of confident detections: rows are what it is, columns what it
        is taken for; the diagonal has the true positives.
    """
    classes: list[int] = []
    for pair in pairs:
        new = [c for c in (pair.actual, pair.predicted) if c not in classes]
        if pair.confident and len(classes) + len(new) <= most:
            classes += new
    place = {class_id: n for n, class_id in enumerate(classes)}
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    for pair in pairs:
        if pair.actual in place and pair.predicted in place:
            matrix[place[pair.actual], place[pair.predicted]] = pair.confident
    true = np.flatnonzero((outcomes.cause == Cause.TRUE) & ~outcomes.copy
                          & (outcomes.matches.score >= score_thr))
    found = np.bincount(outcomes.matches.class_id[true], minlength=max(classes, default=0) + 1)
    matrix[np.diag_indices(len(classes))] = found[classes]
    return classes, matrix
