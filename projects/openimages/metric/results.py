"""The result of an evaluation: a table that prints, and turns into numbers, a DataFrame, a plot."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from projects.openimages.common.files import atomic_write

if TYPE_CHECKING:  # loaded where they are used: a score needs neither
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SORT_KEYS = ('ap', 'frequency', 'name', 'class_id')
_NAMES_ON_AXIS = 40  # more cannot be read


def mean_over(values: np.ndarray, classes: np.ndarray | slice = slice(None)) -> float:
    """Mean of the values that are not nan, over the given classes; nan if there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # numpy's "Mean of empty slice"
        return float(np.nanmean(values[classes]))


@dataclass(frozen=True)
class ChallengeScore:
    """The result. Arrays are (C,), by class id.

    What is known of the classes may be left out; :func:`challenge.report.describe` puts it in.

    Attributes:
        average_precisions: float64, nan for a class without positives.
        positives: instances to be found.
        true, false, ignored: detections by what became of them.
        mids: C machine ids, or None.
        names: C display names, or None.
        train_images: (C,) int, training images in which the class has an instance, or None.
        groups: classes that one wants to see apart, (C,) bool by name.

    Example:
        >>> import numpy as np
        >>> result = ChallengeScore(np.array([0.25, 0.75, np.nan]), np.array([4, 2, 0]),
        ...                         np.array([1, 2, 0]), np.array([0, 1, 3]), np.array([0, 0, 2]),
        ...                         names=('Cat', 'Dog', 'Teddy bear'),
        ...                         groups={'pets': np.array([True, True, False])})
        >>> print(result)
        mAP 0.5000, over 2 classes
        mAP_pets 0.5000
        <BLANKLINE>
        name            AP  positives  true  false  ignored
        Cat         0.2500          4     1      0        0
        Dog         0.7500          2     2      1        0
        Teddy bear     nan          0     0      3        2
        >>> result.means
        {'mAP': 0.5, 'mAP_pets': 0.5}
        >>> result.to_dict()['classes'][1]['AP']
        0.75
        >>> result.to_pandas('frequency')['name'].to_list()
        ['Teddy bear', 'Dog', 'Cat']
    """

    average_precisions: np.ndarray
    positives: np.ndarray
    true: np.ndarray
    false: np.ndarray
    ignored: np.ndarray
    mids: Sequence[str] | None = None
    names: Sequence[str] | None = None
    train_images: np.ndarray | None = None
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def mean_average_precision(self) -> float:
        """The mean over classes that have positives; nan if none has."""
        return mean_over(self.average_precisions)

    @property
    def means(self) -> dict[str, float]:
        """``mAP``, and ``mAP_<group>`` over the classes of each group that have positives."""
        return {'mAP': self.mean_average_precision,
                **{f'mAP_{name}': mean_over(self.average_precisions, classes)
                   for name, classes in self.groups.items()}}

    def to_dict(self) -> dict[str, Any]:
        """All of it in plain Python: the means, and under ``classes`` one dict a class."""
        columns = self._columns()
        rows = zip(*(np.asarray(values).tolist() for values in columns.values()), strict=True)
        return {**self.means, 'classes': [dict(zip(columns, row, strict=True)) for row in rows]}

    def to_pandas(self, sort_by: str = 'ap') -> pd.DataFrame:
        """A row for each class that has positives or detections; its index is the class id.

        Args:
            sort_by: ``'ap'`` worst first (classes without positives last), ``'frequency'`` rarest
                in training first (without training counts: fewest positives), ``'name'`` or
                ``'class_id'``.
        """
        import pandas as pd

        if sort_by not in SORT_KEYS:
            raise ValueError(f'sort_by {sort_by!r}, expected one of {", ".join(SORT_KEYS)}')
        keys = {'ap': 'AP', 'name': self._label, 'class_id': 'class_id',
                'frequency': 'positives' if self.train_images is None else 'train images'}
        frame = pd.DataFrame({name: list(values) for name, values in self._columns().items()})
        shown = (self.positives > 0) | (self.true + self.false > 0)
        return frame[shown].sort_values(keys[sort_by], kind='stable')

    def _columns(self) -> dict[str, Any]:
        columns = {'class_id': np.arange(len(self.positives)), 'mid': self.mids,
                   'name': self.names, 'AP': self.average_precisions,
                   'positives': self.positives, 'true': self.true, 'false': self.false,
                   'ignored': self.ignored, 'train images': self.train_images}
        return {name: values for name, values in columns.items() if values is not None}

    @property
    def _label(self) -> str:
        """The column that says best which class it is."""
        return 'name' if self.names else 'mid' if self.mids else 'class_id'

    def table(self, sort_by: str = 'ap', limit: int | None = None) -> str:
        """The classes as aligned text, the first ``limit`` of them, in the order of
        :meth:`to_pandas`."""
        frame = self.to_pandas(sort_by)
        if frame.empty:
            return 'no class has instances or detections'
        heads = [self._label, *frame.columns[list(frame.columns).index('AP'):]]
        rows = [heads, *([f'{cell:.4f}' if isinstance(cell, float) else str(cell) for cell in row]
                         for row in frame[heads][:limit].itertuples(index=False))]
        label, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
        lines = [first.ljust(label) + ''.join(
                     f'  {cell:>{width}}' for cell, width in zip(rest, widths, strict=True))
                 for first, *rest in rows]
        left_out = len(frame) + 1 - len(rows)
        return '\n'.join([*lines, *([f'... and {left_out} more classes'] if left_out else [])])

    def __str__(self) -> str:
        (name, mean), *groups = self.means.items()
        lines = [f'{name} {mean:.4f}, over {(self.positives > 0).sum()} classes',
                 *(f'{name} {mean:.4f}' for name, mean in groups)]
        return '\n'.join([*lines, '', self.table()])

    def plot(self, ax: Axes | None = None, save_path: str | os.PathLike | None = None) -> Figure:
        """The average precision of every class that has positives, worst first, and the means.

        Args:
            ax: axes to draw on; None makes a figure.
            save_path: picture to write; its ending says in what format.

        Returns:
            The figure. It is not shown.
        """
        from matplotlib.figure import Figure

        frame = self.to_pandas('ap').dropna(subset='AP')
        if ax is None:
            ax = Figure(figsize=(10, 4.5), layout='constrained').subplots()
        ax.bar(np.arange(len(frame)), frame['AP'], width=1, color='0.7')
        for number, (name, mean) in enumerate(self.means.items()):
            if not np.isnan(mean):
                ax.axhline(mean, color=f'C{number}', linewidth=1, label=f'{name} {mean:.3f}')
        named = len(frame) <= _NAMES_ON_AXIS
        ax.set_xticks(np.arange(len(frame)) if named else [],
                      frame[self._label].astype(str) if named else [], rotation=60, ha='right')
        ax.set(xlabel=f'{len(frame)} classes, worst first', ylabel='average precision',
               ylim=(0, 1), xlim=(-1, max(len(frame), 1)))
        if ax.lines:
            ax.legend()
        figure = ax.get_figure(root=True)
        assert figure is not None
        if save_path is not None:
            with atomic_write(save_path, 'wb') as file:
                figure.savefig(file, dpi=150, format=Path(save_path).suffix[1:] or 'png')
        return figure
