"""The evaluator's files as tables: label maps, image ids, and files that do not belong together."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from evaluation.tf_challenge import run_official
from projects.openimages.challenge.csv_tables import LabelMap
from projects.openimages.challenge.evaluate import EvaluatorFiles, evaluate_files
from projects.openimages.common.errors import UserError
from tests.evaluation.parity_cases import (
    BOX_HEAD,
    FOUND_BOX_HEAD,
    FOUND_HEAD,
    LABEL_HEAD,
    MASK_HEAD,
    mask_text,
)
from tests.helpers import assert_one_line_error, run_tool

FULL = mask_text(np.ones((2, 2), bool))


def label_map(*numbers: int) -> str:
    return ''.join(f'item {{ name: "/m/{number}" id: {number} }}\n' for number in numbers)


def write(folder: Path, found: list[str], images: str = 'ab',
          classes: str = label_map(1, 2)) -> EvaluatorFiles:
    """Ground truth of one instance of class 1 an image, its mask the whole image."""
    box = '0,1,0,1,0'
    texts = {'boxes': [BOX_HEAD, *(f'{image},/m/1,{box}' for image in images)],
             'labels': [LABEL_HEAD, *(f'{image},/m/1,1' for image in images)],
             'map': classes.splitlines(),
             'found': [FOUND_HEAD, *found],
             'masks': [MASK_HEAD, *(f'{image},/m/1,2,2,{box},{FULL}' for image in images)]}
    for name, lines in texts.items():
        (folder / f'{name}.csv').write_text('\n'.join([*lines, '']), encoding='utf-8')
    return EvaluatorFiles(*(str(folder / f'{name}.csv') for name in
                            ('boxes', 'labels', 'map', 'found', 'metrics', 'masks')))


def found(images: str) -> list[str]:
    return [f'{image},2,2,/m/1,0.5,{FULL}' for image in images]


# ------------------------------------------------------------------- files of the same images

def test_predictions_on_none_of_the_images_are_an_error_that_names_both_files(tmp_path):
    files = write(tmp_path, found('xyz'))
    with pytest.raises(UserError) as error:
        evaluate_files(files)
    assert str(error.value) == (
        f'{files.input_predictions}: none of its 3 images is among the 2 of the ground truth '
        f'{files.input_annotations_boxes}: is it of another split?')
    assert not Path(files.output_metrics).exists()


@pytest.mark.parametrize(('truth', 'predicted', 'warning'), [
    ('ab', 'ab', None),
    ('ab', 'a', None),                 # half of the ground truth
    ('abc', 'a', '1 of its 1 images are among the 3 of the ground truth'),
    ('a', 'ax', None),                 # half of the predictions
    ('a', 'axy', '1 of its 3 images are among the 1 of the ground truth'),
    ('abc', '', '0 of its 0 images are among the 3 of the ground truth'),
])
def test_few_images_in_common_are_warned_about_in_one_line(tmp_path, capsys, truth, predicted,
                                                           warning):
    files = write(tmp_path, found(predicted), truth)
    result = evaluate_files(files)
    shared = len(set(truth) & set(predicted))
    assert result.positives[0] == len(truth) and result.true[0] == shared
    expected = [] if warning is None else [
        f'warning: {files.input_predictions}: {warning} {files.input_annotations_boxes}']
    assert capsys.readouterr().err.splitlines() == expected


def test_image_counts_once_however_many_detections_it_has(tmp_path, capsys):
    evaluate_files(write(tmp_path, found('a' * 9 + 'b' + 'xy')))
    assert capsys.readouterr().err == ''


# --------------------------------------------------------------------------------- label maps

def test_class_ids_are_those_of_the_file_less_one(tmp_path):
    (tmp_path / 'map.pbtxt').write_text(label_map(7, 3))
    classes = LabelMap.read(tmp_path / 'map.pbtxt')
    assert classes.ids == {'/m/3': 2, '/m/7': 6}
    assert classes.names == {2: '/m/3', 6: '/m/7'} and list(classes.names) == [2, 6]
    assert classes.num_classes == 7


def test_enormous_id_takes_no_enormous_memory(tmp_path):
    files = write(tmp_path, found('ab'), classes=label_map(2_000_000_000, 1, 2))
    assert LabelMap.read(files.input_class_labelmap).num_classes == 3
    result = evaluate_files(files)
    assert result.positives.tolist() == [2, 0, 0]
    lines = Path(files.output_metrics).read_text().splitlines()
    assert [line.rpartition('/m/')[2] for line in lines[1:]] == ['1,1.0', '2,nan', '2000000000,nan']


def test_mean_over_a_label_map_with_gaps_is_the_official_one_to_the_last_bit(tmp_path):
    """How numpy adds up depends on the places of the numbers, those of the gaps included."""
    numbers = [3, 10, 12, 17, 25, 26, 33, 41, 50, 90, 130, 131]
    boxes, rows = [BOX_HEAD], [FOUND_BOX_HEAD]
    for place, number in enumerate(numbers):
        for n in range(place + 2):
            boxes.append(f'a,/m/{number},0.0,{(n + 1) / 64},0.0,1.0,0')
        rows.append(f'a,/m/{number},0.5,0.0,{1 / 64},0.0,1.0')
    files = write(tmp_path, [], classes=label_map(*numbers))
    Path(files.input_annotations_boxes).write_text('\n'.join([*boxes, '']))
    Path(files.input_annotations_labels).write_text(f'{LABEL_HEAD}\n')
    Path(files.input_predictions).write_text('\n'.join([*rows, '']))
    files = dataclasses.replace(files, input_annotations_segm=None)
    result = evaluate_files(files)
    ours = Path(files.output_metrics).read_bytes()
    drawn_together = result.average_precisions[np.array(numbers) - 1]
    assert np.nanmean(drawn_together) != result.mean_average_precision, 'a case that shows it'
    run_official(files)
    assert Path(files.output_metrics).read_bytes() == ours


@pytest.mark.parametrize(('classes', 'words'), [
    (label_map(1, 2, 2).replace('/m/2', '/m/9', 1), 'map.csv, row 3: '),
    (label_map(1) + 'item { name: "/m/2" id: 2', 'map.csv, row 2: '),
    ('\0\1\2' + label_map(1), 'map.csv, row 1: '),
])
def test_label_map_that_says_two_things_or_half_of_one_is_refused(tmp_path, classes, words):
    with pytest.raises(UserError, match=words):
        evaluate_files(write(tmp_path, found('ab'), classes=classes))


# ---------------------------------------------------------------------------------- their rows

def test_prediction_without_a_mask_is_refused(tmp_path):
    for text in ('', 'NaN', '""'):
        files = write(tmp_path, [*found('a'), f'b,2,2,/m/1,0.5,{text}'])
        for evaluated in (files, dataclasses.replace(files, input_annotations_segm=None)):
            with pytest.raises(UserError, match=r'found\.csv, row 3: no Mask'):
                evaluate_files(evaluated)


def test_instance_without_a_mask_is_a_box(tmp_path):
    files = write(tmp_path, found('ab'))
    path = Path(files.input_annotations_segm)
    path.write_text(path.read_text().removesuffix(f'{FULL}\n') + '\n')
    result = evaluate_files(files)
    assert (result.positives[0], result.true[0], result.ignored[0]) == (1, 1, 1)


@pytest.mark.parametrize('name', ['boxes', 'labels', 'segm'])
def test_ground_truth_that_ends_without_a_line_end_is_refused(tmp_path, name):
    files = write(tmp_path, found('ab'))
    path = Path(getattr(files, f'input_annotations_{name}'))
    path.write_bytes(path.read_bytes().removesuffix(b'\n'))
    with pytest.raises(UserError, match=r'row 3: no line end after this row'):
        evaluate_files(files)


def test_predictions_need_no_last_line_end_if_the_row_is_whole(tmp_path):
    files = write(tmp_path, found('ab'))
    path = Path(files.input_predictions)
    path.write_bytes(path.read_bytes().removesuffix(b'\n'))
    assert evaluate_files(files).true[0] == 2
    path.write_bytes(path.read_bytes().rpartition(b',')[0])
    with pytest.raises(UserError, match=r'row 3: 5 columns, expected 6'):
        evaluate_files(files)


def test_row_of_an_error_behind_blank_lines_is_the_files_line(tmp_path):
    files = write(tmp_path, ['', *found('a'), '', '', *found('b'), 'b,2,2,/m/1,high,x', ''])
    with pytest.raises(UserError, match=r"found\.csv, row 7: Score 'high'"):
        evaluate_files(files)


def test_first_number_that_is_none_is_found_among_many(tmp_path):
    rows = found('ab' * 50)
    for place in (61, 88):
        rows[place] = rows[place].replace('0.5', 'half')
    with pytest.raises(UserError, match=r"row 63: Score 'half' is not a number"):
        evaluate_files(write(tmp_path, rows))


def test_blank_lines_and_quoted_fields_change_no_result(tmp_path):
    files = write(tmp_path, ['', *found('a'), '', f'"b",2,2,"/m/1",0.5,"{FULL}"', ''])
    assert evaluate_files(files).true[0] == 2


@pytest.mark.parametrize('make', [Path.mkdir, os.mkfifo, lambda path: path.symlink_to('/dev/zero'),
                                  lambda path: path.symlink_to(path)],
                         ids=['folder', 'FIFO', 'device', 'loop of links'])
def test_predictions_that_are_no_file_are_said_in_one_line(tmp_path, make):
    files = write(tmp_path, found('ab'))
    path = Path(files.input_predictions)
    path.unlink()
    make(path)
    assert_one_line_error(run_tool('tools/evaluate.py', *files.as_flags(), timeout=60), path.name)
