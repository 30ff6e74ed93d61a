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


@dataclass(frozen=True)
class SweepResult:
    """The points of a grid, one or more; prints as a table with the best mAP marked."""

    points: tuple[SweepPoint, ...]

    @property
    def best(self) -> SweepPoint:
        """The highest mAP; of equal ones the smallest file."""
        return max(self.points,
                   key=lambda point: (np.nan_to_num(point.mean_ap, nan=-1.), -point.size))

    def smallest_near_best(self, tolerance: float = 0.001) -> SweepPoint:
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

        figure = ax.get_figure(root=True) if ax else Figure(figsize=(8, 5), layout='constrained')
        assert figure is not None
        ax = ax or figure.subplots()
        caps = sorted({point.max_per_img for point in self.points}, key=lambda cap: cap or np.inf)
        for (expand, cap), line in itertools.groupby(
                self.points, key=lambda point: (point.expand_hierarchy, point.max_per_img)):
            points = sorted(line, key=lambda point: point.size)
            ax.plot([point.size / 1e6 for point in points], [point.mean_ap for point in points],
                    'o-' if expand else 's--', color=f'C{caps.index(cap)}', markersize=4,
                    label=f'{"" if expand else "not "}expanded, '
                          f'{"no cap" if cap is None else f"at most {cap} an image"}')
        best = self.best
        ax.annotate(f'{best.mean_ap:.4f} from {best.score_thr:g}', (best.size / 1e6, best.mean_ap),
                    textcoords='offset points', xytext=(-6, 8), ha='right')
        ax.set(xscale='log', xlabel='file size, MB', ylabel='challenge mAP',
               title='Each line: score thresholds from high (left) to low (right)')
        ax.margins(y=0.12)
        ax.grid(alpha=0.3)
        ax.legend(fontsize=7)
        if save_path is not None:
            with atomic_write(save_path, 'wb') as file:
                figure.savefig(file, dpi=120, format=Path(save_path).suffix[1:])
        return figure
