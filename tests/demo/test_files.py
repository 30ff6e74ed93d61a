"""Making a data set's folder: whole or not at all, by one run at a time."""

import contextlib
import subprocess
import sys
import time

import pytest

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import exclusive
from projects.openimages.demo import files, make_demo_data, write
from tests.demo.helpers import digests
from tests.helpers import REPOSITORY, assert_one_line_error, run_tool


def test_a_complete_folder_of_the_same_parameters_is_reused(tmp_path):
    first = run_tool('tools/make_demo_data.py', '--out', tmp_path / 'd', '--images', '16')
    before = digests(tmp_path / 'd')
    second = run_tool('tools/make_demo_data.py', '--out', tmp_path / 'd', '--images', '16')
    assert (first.returncode, second.returncode) == (0, 0)
    assert 'written' in first.stdout and 'reused' in second.stdout
    assert digests(tmp_path / 'd') == before
    other = run_tool('tools/make_demo_data.py', '--out', tmp_path / 'd', '--images', '17')
    assert_one_line_error(other, 'holds another demo data set')


def test_a_folder_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / 'notes.txt').write_text('mine')
    with pytest.raises(UserError, match='no demo data set'):
        make_demo_data(tmp_path, num_images=16)
    assert [path.name for path in tmp_path.iterdir()] == ['notes.txt']


@pytest.mark.parametrize('options', [('--images', '3'), ('--seed', '-1')])
def test_parameters_out_of_range_are_refused_in_one_line(tmp_path, options):
    result = run_tool('tools/make_demo_data.py', '--out', tmp_path / 'd', *options)
    assert_one_line_error(result, options[0])
    assert not list(tmp_path.iterdir())


def test_an_interrupted_run_leaves_nothing_and_can_be_repeated(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(write, 'write_tables', interrupt)
        with pytest.raises(KeyboardInterrupt):
            make_demo_data(tmp_path / 'd', num_images=16)
    assert not list(tmp_path.iterdir())
    (tmp_path / '.d.unfinished').mkdir()  # what a killed run leaves
    (tmp_path / '.d.unfinished' / 'half').write_text('x')
    assert make_demo_data(tmp_path / 'd', num_images=16)
    assert [path.name for path in tmp_path.iterdir()] == ['d']


def test_a_killed_run_leaves_nothing_that_stops_or_changes_the_next(tmp_path):
    command = [sys.executable, 'tools/make_demo_data.py', '--images', '400', '--out']
    with subprocess.Popen([*command, tmp_path / 'd'], cwd=REPOSITORY,
                          stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while not list(tmp_path.glob('.d.unfinished/images/train/*.jpg')):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            process.kill()
    assert not (tmp_path / 'd').exists()
    assert make_demo_data(tmp_path / 'd', num_images=16)
    assert [path.name for path in tmp_path.iterdir()] == ['d']
    make_demo_data(tmp_path / 'whole', num_images=16)
    assert digests(tmp_path / 'd') == digests(tmp_path / 'whole')


def test_one_run_at_a_time_makes_a_data_set(tmp_path):
    with exclusive(tmp_path / 'd', 'here first'):
        with pytest.raises(UserError, match='another run is making this data set'):
            make_demo_data(tmp_path / 'd', num_images=16)
        assert not (tmp_path / 'd').exists()
    assert make_demo_data(tmp_path / 'd', num_images=16)


def test_a_data_set_that_another_run_has_just_made_is_reused(tmp_path, monkeypatch):
    @contextlib.contextmanager
    def after_another_run(path, work):
        with exclusive(path, work):
            (tmp_path / 'made').rename(path)
            yield

    make_demo_data(tmp_path / 'made', num_images=16)
    monkeypatch.setattr(files, 'exclusive', after_another_run)
    assert make_demo_data(tmp_path / 'd', num_images=16) is False


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / 'd').mkdir()
    assert make_demo_data(tmp_path / 'd', num_images=16)
