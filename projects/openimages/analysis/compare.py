"""Two dumps on the same images: what got better, what got worse, and how sure that is.

In: the :class:`Outcomes` of both on one index. Out: the difference of every class's AP and of the
mAP with the interval of a paired bootstrap over images. A difference is this dump's value less the
other's, so more than 0 is better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from projects.openimages.analysis.bootstrap import Interval
from projects.openimages.analysis.outcomes import Outcomes
from projects.openimages.analysis.worst import image_errors
from projects.openimages.metric import score


@dataclass(frozen=True)
class Difference:
    """One class.

    Attributes:
        class_id: the class.
        ap, other_ap: of this dump and of the other.
        interval: of their difference.
    """

    class_id: int
    ap: float
    other_ap: float
    interval: Interval

    @property
    def difference(self) -> float:
        return self.ap - self.other_ap


@dataclass(frozen=True)
class Comparison:
    """This dump and the other.

    Attributes:
        mean_ap, other_mean_ap: the mAP of both.
        interval: of their difference.
        classes: those with instances to find, the best gains first.
        better, worse: images with fewer, with more errors than before, the most first.
    """

    mean_ap: float
    other_mean_ap: float
    interval: Interval
    classes: list[Difference]
    better: list[int]
    worse: list[int]

    @property
    def difference(self) -> float:
        return self.mean_ap - self.other_mean_ap


def compare(outcomes: Outcomes, other: Outcomes, resampled: np.ndarray, num_images: int,
            score_thr: float, most_images: int) -> Comparison:
    """Compare two dumps.

    Args:
        outcomes, other: of both dumps, on the same index.
        resampled: (2, B, C) AP of both by :func:`bootstrap.resample`.
        num_images: of the index.
        score_thr: false detections from this score on count as errors of an image.
        most_images: so many images that got better, and worse, at most.
    """
    positives = outcomes.positives(resampled.shape[2])
    ours, theirs = (score(one.matches, positives) for one in (outcomes, other))
    differences = resampled[0] - resampled[1]
    classes = [Difference(c, float(ours.average_precisions[c]),
                          float(theirs.average_precisions[c]), Interval.of(differences[:, c]))
               for c in np.flatnonzero(positives).tolist()]
    change = (image_errors(outcomes, num_images, score_thr).total
              - image_errors(other, num_images, score_thr).total)
    order = np.argsort(change, kind='stable')
    return Comparison(
        ours.mean_average_precision, theirs.mean_average_precision,
        Interval.of(mean_of_draws(resampled[0]) - mean_of_draws(resampled[1])),
        sorted(classes, key=lambda one: -one.difference),
        [n for n in order[:most_images].tolist() if change[n] < 0],
        [n for n in order[::-1][:most_images].tolist() if change[n] > 0])


def mean_of_draws(average_precisions: np.ndarray) -> np.ndarray:
    """(B,) mAP of each draw from (B, C) AP; nan where a draw has no instance at all."""
    known = ~np.isnan(average_precisions)
    with np.errstate(invalid='ignore'):
        return np.nansum(average_precisions, axis=1) / known.sum(axis=1)
