"""``tools/evaluate.py``: what it accepts, what it refuses, and with what words."""

import base64
import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest

from projects.openimages.challenge.evaluate import EvaluatorFiles, evaluate_files
from projects.openimages.challenge.match_tables import match_tables
from projects.openimages.common.errors import UserError
from projects.openimages.metric import Matches
from tests.challenge.conftest import HEIGHT, WIDTH, square
from tests.common.processes import wait_until, workers_of
from tests.helpers import REPOSITORY, assert_one_line_error, run_tool


def change(path, old, new):
    """Replace a text that must stand in the file."""
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new, 1))


def test_command_writes_what_the_official_script_writes(files):
    result = run_tool('tools/evaluate.py', *files.as_flags())
    assert result.returncode == 0, result.stderr
    assert 'mAP 1.000000 over 1 classes' in result.stdout
    prefix = 'OpenImagesInstanceSegmentationChallenge_'
    assert Path(files.output_metrics).read_bytes().decode() == (
        f'{prefix}Precision/mAP@0.5IOU,1.0\r\n'
        f'{prefix}PerformanceByCategory/AP@0.5IOU//m/cat,1.0\r\n'
        f'{prefix}PerformanceByCategory/AP@0.5IOU//m/dog,nan\r\n')


def test_masks_file_without_rows_leaves_boxes_without_masks(files):
    path = Path(files.input_annotations_segm)
    path.write_text(path.read_text().splitlines()[0] + '\n')
    result = evaluate_files(files)
    assert result.positives.tolist() == [0, 0] and result.ignored.tolist() == [2, 0]


def test_without_masks_boxes_are_evaluated(files):
    boxes_only = dataclasses.replace(files, input_annotations_segm=None)
    assert evaluate_files(boxes_only).positives.tolist() == [2, 0]
    assert 'OpenImagesDetectionChallenge_' in Path(files.output_metrics).read_text()


def test_kaggle_format_gives_the_same_result(files, tmp_path):
    expected = evaluate_files(files)
    kaggle = tmp_path / 'kaggle.csv'
    kaggle.write_text(
        'ImageID,ImageWidth,ImageHeight,PredictionString\n'
        f'b,{WIDTH},{HEIGHT},/m/cat 0.8 {square(4, 8)} /m/dog 0.7 {square(0, 2)}\n'
        f'a,{WIDTH},{HEIGHT},/m/cat 0.9 {square(0, 4)}\nz,{WIDTH},{HEIGHT},\n')
    result = evaluate_files(dataclasses.replace(files, input_predictions=str(kaggle)))
    assert str(result) == str(expected)


@pytest.fixture
def many(files, monkeypatch) -> EvaluatorFiles:
    """Sixteen more images as ``b``, each a task of its own, with detections of many scores."""
    monkeypatch.setattr('projects.openimages.challenge.match_tables._FEW_DETECTIONS', 0)
    monkeypatch.setattr('projects.openimages.challenge.match_tables._IMAGES_A_TASK', 1)
    for image in 'cdefghijklmnopqr':
        append(files.input_annotations_boxes, f'{image},/m/cat,0.5,1.0,0.0,1.0,0')
        append(files.input_annotations_labels, f'{image},/m/dog,0')
        append(files.input_annotations_segm,
               f'{image},/m/cat,{WIDTH},{HEIGHT},0.5,1.0,0.0,1.0,0,{square(4, 8)}')
        for left, name in itertools.product(range(5), ('cat', 'dog')):
            append(files.input_predictions, f'{image},{WIDTH},{HEIGHT},/m/{name},'
                   f'0.{(left + ord(image)) % 7},{square(left, left + 4)}')
    return files


def append(path, row):
    with open(path, 'a') as file:
        file.write(row + '\n')


def test_processes_do_not_change_the_result(many, monkeypatch):
    tables = many.read()
    expected, counted = match_tables(tables, 1)
    assert counted.tolist() == [17, 0] and len(expected) == 3 + 160
    # Not in this process:
    monkeypatch.delattr('projects.openimages.challenge.match_tables.match_images')
    for matches, positives in (match_tables(tables, workers) for workers in (2, 3)):
        assert positives.tolist() == counted.tolist()
        for field in dataclasses.fields(Matches):
            np.testing.assert_array_equal(getattr(matches, field.name),
                                          getattr(expected, field.name))


def test_error_in_another_process_names_the_row(many):
    change(many.input_predictions, square(4, 8), '!!')
    with pytest.raises(UserError, match=r'found\.csv, row 3: mask is not base64'):
        match_tables(many.read(), workers=2)


