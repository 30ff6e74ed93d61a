"""What a sweep found: its points, as a table, a CSV and a picture, and the best of them."""

from __future__ import annotations

import csv
import itertools
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from projects.openimages.common.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEAR = 0.001
"""As good as the best: mAP that a smaller file may cost."""


@dataclass(frozen=True)
class SweepPoint:
    """One row of the table.

    Attributes:
        expand_hierarchy, score_thr, max_per_img: the options of the dump; None is no cap.
        mean_ap: the challenge's mAP.
        detections: how many the submission has.
        size: bytes of it in Kaggle's format.
    """

    expand_hierarchy: bool
    score_thr: float
    max_per_img: int | None
    mean_ap: float
    detections: int
    size: int

    @property
    def options(self) -> str:
        """The options of ``tools/test.py`` that give it."""
        cap = '' if self.max_per_img is None else f' --max-per-img {self.max_per_img}'
        expand = '' if self.expand_hierarchy else 'no-'
        return f'--score-thr {self.score_thr:g}{cap} --{expand}expand-hierarchy'


@dataclass(frozen=True)
class SweepResult:
    """The points of a grid, one or more; prints as a table with the best mAP marked."""

    points: tuple[SweepPoint, ...]

    @property
    def best(self) -> SweepPoint:
        """The highest mAP; of equal ones the smallest file."""
        return max(self.points,
                   key=lambda point: (np.nan_to_num(point.mean_ap, nan=-1.), -point.size))

    def smallest_near_best(self, tolerance: float = NEAR) -> SweepPoint:
        """The smallest file whose mAP is within ``tolerance`` of the best."""
        best = self.best
        near = [point for point in self.points if point.mean_ap >= best.mean_ap - tolerance]
        return min(near, key=lambda point: point.size, default=best)

    def __str__(self) -> str:
        best = self.best
        lines = ['expansion  cap  threshold      mAP  detections     size']
        for point in self.points:
            cap = '-' if point.max_per_img is None else point.max_per_img
            lines.append(f'{"yes" if point.expand_hierarchy else "no":>9}{cap:>5}'
                         f'{point.score_thr:>11g}{point.mean_ap:>9.4f}{point.detections:>12}'
                         f'{point.size / 1e6:>8.1f}M{"  best" if point is best else ""}')
        return '\n'.join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The points, the best and the smallest near it as plain values."""
        return {'points': [asdict(point) for point in self.points], 'best': asdict(self.best),
                'smallest_near_best': asdict(self.smallest_near_best())}

    def write_csv(self, path: str | os.PathLike) -> None:
        """Write the points, a row each."""
        with atomic_write(path) as file:
            writer = csv.DictWriter(file, [field.name for field in fields(SweepPoint)],
                                    lineterminator='\n')
            writer.writeheader()
            writer.writerows(map(asdict, self.points))

    def plot(self, ax: Axes | None = None,
             save_path: str | os.PathLike | None = None) -> Figure:
        """Draw mAP against file size, one line an expansion and cap.

        Args:
            ax: where to; None makes a figure.
            save_path: also write the figure to this file, in the format of its suffix.
        """
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, NullFormatter

        figure = ax.get_figure(root=True) if ax else Figure(figsize=(8, 6.5), layout='constrained')
        assert figure is not None
        ax = ax or figure.subplots()
        caps = sorted({point.max_per_img for point in self.points}, key=_room)
        for (expand, *shared), points in self._lines().items():
            # Lines with other caps may still have points in common: the wider ones lie below.
            width = 1.2 + 3.6 * caps.index(shared[0]) / len(caps)
            ax.plot([point.size / 1e6 for point in points], [point.mean_ap for point in points],
                    'o-' if expand else 's--', color=f'C{caps.index(shared[0])}', linewidth=width,
                    markersize=3 + width,
                    label=f'{"" if expand else "not "}expanded, {_in_words(shared)}')
        title = ['Each line: score thresholds from high (left) to low (right)']
        for words, mark, point in (('smallest near the best', 'D', self.smallest_near_best()),
                                   ('best', '*', self.best)):
            ax.plot(point.size / 1e6, point.mean_ap, mark, color='black', markersize=11,
                    markerfacecolor='white', linestyle='none', label=words)
            title.insert(1, f'{words}: mAP {point.mean_ap:.4f}, {point.size / 1e6:.3g} MB, '
                            f'{point.options}')
        ax.set(xscale='log', xlabel='file size, MB', ylabel='challenge mAP')
        ax.set_title('\n'.join(title), fontsize=9)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        ax.xaxis.set_major_formatter('{x:g}')
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.margins(y=0.12)
        ax.grid(alpha=0.3)
        ax.legend(fontsize=7, loc='upper center', bbox_to_anchor=(0.5, -0.12), ncols=2)
        if save_path is not None:
            with atomic_write(save_path, 'wb') as file:
                figure.savefig(file, dpi=120, format=Path(save_path).suffix[1:])
        return figure

    def _lines(self) -> dict[tuple, list[SweepPoint]]:
        """The points of each line, ascending in size, by its expansion and its caps, widest first.

        Caps that no image reaches give the same points, and so one line.
        """
        names: dict[tuple, tuple] = {}
        points: dict[tuple, list[SweepPoint]] = {}
        ordered = sorted(self.points, key=lambda point: (point.expand_hierarchy,
                                                         -_room(point.max_per_img)))
        for (expand, cap), group in itertools.groupby(
                ordered, key=lambda point: (point.expand_hierarchy, point.max_per_img)):
            line = sorted(group, key=lambda point: (point.size, -point.score_thr))
            shape = (expand, *((point.size, point.mean_ap) for point in line))
            names[shape] = (*names.get(shape, (expand,)), cap)
            points[shape] = line
        return {names[shape]: line for shape, line in points.items()}


def _room(cap: int | None) -> float:
    return np.inf if cap is None else cap


def _in_words(caps: list[int | None]) -> str:
    """Caps of one line, the widest first."""
    numbers = ' or '.join(str(cap) for cap in caps if cap is not None)
    words = ['no cap'] * (None in caps) + [f'at most {numbers} an image'] * bool(numbers)
    return ', or '.join(words)
