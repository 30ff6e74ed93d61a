"""Whether scores mean what they say, and how they are spread.

A detector is calibrated where of the detections with score 0.7 seven in ten are true positives.
Only detections that the challenge counts, true and false, can tell; those that it ignores or drops
have no truth. They have a place in the histogram all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from projects.openimages.analysis.outcomes import Outcomes
from projects.openimages.metric import DROPPED, FALSE, IGNORED, TRUE

BINS = 20
OUTCOME_NAMES = {TRUE: 'true', FALSE: 'false', IGNORED: 'ignored', DROPPED: 'dropped'}


@dataclass(frozen=True)
class Calibration:
    """Scores in ``BINS`` equal bins from 0 to 1; the last one has the score 1.

    Attributes:
        counts: (4, BINS) int64 detections by outcome, as ``OUTCOME_NAMES`` orders them.
        mean_scores: (BINS,) float64 of true and false detections, nan in an empty bin.
    """

    counts: np.ndarray
    mean_scores: np.ndarray

    @property
    def precisions(self) -> np.ndarray:
        """(BINS,) float64 share of true among true and false; nan in an empty bin."""
        with np.errstate(invalid='ignore'):
            return self.counts[0] / self.counts[:2].sum(axis=0)

    @property
    def expected_error(self) -> float:
        """Expected calibration error: |precision - mean score|, weighted by detections."""
        weights = self.counts[:2].sum(axis=0)
        if not weights.sum():
            return float('nan')
        gaps = np.nan_to_num(np.abs(self.precisions - self.mean_scores))
        return float((weights * gaps).sum() / weights.sum())


def calibrate(outcomes: Outcomes) -> Calibration:
    """Count all detections by score and outcome."""
    scores, outcome = outcomes.matches.score, outcomes.matches.outcome
    bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    counts = np.array([np.bincount(bins[outcome == kind], minlength=BINS)
                       for kind in OUTCOME_NAMES])
    counted = (outcome == TRUE) | (outcome == FALSE)
    sums = np.bincount(bins[counted], weights=scores[counted], minlength=BINS)
    with np.errstate(invalid='ignore'):
        return Calibration(counts, sums / counts[:2].sum(axis=0))