@pytest.fixture
def long_run(tmp_path) -> EvaluatorFiles:
    """Enough images and detections for several processes."""
    images = [f'{number:05}' for number in range(600)]
    texts = {
        'boxes.csv': ['ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf'],
        'labels.csv': ['ImageID,LabelName,Confidence', *(f'{image},/m/cat,1' for image in images)],
        'masks.csv': ['ImageID,LabelName,ImageWidth,ImageHeight,XMin,XMax,YMin,YMax,IsGroupOf,'
                      'Mask'],
        'map.pbtxt': ['item { name: "/m/cat" id: 1 }'],
        'found.csv': ['ImageID,ImageWidth,ImageHeight,LabelName,Score,Mask', *(
            f'{image},{WIDTH},{HEIGHT},/m/cat,0.5,{square(0, 4)}'
            for image in images for _ in range(40))]}
    for name, lines in texts.items():
        (tmp_path / name).write_text('\n'.join(lines) + '\n')
    return EvaluatorFiles(*(str(tmp_path / name) for name in (
        'boxes.csv', 'labels.csv', 'map.pbtxt', 'found.csv', 'metrics.csv', 'masks.csv')))


@pytest.mark.parametrize(('end', 'code', 'words'), [
    ('kill a worker', 2, 'error: a worker process was killed, perhaps for want of memory; run '
                         'the same command again, with fewer --workers if it happens again'),
    ('interrupt', 130, 'interrupted')])
