"""Which detections of an image are handed in, and for which classes.

In: one image's detections as the model gives them. Out: what the submission says and the metric
scores; the streaming dump and the MMEngine metric both call :func:`select_detections`, so that the
CSV and the printed number speak of the same detections.

The order of the rules: scores below the threshold go, then the best ``max_per_img`` stay, then
each detection is repeated for its ancestor classes (design rule 1 expands the ground truth, so a
detection of a leaf is only counted for its parents if it is handed in for them too). Where one
class would hold the same mask twice in an image, the higher score is kept once.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from projects.openimages.common.errors import UserError
from projects.openimages.labels import LabelSpace


@dataclass(frozen=True)
class Selection:
    """The detections that stand.

    Attributes:
        rows: (M,) int64 into the model's detections; mask and score of each are that row's.
        class_ids: (M,) int64, 0-based.
        scores: (M,) of the input's type.
    """

    rows: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


def check_options(score_thr: float, max_per_img: int | None) -> None:
    """Raise a UserError for a threshold or a cap that :func:`select_detections` cannot mean."""
    if not 0 <= score_thr <= 1:
        raise UserError(f'score threshold {score_thr}, expected 0 to 1')
    if max_per_img is not None and max_per_img < 1:
        raise UserError(f'at most {max_per_img} detections an image, expected at least 1')


def select_detections(class_ids: np.ndarray, scores: np.ndarray, masks: Sequence[Hashable], *,
                      label_space: LabelSpace | None = None, score_thr: float = 0.0,
                      max_per_img: int | None = None) -> Selection:
    """Apply the threshold, the cap and the hierarchy to one image's detections.

    Args:
        class_ids: (N,) int, 0-based.
        scores: (N,) float.
        masks: N keys that are equal where masks are equal, such as the RLE counts.
        label_space: expand over its hierarchy; None leaves the classes as they are.
        score_thr: a detection stays if its score is at least this.
        max_per_img: the number of detections to keep, counted before expansion; None keeps all.
    """
    scores = np.asarray(scores)
    rows = np.flatnonzero(scores >= score_thr)
    if max_per_img is not None and len(rows) > max_per_img:
        best = np.argsort(-scores[rows], kind='stable')[:max_per_img]
        rows = rows[np.sort(best)]
    class_ids = np.asarray(class_ids, np.int64)[rows]
    if label_space is None:
        return Selection(rows, class_ids, scores[rows])
    kept = expand_detections(class_ids, scores[rows], [masks[row] for row in rows], label_space)
    return Selection(rows[kept.rows], kept.class_ids, kept.scores)


def expand_detections(class_ids: np.ndarray, scores: np.ndarray, masks: Sequence[Hashable],
                      label_space: LabelSpace) -> Selection:
    """Repeat each detection for its ancestor classes.

    The order is fixed: the detections in their own order, then the ancestors' in the order of
    their detections and of ascending class id. Of those that hold the same mask for the same
    class only the first place is kept, with the highest of their scores.

    Args:
        class_ids: (N,) int, 0-based.
        scores: (N,) float.
        masks: N keys that are equal where masks are equal, such as the RLE counts.
        label_space: whose hierarchy.
    """
    class_ids = np.asarray(class_ids, np.int64)
    scores = np.asarray(scores)
    candidates = [(row, class_id) for row, class_id in enumerate(class_ids.tolist())]
    candidates += [(row, ancestor) for row, class_id in enumerate(class_ids.tolist())
                   for ancestor in label_space.ancestors(class_id)]
    places: dict[tuple[int, Hashable], int] = {}
    rows: list[int] = []
    classes: list[int] = []
    for row, class_id in candidates:
        place = places.setdefault((class_id, masks[row]), len(rows))
        if place == len(rows):
            rows.append(row)
            classes.append(class_id)
        elif scores[row] > scores[rows[place]]:
            rows[place] = row
    kept = np.array(rows, np.int64)
    return Selection(kept, np.array(classes, np.int64), scores[kept])
