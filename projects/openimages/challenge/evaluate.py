"""Scoring a predictions file: the official script's job, from its flags to its output CSV.

In: :class:`EvaluatorFiles`. Out: a :class:`metric.ChallengeScore`, and the CSV that the official
script would write, byte for byte.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import signal
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields

import numpy as np

from projects.openimages.challenge.csv_tables import ChallengeTables, LabelMap
from projects.openimages.common.files import atomic_write
from projects.openimages.common.progress import progress
from projects.openimages.masks import MaskError
from projects.openimages.metric import (
    DROPPED,
    ChallengeScore,
    Matches,
    count_positives,
    match_image,
    score,
)

_HELP = {
    'input_annotations_boxes': 'ground-truth boxes, hierarchically expanded (CSV)',
    'input_annotations_labels': 'image labels, hierarchically expanded (CSV)',
    'input_class_labelmap': 'classes (label_map.pbtxt)',
    'input_predictions': "detections, in the evaluator's or in Kaggle's format (CSV)",
    'output_metrics': 'names and values (CSV), written',
    'input_annotations_segm': 'ground-truth masks (CSV); without it, boxes are evaluated',
}
_IMAGES_A_TASK = 128
_FEW_DETECTIONS = 20_000  # for so many, starting processes costs more than it saves


@dataclass(frozen=True)
class EvaluatorFiles:
    """The official script's files, named as its flags."""

    input_annotations_boxes: str
    input_annotations_labels: str
    input_class_labelmap: str
    input_predictions: str
    output_metrics: str
    input_annotations_segm: str | None = None

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the flags to a command line."""
        for field in fields(cls):
            parser.add_argument(f'--{field.name}', metavar='FILE', help=_HELP[field.name],
                                required=field.name != 'input_annotations_segm')

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> EvaluatorFiles:
        """The files of a parsed command line."""
        return cls(**{field.name: getattr(arguments, field.name) for field in fields(cls)})

    def as_flags(self) -> list[str]:
        """The command line that means these files."""
        return [f'--{name}={value}' for name, value in vars(self).items() if value is not None]

    def read(self) -> ChallengeTables:
        """Read all input files."""
        return ChallengeTables.read(
            self.input_annotations_boxes, self.input_annotations_labels,
            self.input_class_labelmap, self.input_predictions, self.input_annotations_segm or None)


def evaluate_files(files: EvaluatorFiles, workers: int | None = None) -> ChallengeScore:
    """Score the predictions and write the output CSV.

    Args:
        files: inputs and output.
        workers: processes to match with; None takes one a CPU core. The result is the same.
    """
    tables = files.read()
    matches, positives = match_tables(tables, workers)
    result = score(matches, positives)
    write_metrics(files.output_metrics, result, tables.label_map, tables.with_masks)
    return result


def match_tables(tables: ChallengeTables,
                 workers: int | None = None) -> tuple[Matches, np.ndarray]:
    """Match all images.

    Returns:
        The matches of all detections that count, ``image`` being the place in ``tables.images``,
        and the (C,) instances to be found.
    """
    spans = [range(start, min(start + _IMAGES_A_TASK, len(tables.images)))
             for start in range(0, len(tables.images), _IMAGES_A_TASK)]
    workers = workers or len(os.sched_getaffinity(0))
    if workers == 1 or len(tables.predictions.scores) < _FEW_DETECTIONS:
        results: Iterator = (_match_span(tables, span) for span in spans)
        return _collect(results, tables)
    global _tables
    _tables = tables  # forked processes find it here, without a copy
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context('fork'), _leave_interrupts)
    try:
        return _collect(pool.map(_match_inherited, spans), tables)
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, do not do the rest first
        _tables = None


_tables: ChallengeTables | None = None


def _leave_interrupts() -> None:
    """Ctrl-C reaches all processes; the first of them deals with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _match_inherited(span: range) -> tuple[Matches, np.ndarray]:
    return _match_span(_tables, span)


def _collect(results: Iterator[tuple[Matches, np.ndarray]],
             tables: ChallengeTables) -> tuple[Matches, np.ndarray]:
    positives = np.zeros(tables.label_map.num_classes, np.int64)
    parts = []
    with progress(total=len(tables.images), desc='images', unit='img') as bar:
        for matches, found in results:
            parts.append(matches)
            positives += found
            bar.update(min(_IMAGES_A_TASK, bar.total - bar.n))
    return Matches.concatenate(parts), positives


def _match_span(tables: ChallengeTables, images: range) -> tuple[Matches, np.ndarray]:
    num_classes = tables.label_map.num_classes
    positives = np.zeros(num_classes, np.int64)
    parts = []
    for image in images:
        truth, detections = tables.truth.image(image), tables.predictions.image(image)
        try:
            positives += count_positives(truth, num_classes)
            matches, = match_image(truth, detections, image=image)
        except MaskError:
            for masks in (truth.masks, detections.masks):
                if masks is not None:
                    masks.explain()  # says file and row
            raise
        parts.append(matches.select(matches.outcome != DROPPED))
    return Matches.concatenate(parts), positives


def write_metrics(path: str | os.PathLike, result: ChallengeScore, label_map: LabelMap,
                  with_masks: bool) -> None:
    """The official script's output: names and values, one row for the mean and one a class."""
    kind = 'InstanceSegmentation' if with_masks else 'Detection'
    prefix = f'OpenImages{kind}Challenge_'
    rows = {f'{prefix}Precision/mAP@0.5IOU': result.mean_average_precision}
    for class_id, name in label_map.names.items():
        name = unicodedata.normalize('NFKD', name)
        rows[f'{prefix}PerformanceByCategory/AP@0.5IOU/{name}'] = float(
            result.average_precisions[class_id])
    with atomic_write(path, newline='') as file:
        csv.writer(file).writerows([name, str(value)] for name, value in rows.items())
