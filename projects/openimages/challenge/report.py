"""A challenge score for people: means over groups of classes and a per-class table.

In: a :class:`metric.ChallengeScore` and what is known of the classes. Out: a dict of numbers, and
text or CSV rows.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from projects.openimages.common.files import atomic_write
from projects.openimages.labels import LabelSpace
from projects.openimages.metric import ChallengeScore, mean_over

SORT_KEYS = ('ap', 'frequency', 'name', 'class_id')
COLUMNS = ('class_id', 'mid', 'name', 'AP', 'positives', 'true', 'false', 'ignored')


def class_groups(label_space: LabelSpace, train_images: np.ndarray | None = None,
                 bounds: tuple[int, int] = (500, 5000)) -> dict[str, np.ndarray]:
    """Groups of classes that one wants to see apart, each a (C,) bool.

    Args:
        label_space: gives ``leaves`` and ``parents``.
        train_images: (C,) int, training images in which the class has an instance; gives
            ``frequent``, ``common`` and ``rare``.
        bounds: classes with fewer training images than the first are rare, with at least the
            second frequent.
    """
    groups = {'leaves': label_space.leaves, 'parents': label_space.parents}
    if train_images is not None:
        groups['frequent'] = train_images >= bounds[1]
        groups['common'] = (train_images >= bounds[0]) & (train_images < bounds[1])
        groups['rare'] = train_images < bounds[0]
    return groups


def summarise(score: ChallengeScore, groups: Mapping[str, np.ndarray]) -> dict[str, float]:
    """``mAP`` over all classes with positives and ``mAP_<group>`` over those of each group."""
    return {'mAP': score.mean_average_precision,
            **{f'mAP_{name}': mean_over(score.average_precisions, classes)
               for name, classes in groups.items()}}


@dataclass(frozen=True)
class ClassTable:
    """The per-class results of classes that have positives or detections.

    Attributes:
        score: the result.
        label_space: names of the classes.
        train_images: (C,) int or None; a column ``train images`` if given.
    """

    score: ChallengeScore
    label_space: LabelSpace
    train_images: np.ndarray | None = None

    def rows(self, sort_by: str = 'ap') -> list[dict[str, object]]:
        """One dict a class.

        Args:
            sort_by: ``'ap'`` worst first (classes without positives last), ``'frequency'`` rarest
                in training first (without training counts: fewest positives), ``'name'`` or
                ``'class_id'``.
        """
        if sort_by not in SORT_KEYS:
            raise ValueError(f'sort_by {sort_by!r}, expected one of {", ".join(SORT_KEYS)}')
        score, space = self.score, self.label_space
        shown = np.flatnonzero((score.positives > 0) | (score.true + score.false > 0))
        frequency = score.positives if self.train_images is None else self.train_images
        keys = {'ap': lambda c: (np.nan_to_num(score.average_precisions[c], nan=2.0), c),
                'frequency': lambda c: (frequency[c], c), 'name': lambda c: space.names[c],
                'class_id': lambda c: c}
        return [self._row(class_id) for class_id in sorted(shown.tolist(), key=keys[sort_by])]

    def _row(self, class_id: int) -> dict[str, object]:
        score, space = self.score, self.label_space
        values = (class_id, space.mids[class_id], space.names[class_id],
                  float(score.average_precisions[class_id]), int(score.positives[class_id]),
                  int(score.true[class_id]), int(score.false[class_id]),
                  int(score.ignored[class_id]))
        row: dict[str, object] = dict(zip(COLUMNS, values, strict=True))
        if self.train_images is not None:
            row['train images'] = int(self.train_images[class_id])
        return row

    def format(self, sort_by: str = 'ap', limit: int | None = None) -> str:
        """The table as aligned text, the first ``limit`` rows of it."""
        rows = self.rows(sort_by)
        if not rows:
            return 'no class has instances or detections'
        heads = [head for head in rows[0] if head not in ('class_id', 'mid')]
        cells = [heads] + [[f'{row[head]:.4f}' if head == 'AP' else str(row[head])
                            for head in heads] for row in rows[:limit]]
        widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
        lines = ['  '.join(cell.ljust(width) if column == 0 else cell.rjust(width)
                           for column, (cell, width) in enumerate(zip(line, widths, strict=True)))
                 for line in cells]
        if limit is not None and len(rows) > limit:
            lines.append(f'... and {len(rows) - limit} more classes')
        return '\n'.join(lines)

    def write(self, path: str | os.PathLike, sort_by: str = 'ap') -> None:
        """The table as CSV."""
        heads = [*COLUMNS, *(['train images'] if self.train_images is not None else [])]
        with atomic_write(path) as file:
            writer = csv.DictWriter(file, heads, lineterminator='\n')
            writer.writeheader()
            writer.writerows(self.rows(sort_by))
