"""The report's plots, each drawn once and saved as SVG for the page and as PNG.

Each function draws on axes and knows nothing of files. In the SVG, what is ink takes the page's
colour of text (``currentColor``), so that one picture serves the dark and the light page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from projects.openimages.analysis.calibration import BINS, OUTCOME_NAMES, Calibration
from projects.openimages.analysis.compare import Comparison
from projects.openimages.metric import ChallengeScore

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Plot = Callable[['Axes'], object]
COLOURS = ('#3a86c8', '#d9653b', '#4f9d69', '#b0688f', '#c9a227', '#7a77b9', '#8a8f98')
GOOD, BAD = COLOURS[2], COLOURS[1]
_INK, _STAND_IN = '#202126', '#010203'  # the stand-in becomes currentColor
_SHOWN_CLASSES, _NAME_LENGTH = 15, 28


def render(name: str, plot: Plot, size: tuple[float, float]) -> tuple[str, bytes]:
    """A plot as SVG text that can stand in a page, and as PNG.

    Args:
        name: short, for ids.
        plot: draws on the axes that it is given.
        size: inches.
    """
    return _svg(name, _saved(plot, size, _STAND_IN, 'svg').decode()), _saved(plot, size, _INK,
                                                                             'png')


def _saved(plot: Plot, size: tuple[float, float], ink: str, kind: str) -> bytes:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    inks = ('text.color', 'axes.labelcolor', 'axes.edgecolor', 'xtick.color', 'ytick.color',
            'grid.color')
    style: dict[Any, Any] = {
        **dict.fromkeys(inks, ink), 'axes.facecolor': 'none', 'axes.titlesize': 10,
        'axes.spines.top': False, 'axes.spines.right': False, 'grid.alpha': 0.2,
        'legend.frameon': False, 'font.family': 'DejaVu Sans', 'font.size': 9,
        'text.parse_math': False, 'svg.fonttype': 'none', 'svg.hashsalt': 'report'}
    out = io.BytesIO()
    with mpl.rc_context(style):
        figure = Figure(figsize=size, layout='constrained',
                        facecolor='white' if kind == 'png' else 'none')
        plot(figure.subplots())
        figure.savefig(out, format=kind, dpi=150,
                       metadata={'Date': None} if kind == 'svg' else None)
    return out.getvalue()


def _svg(name: str, text: str) -> str:
    text = text[text.index('<svg'):].replace(_STAND_IN, 'currentColor')
    text = re.sub(r'<metadata>.*?</metadata>', '', text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf'\1{name}-', text)  # ids are the page's
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1', re.sub(
        r'(<svg[^>]*?) height="[^"]*"', r'\1', text, count=1), count=1)


def error_costs(costs: Mapping[str, float]) -> Plot:
    """The mAP that each kind of error costs, as bars."""
    def plot(ax: Axes) -> None:
        names = list(costs)
        values = np.nan_to_num(np.array(list(costs.values())))
        bars = ax.barh(names, values, color=COLOURS[0])
        ax.bar_label(bars, [f'{value:.4f}' for value in values], padding=3)
        ax.invert_yaxis()
        ax.margins(x=0.15)
        ax.set_xlabel('mAP gained when put right')
    return plot


def outcome_shares(counts: Mapping[str, int]) -> Plot:
    """How many detections came to what, as bars."""
    def plot(ax: Axes) -> None:
        total = max(sum(counts.values()), 1)
        bars = ax.barh(list(counts), list(counts.values()), color=COLOURS[5])
        ax.bar_label(bars, [f'{count:,} ({count / total:.1%})' for count in counts.values()],
                     padding=3)
        ax.invert_yaxis()
        ax.margins(x=0.35)
        ax.set_xlabel('detections')
    return plot


def shortened(name: str) -> str:
    """A class name that leaves room for the plot."""
    return name if len(name) <= _NAME_LENGTH else name[:_NAME_LENGTH - 1] + '…'


def class_precisions(score: ChallengeScore) -> Plot:
    """The AP of every class, worst first, with the means beside."""
    def plot(ax: Axes) -> None:
        score.plot(ax)
        ax.set_xticks(ax.get_xticks(), [shortened(one.get_text()) for one in ax.get_xticklabels()])
        if ax.lines:
            ax.legend(loc='center left', bbox_to_anchor=(1, 0.5))
    return plot


def line(values: Mapping[int, float] | Mapping[float, float], label: str,
         mark: str | None = None) -> Plot:
    """The mAP over something; the highest point is labelled where ``mark`` names it."""
    def plot(ax: Axes) -> None:
        places, heights = np.array(list(values)), np.array(list(values.values()))
        ax.plot(places, heights, 'o-', color=COLOURS[0], markersize=3)
        if mark and len(heights) and not np.isnan(heights).all():
            best = int(np.nanargmax(heights))
            left = places[best] <= places.mean()
            ax.annotate(f'{heights[best]:.4f} {mark} {places[best]:g}',
                        (places[best], heights[best]), textcoords='offset points',
                        xytext=(4 if left else -4, 8), ha='left' if left else 'right')
        ax.set(xlabel=label, ylabel='mAP')
        ax.set_ylim(0, np.nanmax(heights, initial=0.05) * 1.15)
        ax.grid()
    return plot


def reliability(calibration: Calibration) -> Plot:
    """Precision over score; on the diagonal scores mean what they say."""
    def plot(ax: Axes) -> None:
        ax.plot([0, 1], [0, 1], '--', color=COLOURS[6], linewidth=1)
        ax.bar((np.arange(BINS) + 0.5) / BINS, np.nan_to_num(calibration.precisions), 0.9 / BINS,
               color=COLOURS[0], alpha=0.5)
        ax.plot(calibration.mean_scores, calibration.precisions, 'o', color=COLOURS[0],
                markersize=3)
        ax.set(xlabel='score', ylabel='share of true', xlim=(0, 1), ylim=(0, 1.02),
               title=f'expected calibration error {calibration.expected_error:.3f}')
    return plot


def score_histogram(calibration: Calibration) -> Plot:
    """How many detections have which score, by outcome, on a logarithmic scale."""
    def plot(ax: Axes) -> None:
        edges = np.arange(BINS + 1) / BINS
        for name, counts, colour in zip(OUTCOME_NAMES.values(), calibration.counts,
                                        (GOOD, BAD, COLOURS[4], COLOURS[6]), strict=True):
            ax.stairs(counts, edges, color=colour, label=name, linewidth=1.5)
        ax.set_yscale('symlog', linthresh=1)
        ax.yaxis.set_major_formatter(lambda value, _: f'{value:,.0f}')
        ax.set(xlabel='score', ylabel='detections', xlim=(0, 1))
        ax.set_ylim(bottom=0)
        ax.legend(loc='lower center', bbox_to_anchor=(0.5, 1), ncols=4)
    return plot


def differences(comparison: Comparison, names: Sequence[str]) -> Plot:
    """The classes with the largest gains and losses, with their intervals."""
    def plot(ax: Axes) -> None:
        classes = comparison.classes
        if len(classes) > 2 * _SHOWN_CLASSES:
            classes = [*classes[:_SHOWN_CLASSES], *classes[-_SHOWN_CLASSES:]]
        for place, one in enumerate(classes):
            sure = one.interval.excludes_zero
            colour: Any = (GOOD if one.difference > 0 else BAD) if sure else COLOURS[6]
            ax.plot([one.interval.low, one.interval.high], [place, place], color=colour)
            ax.plot([one.difference], [place], 'o', color=colour, markersize=4)
        ax.set_yticks(range(len(classes)), [shortened(names[one.class_id]) for one in classes])
        ax.axvline(0, color=COLOURS[6], linewidth=1)
        ax.invert_yaxis()
        ax.set_xlabel('difference of AP, 95% interval (grey: holds 0)')
    return plot
