"""Curves of training runs: losses and scores over iterations, from ``scalars.json``.

In: what MMEngine's runs write, a JSON object a line with ``step`` and any numbers. Out: a picture,
a panel a scalar and a line a run.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from projects.openimages.analysis.plots import COLOURS
from projects.openimages.common.errors import UserError

Curve = dict[int, float]
"""Value by step."""


def read_run(path: str | os.PathLike) -> dict[str, Curve]:
    """The curves of a run by the names of their scalars.

    Args:
        path: a ``scalars.json``, or a work dir: a training that was interrupted and resumed has
            left several in it, and where they overlap the later one counts.

    Raises:
        UserError: there is none, or it has a line that is no JSON object with a step.
    """
    path = Path(path)
    files = sorted(path.glob('*/vis_data/scalars.json')) if path.is_dir() else [path]
    if not files:
        raise UserError('no */vis_data/scalars.json in this folder: expected the work dir of a '
                        'training', path=path)
    curves: dict[str, Curve] = {}
    for file in files:
        started = {name: curve for name, curve in _read_file(file).items() if curve}
        for name, curve in started.items():
            kept = curves.get(name, {})
            first = min(curve)
            curves[name] = {**{step: value for step, value in kept.items() if step < first},
                            **curve}
    if not curves:
        raise UserError('no scalar yet', path=path)
    return curves


def _read_file(path: Path) -> dict[str, Curve]:
    curves: dict[str, Curve] = {}
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except FileNotFoundError:
        raise UserError('no such file (the scalars of a run)', path=path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'cannot be read: {error}', path=path) from None
    for number, line in enumerate(lines, start=1):
        try:
            scalars = json.loads(line)
            step = int(scalars.pop('step'))
        except (ValueError, KeyError, AttributeError, TypeError):
            if number == len(lines):  # a run that was killed, or goes on, may have half a line
                break
            raise UserError('expected a JSON object with a step', path=path, row=number) from None
        for name, value in scalars.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                curves.setdefault(name, {})[step] = float(value)
    return curves


def plot_runs(runs: Mapping[str, Mapping[str, Curve]], keys: Sequence[str] = ()) -> Figure:
    """A panel for each scalar, with a line for each run that has it.

    Args:
        runs: curves by name of the run, as :func:`read_run` gives them.
        keys: which scalars; without any, ``loss`` and every ``mAP``, as far as they are there.

    Raises:
        UserError: a scalar that no run has.
    """
    known = list(dict.fromkeys(name for curves in runs.values() for name in curves))
    keys = list(dict.fromkeys(keys)) or [
        name for name in known if name == 'loss' or name.rpartition('/')[2] == 'mAP']
    for key in keys or ['loss']:
        if key not in known:
            raise UserError(f'--keys {key}: no run has it, they have {_some(known)}')
    columns = min(len(keys), 2)
    rows = math.ceil(len(keys) / columns)
    figure = Figure(figsize=(6.4 * columns, 3.6 * rows), layout='constrained')
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for key, panel in zip(keys, panels, strict=False):  # keys first: it must not take a panel more
        for number, (name, curves) in enumerate(runs.items()):
            if key in curves:
                steps = sorted(curves[key])
                panel.plot(steps, [curves[key][step] for step in steps], label=name,
                           color=COLOURS[number % len(COLOURS)], linewidth=1.2,
                           marker='o' if len(steps) < _FEW else None, markersize=3)
        panel.set(title=key, xlabel='iteration')
        panel.grid(alpha=0.2)
        panel.spines[['top', 'right']].set_visible(False)
        if len(runs) > 1:
            panel.legend(frameon=False)
    for panel in panels:  # one is left over where their number is odd
        panel.set_axis_off()
    return figure


_FEW = 30  # points of a curve that are worth a mark each


def _some(names: Iterable[str], most: int = 12) -> str:
    names = [name for name in names if '/AP/' not in name]
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more
