"""Part files survive kills and come together in the order of the test list."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projects.openimages.common.errors import UserError
from projects.openimages.submissions.dump.finish import finish_submission, fit_threshold, parse_size
from projects.openimages.submissions.dump.parts import (
    FinishedImages,
    PartWriter,
    begin_parts,
    parts_folder,
)
from projects.openimages.submissions.formats import (
    HEADERS,
    Detection,
    ImageDetections,
    Submission,
    format_rows,
)
from tests.helpers import REPOSITORY

SETTINGS = {'images': 4, 'score_thr': 0.05, 'threads': 2}


def image(index: int, *scores: float) -> ImageDetections:
    return ImageDetections(f'id{index}', 10, 20, [
        Detection('/m/0cat', str(np.float32(score)), f'mask{index}') for score in scores])


@pytest.fixture
def folder(tmp_path):
    folder = parts_folder(tmp_path / 'a.csv')
    begin_parts(folder, SETTINGS, resume=False).close()
    return folder


def write(folder, rank, *images):
    writer = PartWriter(folder, rank, SETTINGS)
    writer.write((int(item.image_id[2:]), item) for item in images)
    writer.close()


def test_parts_of_several_processes_come_together_in_list_order(tmp_path, folder):
    write(folder, 0, image(0, 0.5), image(2))
    write(folder, 1, image(1, 0.25, 0.75), image(3), image(0, 0.5))  # padded with a repeated image
    summary = finish_submission(FinishedImages(folder, 4), tmp_path / 'a.csv', 'kaggle')
    assert (summary.images, summary.detections, summary.threshold) == (4, 3, None)
    with Submission(tmp_path / 'a.csv') as submission:
        assert [item.image_id for item in submission] == ['id0', 'id1', 'id2', 'id3']


def test_torn_last_row_is_dropped_and_written_again(tmp_path, folder):
    write(folder, 0, image(0, 0.5), image(1, 0.5))
    part = folder / 'part-0000.csv'
    whole = part.read_bytes()
    for length in range(whole.index(b'\n') + 1, len(whole)):
        part.write_bytes(whole[:length])
        done = FinishedImages(folder, 2).done
        assert done.tolist() == [whole[:length].count(b'\n') > 1, False]
    write(folder, 0, image(1, 0.5))
    assert part.read_bytes() == whole and FinishedImages(folder, 2).done.all()


def test_part_that_was_killed_in_its_first_line_counts_as_not_begun(folder):
    (folder / 'part-0000.csv').write_bytes(b'{"images": ')
    begin_parts(folder, SETTINGS, resume=False).close()
    assert not list(folder.iterdir())


def test_interrupted_run_is_neither_overwritten_nor_mixed_with_another(folder):
    write(folder, 0, image(0))
    with pytest.raises(UserError, match='--resume-submission'):
        begin_parts(folder, SETTINGS, resume=False)
    begin_parts(folder, SETTINGS, resume=True).close()
    for name, value in (('score_thr', 0.1), ('threads', 4)):
        with pytest.raises(UserError, match=rf'begun with {name} = .*, now it is {value}'):
            begin_parts(folder, {**SETTINGS, name: value}, resume=True)
    begin_parts(folder, SETTINGS, resume=True).close()  # a refused run has left no lock


def test_run_beside_a_running_one_is_refused_until_that_ends(folder):
    lock = begin_parts(folder, SETTINGS, resume=False)
    write(folder, 0, image(0))
    for resume in (False, True):
        with pytest.raises(UserError, match=r'a\.csv\.parts: another run is writing this'):
            begin_parts(folder, SETTINGS, resume=resume)
    lock.close()
    with begin_parts(folder, SETTINGS, resume=True):
        FinishedImages(folder, 4).remove()
    assert not list(folder.parent.iterdir())


_RUN = """
import os, sys, time
from pathlib import Path
from tests.submissions.dump.test_parts import SETTINGS, begin_parts, image, write
lock = begin_parts(Path(sys.argv[1]), SETTINGS, resume=True)
write(Path(sys.argv[1]), 0, image(0))
if os.fork() == 0:  # as a data loader's process, which lives on for a while
    print('running', flush=True)  # only now has it left the lock to its parent
    time.sleep(5)
    os._exit(0)
