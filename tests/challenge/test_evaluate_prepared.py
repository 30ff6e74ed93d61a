"""``tools/evaluate.py PREDICTIONS --prepared DIR``: the short way."""

import json
import shutil
from pathlib import Path

import pytest

from tests.helpers import assert_one_line_error, run_tool


def as_prepared(files, folder):
    """The files' ground truth under the names of a prepared split."""
    folder.mkdir()
    for source, name in ((files.input_annotations_boxes, 'tf_boxes.csv'),
                         (files.input_annotations_labels, 'tf_labels.csv'),
                         (files.input_annotations_segm, 'tf_segmentations.csv'),
                         (files.input_class_labelmap, 'label_map.pbtxt')):
        shutil.copy(source, folder / name)
    return folder


def test_prepared_split_stands_for_the_four_files(files, tmp_path):
    Path(files.input_predictions).write_text(
        Path(files.input_predictions).read_text().replace('0.7', '0.95'))
    assert run_tool('tools/evaluate.py', *files.as_flags()).returncode == 0
    folder = as_prepared(files, tmp_path / 'prepared')
    result = run_tool('tools/evaluate.py', files.input_predictions, '--prepared', folder,
                      '--output_metrics', tmp_path / 'again.csv', '--json', tmp_path / 'ap.json')
    assert result.returncode == 0, result.stderr
    assert 'mAP 1.000000 over 1 classes' in result.stdout
    assert (tmp_path / 'again.csv').read_bytes() == Path(files.output_metrics).read_bytes()
    scores = json.loads((tmp_path / 'ap.json').read_text())
    assert scores['mAP'] == 1
    assert [(row['mid'], row['AP'], row['true']) for row in scores['classes']] == [
        ('/m/cat', 1, 1), ('/m/dog', None, 0)]


def test_prepared_split_needs_no_output(files, tmp_path):
    folder = as_prepared(files, tmp_path / 'prepared')
    before = sorted(tmp_path.iterdir())
    result = run_tool('tools/evaluate.py', files.input_predictions, '--prepared', folder)
    assert result.returncode == 0, result.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_folder_that_is_no_prepared_split_is_refused(files, tmp_path):
    assert_one_line_error(run_tool('tools/evaluate.py', files.input_predictions, '--prepared',
                                   tmp_path), 'no prepared split', str(tmp_path))


@pytest.mark.parametrize(('arguments', 'words'), [
    ([], 'needed: PREDICTIONS.csv with --prepared DIR, or --input_annotations_boxes'),
    (['p.csv'], 'needed'),
    (['--prepared', '.'], 'name the predictions'),
    (['p.csv', '--input_predictions', 'q.csv', '--prepared', '.'], 'given twice'),
    (['p.csv', '--prepared', '.', '--input_class_labelmap', 'm'], 'the ground truth is given'),
])
def test_command_line_that_says_too_little_or_too_much(arguments, words):
    result = run_tool('tools/evaluate.py', *arguments)
    assert result.returncode == 2
    assert words in result.stderr
