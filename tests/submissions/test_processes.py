"""Worker processes of check, merge, sweep and image lists: killed ones, and how many there are."""

import functools

import numpy as np
import pytest
from PIL import Image

from projects.openimages.common.errors import UserError
from projects.openimages.submissions import check, image_list, merge_submissions, sweep
from projects.openimages.submissions.merge_masks import MergeOptions
from tests.helpers import assert_one_line_error, run_tool
from tests.submissions.killed_worker import work_then_die


def run_check(dump, index, out, workers):
    images = image_list.read_image_list(index)
    return check.check_submission(dump, images, image_list.find_mids(index, None), workers)


def run_merge(dump, index, out, workers):
    return merge_submissions.merge_submissions(
        [dump, dump], out, MergeOptions('nms', (1, 1)), merge_submissions.MergeOutput(),
        workers=workers)


def run_sweep(dump, index, out, workers):
    return sweep.sweep(dump, index, score_thrs=[0.0], caps=[None], workers=workers)


@pytest.mark.parametrize(('run', 'module', 'size', 'function'), [
    (run_check, check, '_PIECE', '_check_piece'),
    (run_merge, merge_submissions, '_IMAGES_A_TASK', '_merge_images'),
    (run_sweep, sweep, '_IMAGES_A_TASK', '_match_images'),
], ids=['check', 'merge', 'sweep'])
def test_worker_killed_in_the_middle_is_one_clear_line(tmp_path, prepared, dump, monkeypatch, run,
                                                       module, size, function):
    monkeypatch.setattr(module, size, 1)
    monkeypatch.setattr(module, function,
                        functools.partial(work_then_die, module.__name__, function))
    with pytest.raises(UserError, match='a worker process was killed') as raised:
        run(dump, prepared / 'index.arrow', tmp_path / 'out.csv', workers=2)
    assert len(str(raised.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ['dump.csv']


@pytest.mark.parametrize('command', [
    ['check_submission.py', 'a.csv', '--images', 'a.csv', '--workers', '0'],
    ['merge_submissions.py', 'a.csv', 'b.csv', '--out', 'c.csv', '--no-expand-hierarchy',
     '--workers', '-1'],
    ['sweep.py', 'a.csv', '--index', 'b.arrow', '--out', 'out', '--workers', '-1'],
], ids=['check', 'merge', 'sweep'])
def test_fewer_than_one_worker_is_one_line(command):
    result = run_tool(f'tools/{command[0]}', *command[1:])
    assert_one_line_error(result, f'{command[-1]} workers, expected at least 1')


def test_sizes_of_a_folder_of_images_do_not_depend_on_the_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(image_list, '_IMAGES_A_TASK', 2)
    for n in range(7):
        Image.fromarray(np.zeros((3, 4 + n), np.uint8)).save(tmp_path / f'i{n}.jpg')
    one, two = (image_list.read_image_list(tmp_path, workers) for workers in (1, 2))
    assert list(one.items()) == list(two.items()) == [(f'i{n}', (4 + n, 3)) for n in range(7)]
