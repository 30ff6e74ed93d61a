"""What each kind of error costs: it is put right, and everything is scored again.

In: :class:`Outcomes`. Out: for each kind the AP that the classes would gain. As in TIDE
(https://arxiv.org/abs/2008.08115) each kind is put right alone, so the costs do not add up to what
is missing to 1:

- duplicates and background detections are removed;
- a poor mask becomes a true positive of its instance, a wrong class one of the class that its
  instance has; of several for one instance the best-scored, and none where the instance has been
  found already or has no mask; the others are removed;
- missed instances, those that neither a wrong class nor a poor mask could have found, are no longer
  looked for. A class of which nothing is left to find has AP 1;
- ``all false positives`` removes them, ``all missed`` looks for what was found only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from projects.openimages.analysis.causes import WRONG_CLASS, Cause
from projects.openimages.analysis.outcomes import Outcomes
from projects.openimages.metric import TRUE, Matches, mean_over, score

_MOVABLE = (*WRONG_CLASS, Cause.POOR_MASK)  # become true positives
_FALSE = (*_MOVABLE, Cause.DUPLICATE, Cause.BACKGROUND)
MISSED, ALL_MISSED = 'missed', 'all missed'
KINDS: dict[str, tuple[Cause, ...]] = {
    'wrong class': WRONG_CLASS,
    'wrong class: sibling': (Cause.SIBLING,),
    'wrong class: parent or child': (Cause.RELATIVE,),
    'wrong class: other': (Cause.OTHER_CLASS,),
    'poor mask': (Cause.POOR_MASK,),
    'duplicate': (Cause.DUPLICATE,),
    'background': (Cause.BACKGROUND,),
    'all false positives': _FALSE,
}


@dataclass(frozen=True)
class ErrorCost:
    """One kind of error.

    Attributes:
        count: detections of the kind; of missed, instances.
        gains: (C,) float64 AP that each class gains without it, nan for a class without positives.
    """

    count: int
    gains: np.ndarray

    @property
    def cost(self) -> float:
        """The mAP that it costs."""
        return mean_over(self.gains)


def error_costs(outcomes: Outcomes, num_classes: int) -> dict[str, ErrorCost]:
    """The cost of every kind of error, by its name."""
    positives = outcomes.positives(num_classes)
    base = score(outcomes.matches, positives).average_precisions
    costs = {}
    for name, causes in KINDS.items():
        fixed = without(outcomes, causes, move=name != 'all false positives')
        costs[name] = ErrorCost(int(np.isin(outcomes.cause, causes).sum()),
                                score(fixed, positives).average_precisions - base)
    for name, gone in ((MISSED, missed(outcomes)),
                       (ALL_MISSED, outcomes.to_find & ~outcomes.taken)):
        left = positives - np.bincount(outcomes.instance_class[gone], minlength=num_classes)
        fixed_ap = score(outcomes.matches, left).average_precisions
        fixed_ap[(left == 0) & (positives > 0)] = 1.0
        costs[name] = ErrorCost(int(gone.sum()), fixed_ap - base)
    return costs


def missed(outcomes: Outcomes) -> np.ndarray:
    """(N,) bool: instances that nothing has found, nor would have with another class or mask."""
    reached = np.zeros(len(outcomes.instance_class), bool)
    reached[outcomes.target[np.isin(outcomes.cause, _MOVABLE)]] = True
    return outcomes.to_find & ~outcomes.taken & ~reached


def without(outcomes: Outcomes, causes: tuple[Cause, ...], *, move: bool = True) -> Matches:
    """The matches as they would be without errors of these kinds.

    Args:
        outcomes: as they are.
        causes: the kinds.
        move: let wrong classes and poor masks become true positives; False removes them too.
    """
    matches, target = outcomes.matches, outcomes.target
    wrong = np.isin(outcomes.cause, causes)
    keep = ~wrong
    outcome, class_id = matches.outcome.copy(), matches.class_id.copy()
    if move:
        rows = np.flatnonzero(wrong & np.isin(outcomes.cause, _MOVABLE))
        rows = rows[(outcomes.to_find & ~outcomes.taken)[target[rows]]]
        rows = rows[np.lexsort((-matches.score[rows], target[rows]))]
        rows = rows[np.unique(target[rows], return_index=True)[1]]
        keep[rows] = True
        outcome[rows] = TRUE
        class_id[rows] = outcomes.instance_class[target[rows]]
    return replace(matches, outcome=outcome, class_id=class_id).select(keep)