def test_run_that_is_cut_short_is_one_line_and_leaves_the_former_output(long_run, end, code,
                                                                        words):
    Path(long_run.output_metrics).write_text('before')
    process = subprocess.Popen(
        [sys.executable, 'tools/evaluate.py', *long_run.as_flags(), '--workers', '2'],
        cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until(lambda: workers_of(process.pid))
    if end == 'interrupt':
        os.killpg(process.pid, signal.SIGINT)
    else:
        workers_of(process.pid)[0].kill()
    lines = process.communicate(timeout=120)[1].splitlines()
    assert [line for line in lines if not line.startswith('images:')] == [words]
    assert process.returncode == code
    assert Path(long_run.output_metrics).read_text() == 'before'
    assert not list(Path(long_run.output_metrics).parent.glob('.*'))


@pytest.mark.parametrize('workers', [0, -1])
def test_fewer_than_one_worker_is_refused(files, workers):
    result = run_tool('tools/evaluate.py', *files.as_flags(), f'--workers={workers}')
    assert_one_line_error(result, f'{workers} workers, expected at least 1')


def test_start_up_loads_no_framework():
    code = ('import sys; sys.argv = ["evaluate", "--help"]\n'
            'sys.path.insert(0, ".")\n'
            'import projects.openimages.challenge.evaluate\n'
            'print([name for name in ("torch", "mmengine", "mmcv", "mmdet", "tensorflow") '
            'if name in sys.modules])')
    assert run_tool('-c', code).stdout.strip() == '[]'


BAD_INPUT = [
    ('found', 'LabelName', 'Label', ['row 1', "'LabelName'"]),
    ('boxes', 'IsGroupOf', 'Group', ['row 1', "'IsGroupOf'"]),
    ('masks', 'ImageWidth', 'Width', ['row 1', "'ImageWidth'"]),
    ('labels', 'Confidence', 'Sure', ['row 1', "'Confidence'"]),
    ('found', '0.8', 'high', ['row 3', "'high'", 'number']),
    ('found', '0.8', '', ['row 3', 'no Score']),
    ('found', '0.8', 'nan', ['row 3', 'no Score']),
    ('found', '0.8', 'inf', ['row 3', "'inf'"]),
    ('found', '0.8', '1.5', ['row 3', '1.5', '0..1']),
    ('found', '0.8', '-0.1', ['row 3', '-0.1', '0..1']),
    ('found', '/m/dog', '/m/cow', ['row 4', "unknown class '/m/cow'"]),
    ('boxes', 'b,/m/cat', 'b,/m/cow', ['row 3', "unknown class '/m/cow'"]),
    ('labels', '/m/dog', '/m/cow', ['row 4', "unknown class '/m/cow'"]),
    ('labels', 'dog,0', 'dog,no', ['row 4', "'no'"]),
    ('boxes', '0.5,1.0', '1.0,0.5', ['row 3', 'XMin 1.0', 'XMax 0.5']),
    ('boxes', '0.5,1.0', 'left,1.0', ['row 3', "XMin 'left'"]),
    ('boxes', '1.0,0\nb', '1.0,yes\nb', ['row 2', "IsGroupOf 'yes'"]),
    ('boxes', 'b,', ',', ['row 3', 'no ImageID']),
    ('found', square(4, 8), square(4, 8)[:-3], ['row 3', 'base64']),
    ('found', square(4, 8), 'AAAA', ['row 3', 'zlib']),
    ('masks', square(0, 4), 'AAAA', ['row 2', 'zlib']),
    ('found', square(4, 8), square(0, 2, 4), ['row 3', '16 pixels', '8x4']),
    ('masks', square(0, 4), square(0, 2, 9), ['row 2', '36 pixels', '8x4']),
    ('found', f'b,{WIDTH},{HEIGHT}', f'b,{HEIGHT},{WIDTH}', ['row 4', '8 x 4', '4 x 8']),
    ('found', f'a,{WIDTH},{HEIGHT}', f'a,{HEIGHT},{WIDTH}', ['row 2', '4 x 8', '8 x 4']),
    ('found', f'a,{WIDTH},{HEIGHT}', f'a,{WIDTH},0', ['row 2', "ImageHeight '0'"]),
    ('found', f'a,{WIDTH},{HEIGHT}', f'a,wide,{HEIGHT}', ['row 2', "ImageWidth 'wide'"]),
    ('found', '/m/dog,0.7', '/m/dog,0.7,extra', ['row 4', 'columns']),
    ('map', 'id: 2', 'id: 0', ['/m/dog', 'id 0']),
]


@pytest.mark.parametrize(('name', 'old', 'new', 'words'), BAD_INPUT,
                         ids=[f'{case[0]}-{case[3][-1]}' for case in BAD_INPUT])
def test_bad_input_is_one_line_with_file_and_row(files, name, old, new, words):
    path = {'found': files.input_predictions, 'boxes': files.input_annotations_boxes,
            'labels': files.input_annotations_labels, 'masks': files.input_annotations_segm,
            'map': files.input_class_labelmap}[name]
    change(path, old, new)
    with pytest.raises(UserError) as error:
        evaluate_files(files)
    message = str(error.value)
    assert message.startswith(path) and '\n' not in message
    for word in words:
        assert word in message, message
    assert not Path(files.output_metrics).exists()


def test_bad_input_ends_the_command_with_exit_code_2(files):
    change(files.input_predictions, '0.8', 'high')
    assert_one_line_error(run_tool('tools/evaluate.py', *files.as_flags()),
                          'found.csv, row 3', "'high'")


INPUTS = ['input_annotations_boxes', 'input_annotations_labels', 'input_annotations_segm',
          'input_class_labelmap', 'input_predictions']


@pytest.mark.parametrize('field', INPUTS)
def test_missing_file_is_named(files, field):
    missing = dataclasses.replace(files, **{field: 'nowhere/file.csv'})
    with pytest.raises(UserError, match=r'nowhere/file\.csv: no such file'):
        evaluate_files(missing)


@pytest.mark.parametrize('field', INPUTS)
@pytest.mark.parametrize(('kind', 'make'), [('a folder', os.mkdir), ('a FIFO', os.mkfifo)])
def test_input_that_is_no_file_is_named_without_waiting(files, tmp_path, field, kind, make):
    make(tmp_path / 'input')
    with pytest.raises(UserError, match=f'input: {kind}, expected a file'):
        evaluate_files(dataclasses.replace(files, **{field: str(tmp_path / 'input')}))


def test_loop_of_links_is_one_line(files, tmp_path):
    (tmp_path / 'loop').symlink_to('loop')
    for field in ('input_predictions', 'output_metrics'):
        flags = dataclasses.replace(files, **{field: str(tmp_path / 'loop')}).as_flags()
        assert_one_line_error(run_tool('tools/evaluate.py', *flags), 'loop', 'symbolic links')


@pytest.mark.parametrize(('output', 'words'), [
    ('boxes.csv/metrics.csv', 'Not a directory'), ('/proc/nowhere/metrics.csv', 'No such file'),
    ('.', 'a folder, expected a file')])
def test_output_that_cannot_be_written_is_known_before_the_work(files, tmp_path, output, words):
    change(files.input_predictions, '0.8', 'high')  # what the work would stop at
    flags = dataclasses.replace(files, output_metrics=str(tmp_path / output)).as_flags()
    assert_one_line_error(run_tool('tools/evaluate.py', *flags), words)


def test_empty_file_is_an_error(files):
    Path(files.input_predictions).write_text('')
    with pytest.raises(UserError, match='expected a header'):
        evaluate_files(files)


def peak_memory(*command) -> tuple[subprocess.CompletedProcess, float]:
    """Run a tool and say how many megabytes it had at most."""
    process = subprocess.Popen([sys.executable, *command], cwd=REPOSITORY, text=True,
                               stderr=subprocess.PIPE)
    stderr = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return (subprocess.CompletedProcess(command, process.returncode, '', stderr),
            usage.ru_maxrss / 1e3)


def bomb(megabytes):
    """Mask text of a few hundred kilobytes that inflates to so much."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(b'0' * 1_000_000) for _ in range(megabytes)]
    return base64.b64encode(b''.join(parts) + packer.flush()).decode()


@pytest.mark.parametrize(('name', 'mask', 'row'), [('found', square(4, 8), 3),
                                                   ('masks', square(0, 4), 2)])
def test_mask_that_inflates_to_gigabytes_is_one_line_in_little_memory(files, name, mask, row):
    usual, expected = peak_memory('tools/evaluate.py', *files.as_flags())
    assert usual.returncode == 0
    change(files.input_predictions if name == 'found' else files.input_annotations_segm, mask,
           bomb(200))
    result, peak = peak_memory('tools/evaluate.py', *files.as_flags())
    assert_one_line_error(result, f'{name}.csv, row {row}', 'inflates to more than 128 bytes',
                          'image of 8x4')
    assert peak < expected + 50


@pytest.mark.parametrize(('width', 'height', 'words'), [
    ('0', '4', "ImageWidth '0'"), ('8', '-4', "ImageHeight '-4'"),
    ('1000000000', '1000000000', "'1000000000'"), ('', '4', 'no ImageWidth'),
    ('999999999', '999999999', 'image of 999999999x999999999, expected 1 to 100000000 pixels'),
    ('10001', '10000', 'image of 10001x10000'), ('10000', '10000', '32 pixels')])
def test_image_size_that_cannot_be_is_one_line(files, width, height, words):
    Path(files.input_predictions).write_text(
        'ImageID,ImageWidth,ImageHeight,LabelName,Score,Mask\n'
        f'b,{width},{height},/m/cat,0.8,{square(4, 8)}\n')
    with pytest.raises(UserError, match=r'found\.csv, row 2: ') as error:
        evaluate_files(files)
    assert words in str(error.value)


def test_masks_that_are_too_many_together_are_an_error_about_their_image(files, monkeypatch):
    monkeypatch.setattr('projects.openimages.metric.overlaps.MAX_IMAGE_BYTES', 8)
    evaluate_files(files)
    for _ in range(3):
        append(files.input_predictions, f'b,{WIDTH},{HEIGHT},/m/cat,0.8,{square(4, 8)}')
    with pytest.raises(UserError, match=r'found\.csv, row 3: the masks of one image have more'):
        evaluate_files(files)


def test_broken_mask_of_a_class_that_is_not_verified_is_not_looked_at(files):
    # Documented: such detections are dropped before their masks are decoded.
    change(files.input_predictions, 'a,8,4,/m/cat', 'a,8,4,/m/dog')
    change(files.input_predictions, square(0, 4), 'AAAA')
    assert evaluate_files(files).average_precisions[0] == 0


def test_ids_that_only_some_files_hold_as_numbers_are_warned_about(files):
    for path in (files.input_annotations_boxes, files.input_annotations_segm):
        Path(path).write_text(Path(path).read_text().replace('\na,', '\n7,'))
    Path(files.input_predictions).write_text(
        Path(files.input_predictions).read_text().splitlines()[0]
        + f'\n7,{WIDTH},{HEIGHT},/m/cat,0.9,{square(0, 4)}\n')
    with pytest.warns(UserWarning, match='are numbers'):
        evaluate_files(files)


def test_clean_input_gives_no_warning(files):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        evaluate_files(files)


def test_missing_official_evaluator_is_said_with_the_command_to_install_it(files):
    code = ('import sys\n'
            'class Hide:\n'
            '    def find_spec(self, name, path=None, target=None):\n'
            '        if name.partition(".")[0] == "object_detection":\n'
            '            raise ModuleNotFoundError(name=name)\n'
            'sys.meta_path.insert(0, Hide())\n'
            'sys.argv[0] = "tf_challenge"\n'
            'from projects.openimages.common.errors import run_command\n'
            'from evaluation.tf_challenge import main\n'
            'run_command(main)')
    result = run_tool('-c', code, *files.as_flags())
    assert_one_line_error(result, 'not installed', 'make setup')
    assert sys.executable
