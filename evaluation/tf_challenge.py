"""The official evaluator, unchanged: the TF Object Detection API's challenge evaluation script.

In: its own flags; predictions in its own or in Kaggle's format. Out: its own metrics CSV.

    python -m evaluation.tf_challenge --input_annotations_boxes=boxes.csv \\
        --input_annotations_labels=labels.csv --input_annotations_segm=segmentations.csv \\
        --input_class_labelmap=label_map.pbtxt --input_predictions=predictions.csv \\
        --output_metrics=metrics.csv

The package uses ``np.float`` and ``np.NAN``, which NumPy 2 removed; they exist again only while
its code runs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from projects.openimages.common.errors import UserError, exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()

import numpy as np

from projects.openimages.challenge.evaluate import EvaluatorFiles
from projects.openimages.common.files import atomic_write, open_regular
from projects.openimages.common.progress import progress
from projects.openimages.submissions.formats import TF, Submission, write_submission

INSTALL = ('make setup, or pip install -r requirements/tf_evaluator.txt and then '
           'pip install --no-deps -r requirements/tf_evaluator_nodeps.txt')
_ALIASES = {'float': float, 'NAN': np.nan}


@contextlib.contextmanager
def running_official_code() -> Iterator[None]:
    """``np.float`` and ``np.NAN`` as in NumPy 1, and no log line an image, inside the block only.
    """
    missing = [name for name in _ALIASES if name not in vars(np)]
    for name in missing:
        setattr(np, name, _ALIASES[name])
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        root.setLevel(level)
        for name in missing:
            delattr(np, name)


def official(module: str) -> ModuleType:
    """A module of the TF Object Detection API, such as ``'metrics.oid_challenge_evaluation'``.

    Raises:
        UserError: the package is not installed.
    """
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # no device listing from TensorFlow
    # The evaluator's generated code is of protobuf 3; the TensorFlow for Python 3.13 needs a later
    # one, whose implementation in Python still reads such code.
    os.environ.setdefault('PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION', 'python')
    try:
        with running_official_code():
            return importlib.import_module(f'object_detection.{module}')
    except ModuleNotFoundError as error:
        raise UserError(f'the official evaluator is not installed (no module {error.name!r}); '
                        f'install it with: {INSTALL}') from None


def run_official(files: EvaluatorFiles) -> dict[str, float]:
    """Run the official script's ``main`` and return what it wrote.

    Predictions in Kaggle's format are converted row by row to a temporary file first.
    """
    script = official('metrics.oid_challenge_evaluation')
    from absl.testing import flagsaver  # a requirement of the evaluator, not of this project

    files.check()
    with atomic_write(files.output_metrics, 'wb') as out, \
            tempfile.TemporaryDirectory() as folder:
        written = Path(folder, 'metrics.csv')
        inputs = replace(files, output_metrics=str(written),
                         input_predictions=_in_tf_format(files.input_predictions, folder))
        with flagsaver.flagsaver(), running_official_code():
            script.FLAGS([script.__name__, *inputs.as_flags()])
            script.main([])
        out.write(written.read_bytes())
    return read_metrics(files.output_metrics)


def read_metrics(path: str | os.PathLike) -> dict[str, float]:
    """A metrics CSV as a dict, in its order."""
    lines = Path(path).read_text(encoding='utf-8').splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(',') for line in lines)}


def _in_tf_format(predictions: str, folder: str) -> str:
    with open_regular(predictions) as file:
        if b'PredictionString' not in file.readline():
            return predictions
    converted = os.path.join(folder, 'predictions.csv')
    with Submission(predictions) as submission, atomic_write(converted, 'wb') as file:
        write_submission(file, progress(submission, desc='to TF format', unit='img'), TF)
    return converted


def main() -> None:
    parser = argparse.ArgumentParser(description='Run the official challenge evaluator.')
    EvaluatorFiles.add_arguments(parser)
    files = EvaluatorFiles.from_arguments(parser.parse_args())
    metrics = run_official(files)
    name, value = next(iter(metrics.items()))
    print(f'{name} {value:.6f}; {files.output_metrics}')


if __name__ == '__main__':
    run_command(main)
