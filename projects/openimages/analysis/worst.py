"""Which images and classes to look at first.

An image's errors are the instances that nothing has found and the false detections from a score
on; what is repeated for ancestor classes counts once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from projects.openimages.analysis.outcomes import Outcomes
from projects.openimages.metric import FALSE


@dataclass(frozen=True)
class ImageErrors:
    """By image, (I,) int64 each: instances not found, and false detections."""

    missed: np.ndarray
    false: np.ndarray

    @property
    def total(self) -> np.ndarray:
        return self.missed + self.false

    def worst(self, most: int) -> list[int]:
        """The images with the most errors, at most so many, none without any."""
        order = np.argsort(-self.total, kind='stable')[:most]
        return order[self.total[order] > 0].tolist()


def image_errors(outcomes: Outcomes, num_images: int, score_thr: float,
                 class_id: int | None = None) -> ImageErrors:
    """Count the errors of every image; with a class, those of that class, repetitions included."""
    missed = outcomes.to_find & ~outcomes.taken
    false = (outcomes.matches.outcome == FALSE) & (outcomes.matches.score >= score_thr)
    if class_id is None:
        missed &= outcomes.instance_own
        false &= ~outcomes.copy
    else:
        missed &= outcomes.instance_class == class_id
        false &= outcomes.matches.class_id == class_id
    return ImageErrors(np.bincount(outcomes.instance_image[missed], minlength=num_images),
                       np.bincount(outcomes.matches.image[false], minlength=num_images))


def worst_classes(average_precisions: np.ndarray, positives: np.ndarray, most: int,
                  least_positives: int = 5) -> list[int]:
    """The classes with the lowest AP, those with few instances last: their AP says little."""
    known = np.flatnonzero(~np.isnan(average_precisions))
    few = positives[known] < least_positives
    return known[np.lexsort((known, average_precisions[known], few))[:most]].tolist()
