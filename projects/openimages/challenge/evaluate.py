"""Scoring a predictions file: the official script's job, from its flags to its output CSV.

In: :class:`EvaluatorFiles`. Out: a :class:`metric.ChallengeScore`, and the CSV that the official
script would write, byte for byte.
"""

from __future__ import annotations

import argparse
import csv
import os
import unicodedata
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TextIO

from projects.openimages.challenge.csv_tables import ChallengeTables, LabelMap
from projects.openimages.challenge.match_tables import match_tables
from projects.openimages.common.errors import UserError
from projects.openimages.common.files import atomic_write, open_regular
from projects.openimages.common.parallel import worker_count
from projects.openimages.metric import ChallengeScore, score

_HELP = {
    'input_annotations_boxes': 'ground-truth boxes, hierarchically expanded (CSV)',
    'input_annotations_labels': 'image labels, hierarchically expanded (CSV)',
    'input_class_labelmap': 'classes (label_map.pbtxt)',
    'input_predictions': "detections, in the evaluator's or in Kaggle's format (CSV)",
    'output_metrics': 'names and values (CSV), written',
    'input_annotations_segm': 'ground-truth masks (CSV); without it, boxes are evaluated',
}


@dataclass(frozen=True)
class EvaluatorFiles:
    """The official script's files, named as its flags."""

    input_annotations_boxes: str
    input_annotations_labels: str
    input_class_labelmap: str
    input_predictions: str
    output_metrics: str | None = None
    input_annotations_segm: str | None = None

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser, required: bool = True) -> None:
        """Add the flags to a command line."""
        for field in fields(cls):
            parser.add_argument(f'--{field.name}', metavar='FILE', help=_HELP[field.name],
                                required=required and field.name != 'input_annotations_segm')

    @classmethod
    def of_prepared(cls, folder: str | os.PathLike, predictions: str,
                    output_metrics: str | None = None) -> EvaluatorFiles:
        """The ground truth that ``tools/prepare_data.py`` wrote for a split into its folder."""
        if not Path(folder, 'tf_boxes.csv').exists():
            raise UserError('no prepared split with annotations (no tf_boxes.csv in it)',
                            path=folder)
        boxes, labels, masks, classes = (os.path.join(folder, name) for name in (
            'tf_boxes.csv', 'tf_labels.csv', 'tf_segmentations.csv', 'label_map.pbtxt'))
        return cls(boxes, labels, classes, predictions, output_metrics, masks)

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> EvaluatorFiles:
        """The files of a parsed command line."""
        return cls(**{field.name: getattr(arguments, field.name) for field in fields(cls)})

    def as_flags(self) -> list[str]:
        """The command line that means these files."""
        return [f'--{name}={value}' for name, value in vars(self).items() if value is not None]

    def check(self) -> None:
        """Raise an error about the first input that cannot be read as a file."""
        for name, path in vars(self).items():
            if path and name != 'output_metrics':
                try:
                    open_regular(path).close()
                except FileNotFoundError:
                    raise UserError('no such file', path=path) from None

    def read(self) -> ChallengeTables:
        """Read all input files."""
        self.check()
        return ChallengeTables.read(
            self.input_annotations_boxes, self.input_annotations_labels,
            self.input_class_labelmap, self.input_predictions, self.input_annotations_segm or None)


def evaluate_files(files: EvaluatorFiles, workers: int | None = None) -> ChallengeScore:
    """Score the predictions and write the output CSV, where one is asked for.

    Args:
        files: inputs and output.
        workers: processes to match with; None takes one a CPU core. The result is the same.
    """
    workers = worker_count(workers)
    with _open_output(files.output_metrics) as file:
        tables = files.read()
        names = tables.label_map.names
        result = replace(
            score(*match_tables(tables, workers)),
            mids=tuple(names.get(row, '') for row in range(tables.label_map.num_classes)))
        if file is not None:
            write_metrics(file, result, tables.label_map, tables.with_masks)
    return result


def _open_output(path: str | None) -> AbstractContextManager[TextIO | None]:
    return nullcontext() if path is None else atomic_write(path, newline='')


def write_metrics(file: TextIO, result: ChallengeScore, label_map: LabelMap,
                  with_masks: bool) -> None:
    """The official script's output: names and values, one row for the mean and one a class."""
    kind = 'InstanceSegmentation' if with_masks else 'Detection'
    prefix = f'OpenImages{kind}Challenge_'
    rows = {f'{prefix}Precision/mAP@0.5IOU': result.mean_average_precision}
    for class_id, name in label_map.names.items():
        name = unicodedata.normalize('NFKD', name)
        rows[f'{prefix}PerformanceByCategory/AP@0.5IOU/{name}'] = float(
            result.average_precisions[class_id])
    csv.writer(file).writerows([name, str(value)] for name, value in rows.items())
