"""Both evaluators side by side: this project's metric and the official one, class by class.

    python -m evaluation.parity --input_annotations_boxes=boxes.csv ... --output_metrics=metrics.csv

takes the flags of ``evaluation.tf_challenge``. ``metrics.csv`` is this project's,
``metrics.official.csv`` beside it the official one's. The exit code is 1 if any value differs by
more than 1e-9, and the differing classes are listed.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from projects.openimages.common.errors import exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()

from evaluation.tf_challenge import official, read_metrics, run_official
from projects.openimages.challenge.evaluate import EvaluatorFiles, evaluate_files
from projects.openimages.common.files import refuse_to_overwrite
from projects.openimages.common.json_values import write_json
from projects.openimages.common.options import add_json

TOLERANCE = 1e-9


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same files.

    Attributes:
        ours, theirs: values by name.
        our_seconds, their_seconds: wall time, without loading TensorFlow.
    """

    ours: dict[str, float]
    theirs: dict[str, float]
    our_seconds: float
    their_seconds: float

    @property
    def differing(self) -> list[str]:
        """Names whose values differ by more than the tolerance, or that only one side has."""
        return [name for name in {**self.theirs, **self.ours}
                if not self._difference(name) <= TOLERANCE]

    @property
    def largest_difference(self) -> float:
        """Over all names; infinite where one side has no value."""
        return max((self._difference(name) for name in {**self.theirs, **self.ours}), default=0.0)

    def _difference(self, name: str) -> float:
        ours, theirs = self.ours.get(name), self.theirs.get(name)
        if ours is None or theirs is None or math.isnan(ours) != math.isnan(theirs):
            return math.inf
        return 0.0 if math.isnan(ours) else abs(ours - theirs)

    def to_dict(self) -> dict[str, Any]:
        """The difference, the times and all values."""
        return {'largest_difference': self.largest_difference, 'seconds': self.our_seconds,
                'official_seconds': self.their_seconds, 'differing': self.differing,
                'values': self.ours, 'official_values': self.theirs}

    def table(self) -> str:
        """One line a name: both values and a mark where they differ; classes without AP left out.
        """
        differing = set(self.differing)
        lines = [f'{"ours":>12} {"official":>12}']
        for name in {**self.theirs, **self.ours}:
            ours, theirs = (side.get(name, math.nan) for side in (self.ours, self.theirs))
            if not (math.isnan(ours) and math.isnan(theirs)) or name in differing:
                mark = '  <-- differs' if name in differing else ''
                lines.append(f'{ours:12.6f} {theirs:12.6f}  {_short(name)}{mark}')
        return '\n'.join(lines)


def _short(name: str) -> str:
    """``mAP``, or the class of a per-class value."""
    return name.partition('IOU/')[2] or 'mAP'


def compare(files: EvaluatorFiles, workers: int | None = None) -> Comparison:
    """Run both evaluators on the same files; see the module for what they write."""
    official('metrics.oid_challenge_evaluation')  # TensorFlow's loading is not the evaluator's time
    start = time.perf_counter()
    evaluate_files(files, workers)
    middle = time.perf_counter()
    theirs = run_official(replace(files, output_metrics=str(official_path(files))))
    end = time.perf_counter()
    return Comparison(read_metrics(files.output_metrics), theirs, middle - start, end - middle)


def official_path(files: EvaluatorFiles) -> Path:
    """Where the official evaluator's metrics go."""
    path = Path(files.output_metrics)
    return path.with_name(f'{path.stem}.official{path.suffix}')


def main() -> int:
    parser = argparse.ArgumentParser(description='Compare this metric with the official one.')
    EvaluatorFiles.add_arguments(parser)
    add_json(parser)
    args = parser.parse_args()
    files = EvaluatorFiles.from_arguments(args)
    if args.json:
        refuse_to_overwrite(args.json, *filter(None, vars(files).values()))
    result = compare(files)
    write_json(args.json, result.to_dict())
    print(result.table())
    print(f'{result.our_seconds:.2f} s, official {result.their_seconds:.2f} s '
          f'({result.their_seconds / result.our_seconds:.0f} times as long); '
          f'largest difference {result.largest_difference:.3g}')
    for name in result.differing:
        print(f'differs by more than {TOLERANCE:g}: {name}')
    return 1 if result.differing else 0


if __name__ == '__main__':
    run_command(main)
