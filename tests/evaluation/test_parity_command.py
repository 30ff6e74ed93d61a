"""``python -m evaluation.parity`` and ``python -m evaluation.tf_challenge`` as commands."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from evaluation.parity import Comparison
from evaluation.tf_challenge import running_official_code
from projects.openimages.challenge.evaluate import EvaluatorFiles
from tests.evaluation.test_parity import CASES
from tests.helpers import run_tool, turned_round

CASE = CASES['many equal scores, more than numpy sorts by insertion']


@pytest.fixture
def files(tmp_path) -> EvaluatorFiles:
    return CASE.write(tmp_path)


def to_kaggle(text: str) -> str:
    """The predictions of one image in Kaggle's format."""
    _, *rows = text.splitlines()
    fields = [row.split(',') for row in rows]
    words = ' '.join(' '.join(field[3:]) for field in fields)
    return f'ImageID,ImageWidth,ImageHeight,PredictionString\n{",".join(fields[0][:3])},{words}\n'


def test_parity_shows_both_and_ends_with_0(files):
    figures = Path(files.output_metrics).with_name('parity.json')
    result = run_tool('-m', 'evaluation.parity', *files.as_flags(), '--json', figures)
    assert result.returncode == 0, result.stderr
    assert 'largest difference 0' in result.stdout and '/m/a' in result.stdout
    told = json.loads(figures.read_text())
    assert told['largest_difference'] == 0 and told['differing'] == []
    assert told['values'] == told['official_values'] and len(told['values']) > 1
    official = Path(files.output_metrics).with_name('metrics.official.csv')
    assert official.read_bytes() == Path(files.output_metrics).read_bytes()


def test_official_evaluator_takes_kaggle_format_and_columns_in_any_order(files):
    result = run_tool('-m', 'evaluation.tf_challenge', *files.as_flags())
    assert result.returncode == 0, result.stderr
    expected = Path(files.output_metrics).read_text()
    Path(files.input_predictions).write_text(to_kaggle(CASE.predictions))
    for path in (files.input_predictions, files.input_annotations_boxes,  # columns in any order
                 files.input_annotations_labels, files.input_annotations_segm):
        turned_round(Path(path), Path(path))
    result = run_tool('-m', 'evaluation.tf_challenge', *files.as_flags())
    assert result.returncode == 0, result.stderr
    assert Path(files.output_metrics).read_text() == expected


def test_difference_is_found_and_named():
    both = {'a/mAP@0.5IOU': 0.5, 'a/AP@0.5IOU//m/cat': 0.25, 'a/AP@0.5IOU//m/dog': math.nan}
    same = Comparison(both, dict(both), 1, 1)
    assert same.differing == [] and same.largest_difference == 0
    for value, difference in ((0.25 + 2e-9, 2e-9), (math.nan, math.inf)):
        other = Comparison({**both, 'a/AP@0.5IOU//m/cat': value}, both, 1, 1)
        assert other.differing == ['a/AP@0.5IOU//m/cat']
        assert other.largest_difference == pytest.approx(difference)
        assert '/m/cat  <-- differs' in other.table()
    assert Comparison({**both, 'a/AP@0.5IOU//m/cat': 0.25 + 5e-10}, both, 1, 1).differing == []
    missing = Comparison({'a/mAP@0.5IOU': 0.5}, both, 1, 1)
    assert missing.differing == ['a/AP@0.5IOU//m/cat', 'a/AP@0.5IOU//m/dog']


def test_numpy_is_as_before_after_official_code_has_run():
    with pytest.raises(ZeroDivisionError), running_official_code():
        assert vars(np)['float'] is float and math.isnan(vars(np)['NAN'])
        raise ZeroDivisionError
    assert not hasattr(np, 'float') and not hasattr(np, 'NAN')
