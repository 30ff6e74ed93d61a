"""How sure a score is: bootstrap over images, paired where two dumps are compared.

The images of the split are drawn again with replacement, many times, and scored each time; where
two dumps are compared, both on the same draws, so that the interval of their difference does not
hold what the images have in common. See Efron and Tibshirani, An Introduction to the Bootstrap,
1993, chapter 13 (percentile intervals).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from projects.openimages.analysis.outcomes import Outcomes
from projects.openimages.common.parallel import run_in_order
from projects.openimages.common.progress import progress
from projects.openimages.metric import FALSE, TRUE

DRAWS = 1000
LEVEL = 0.95
_DRAWS_AT_ONCE = 125
_FEW = 2_000_000  # detections times draws: as long as starting processes takes


@dataclass(frozen=True)
class Interval:
    """Where a value lies with probability ``LEVEL``; nan where there is no value."""

    low: float
    high: float

    @staticmethod
    def of(values: np.ndarray) -> Interval:
        """The percentile interval of (B,) values; those that are nan are left out."""
        known = values[~np.isnan(values)]
        if not len(known):
            return Interval(float('nan'), float('nan'))
        tail = (1 - LEVEL) / 2
        return Interval(*np.quantile(known, (tail, 1 - tail)).tolist())

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class _ClassRows:
    """One class: (P,) images of the instances to be found; for each dump the images (D,) of its
    detections in descending score, and (D,) bool which are true."""

    positive_images: np.ndarray
    dumps: tuple[tuple[np.ndarray, np.ndarray], ...]


def resample(dumps: Sequence[Outcomes], num_images: int, num_classes: int, *,
             draws: int = DRAWS, seed: int = 0, workers: int = 1) -> np.ndarray:
    """Average precision in every draw.

    Args:
        dumps: M results on the same index.
        num_images: of the index.
        draws: B.
        seed: same seed, same draws.

    Returns:
        (M, B, C) float64, nan where a draw has no instance of the class.
    """
    random = np.random.default_rng(seed)
    times = np.zeros((num_images, draws), np.uint8)  # by image, for each draw
    for draw in range(draws):
        chosen = random.integers(0, num_images, num_images)
        times[:, draw] = np.minimum(np.bincount(chosen, minlength=num_images), 255)
    classes = _by_class(dumps, num_classes)
    total = sum(len(images) for rows in classes for images, _ in rows.dumps)
    result = np.full((len(dumps), draws, num_classes), np.nan)
    done = run_in_order(_class_in_all_draws, classes, workers if total * draws > _FEW else 1,
                        num_classes, shared=times)
    for class_id, values in enumerate(progress(done, total=num_classes, desc='bootstrap',
                                               unit='class')):
        result[:, :, class_id] = values
    return result


def _by_class(dumps: Sequence[Outcomes], num_classes: int) -> list[_ClassRows]:
    ranked = []
    for outcomes in dumps:
        matches = outcomes.matches
        rows = np.flatnonzero((matches.outcome == TRUE) | (matches.outcome == FALSE))
        rows = rows[np.lexsort((-matches.score[rows], matches.class_id[rows]))]
        bounds = np.searchsorted(matches.class_id[rows], np.arange(num_classes + 1))
        ranked.append((matches.image[rows], matches.outcome[rows] == TRUE, bounds))
    truth = dumps[0]
    positive = np.flatnonzero(truth.to_find)
    positive = positive[np.argsort(truth.instance_class[positive], kind='stable')]
    starts = np.searchsorted(truth.instance_class[positive], np.arange(num_classes + 1))
    return [_ClassRows(truth.instance_image[positive[starts[c]:starts[c + 1]]],
                       tuple((images[bounds[c]:bounds[c + 1]], is_true[bounds[c]:bounds[c + 1]])
                             for images, is_true, bounds in ranked))
            for c in range(num_classes)]


def _class_in_all_draws(times: np.ndarray, rows: _ClassRows) -> np.ndarray:
    """(M, B) average precision of one class."""
    draws = times.shape[1]
    result = np.full((len(rows.dumps), draws), np.nan)
    if not len(rows.positive_images):
        return result
    for start in range(0, draws, _DRAWS_AT_ONCE):
        part = np.ascontiguousarray(times[:, start:start + _DRAWS_AT_ONCE])
        positives = part[rows.positive_images].sum(axis=0, dtype=np.int64)
        for number, (images, is_true) in enumerate(rows.dumps):
            values = _weighted_ap(part, images, is_true, positives)
            result[number, start:start + _DRAWS_AT_ONCE] = np.where(positives > 0, values, np.nan)
    return result


def _weighted_ap(times: np.ndarray, images: np.ndarray, is_true: np.ndarray,
                 positives: np.ndarray) -> np.ndarray:
    """(B,) average precision where each image counts as often as each draw has it.

    Precision is highest right after a true positive, so the curve is looked at only there.

    Args:
        times: (I, B) uint8.
        images, is_true: (D,) of the detections in descending score.
        positives: (B,) int64.
    """
    found = np.flatnonzero(is_true)
    if not len(found):
        return np.zeros(times.shape[1])
    weights = times[images[:found[-1] + 1]]
    true = weights[found].astype(np.int64)
    starts = np.append(0, found[:-1] + 1)
    seen = np.cumsum(np.add.reduceat(weights, starts, axis=0, dtype=np.int64), axis=0)
    precision = np.cumsum(true, axis=0) / np.maximum(seen, 1)
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    return (true * envelope).sum(axis=0) / np.maximum(positives, 1)