time.sleep(60)
"""


def test_run_after_a_killed_one_goes_on_at_once(folder):
    with subprocess.Popen([sys.executable, '-c', _RUN, folder], cwd=REPOSITORY, text=True,
                          stdout=subprocess.PIPE) as killed:
        assert killed.stdout.readline() == 'running\n'
        with pytest.raises(UserError, match='another run is writing this submission'):
            begin_parts(folder, SETTINGS, resume=True)
        killed.kill()
    with begin_parts(folder, SETTINGS, resume=True):
        assert FinishedImages(folder, 4).done.tolist() == [True, False, False, False]


def test_unfinished_parts_are_not_finished(tmp_path, folder):
    write(folder, 0, image(0))
    with pytest.raises(UserError, match='3 of 4 images are not finished, the first is number 1'):
        finish_submission(FinishedImages(folder, 4), tmp_path / 'a.csv', 'kaggle')
    assert not (tmp_path / 'a.csv').exists()


def test_image_number_out_of_range_is_named(folder):
    write(folder, 0, image(5))
    with pytest.raises(UserError, match=r"part-0000\.csv, row 2: image number b'5'"):
        FinishedImages(folder, 4)


def test_parts_are_removed_with_their_folder(folder):
    write(folder, 0, image(0))
    FinishedImages(folder, 4).remove()
    assert not folder.exists()


def size_of(images, submission_format, threshold):
    rows = [row for item in images for row in format_rows(item._replace(detections=[
        d for d in item.detections if np.float32(d.score) >= threshold]), submission_format)]
    return len(HEADERS[submission_format]) + 1 + sum(len(row) + 1 for row in rows)


@given(st.lists(st.lists(st.floats(0, 1, width=32), max_size=6), min_size=1, max_size=5),
       st.sampled_from(['kaggle', 'tf']), st.data())
def test_threshold_for_a_size_is_the_lowest_that_fits(scores, submission_format, data):
    images = [image(index, *item) for index, item in enumerate(scores)]
    smallest = size_of(images, submission_format, 2)
    full = size_of(images, submission_format, 0)
    limit = data.draw(st.integers(smallest, full + 1))
    threshold = fit_threshold(lambda: images, submission_format, limit)
    if threshold is None:
        assert full <= limit
        return
    assert size_of(images, submission_format, threshold) <= limit
    lower = [s for item in scores for s in map(np.float32, item) if s < threshold]
    assert size_of(images, submission_format, max(lower)) > limit


def test_size_too_small_for_the_empty_rows_is_said():
    with pytest.raises(UserError, match='40 bytes do not even hold'):
        fit_threshold(lambda: [image(0)], 'kaggle', 40)


def test_limited_submission_is_no_larger_and_says_its_threshold(tmp_path, folder):
    write(folder, 0, image(0, 0.5, 0.25), image(1, 0.75), image(2), image(3, 0.125))
    finished, out = FinishedImages(folder, 4), tmp_path / 'a.csv'
    full = finish_submission(finished, out, 'kaggle')
    summary = finish_submission(finished, out, 'kaggle', full.size - 1)
    assert summary.detections == 3 and summary.size < full.size
    assert 0.125 < summary.threshold <= 0.25 and 'score of at least' in str(summary)


@pytest.mark.parametrize(('text', 'size'), [('500', 500), ('2GiB', 2 << 30), ('1.5 MB', 1500000),
                                            ('3k', 3000)])
def test_sizes_are_read_with_their_units(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize('text', ['', 'much', '5TB', '-1', '9' * 400])
def test_other_sizes_are_refused(text):
    with pytest.raises(UserError, match='size'):
        parse_size(text)
