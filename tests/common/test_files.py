"""Whole files, locks, and inputs that are no files."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import (
    atomic_write,
    exclusive,
    open_regular,
    refuse_to_overwrite,
)
from tests.helpers import REPOSITORY

# ---------------------------------------------------------------------------------------- writing


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_output_that_is_an_input_or_cannot_be_is_refused_before_the_work(tmp_path):
    source = tmp_path / 'a.csv'
    source.touch()
    (tmp_path / 'link.csv').symlink_to(source)
    for out in (source, tmp_path / 'link.csv', tmp_path / 'no' / '..' / 'a.csv'):
        (tmp_path / 'no').mkdir(exist_ok=True)
        with pytest.raises(UserError, match=r'this is the input .*a\.csv'):
            refuse_to_overwrite(out, tmp_path / 'other.csv', source)
    with pytest.raises(UserError, match='a folder, expected a file to write'):
        refuse_to_overwrite(tmp_path, source)
    with pytest.raises(UserError, match=r'a\.csv: not a folder'):
        refuse_to_overwrite(source / 'new' / 'out.csv')
    refuse_to_overwrite(tmp_path / 'new' / 'out.csv', source)
    assert not (tmp_path / 'new').exists()


def test_file_appears_only_when_whole(tmp_path):
    path = tmp_path / 'new' / 'out.txt'
    with atomic_write(path) as file:
        file.write('é\n')
        assert not path.exists()
    assert path.read_bytes() == 'é\n'.encode()
    assert names(path.parent) == ['out.txt']


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
def test_former_file_survives_an_error(tmp_path, error):
    path = tmp_path / 'out.txt'
    path.write_text('before')
    with pytest.raises(error), atomic_write(path) as file:
        file.write('half')
        raise error
    assert path.read_text() == 'before'
    assert names(tmp_path) == ['out.txt']


def test_two_writers_do_not_mix(tmp_path):
    with atomic_write(tmp_path / 'out', 'wb') as first:
        first.write(b'first')
        with atomic_write(tmp_path / 'out', 'wb') as second:
            second.write(b'second')
    assert (tmp_path / 'out').read_bytes() == b'first'


def test_file_has_the_permissions_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / 'out'):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / 'out').stat().st_mode & 0o777 == 0o640


def test_link_keeps_pointing_to_what_is_written(tmp_path):
    (tmp_path / 'link').symlink_to('real')
    for text in ('new', 'again'):
        with atomic_write(tmp_path / 'link') as file:
            file.write(text)
        assert (tmp_path / 'real').read_text() == text
    assert (tmp_path / 'link').is_symlink()


@pytest.mark.parametrize(('kind', 'make'), [('a folder', os.mkdir), ('a FIFO', os.mkfifo)])
def test_what_is_no_file_is_not_replaced(tmp_path, kind, make):
    make(tmp_path / 'out')
    with pytest.raises(UserError, match=f'out: {kind}, expected a file'), \
            atomic_write(tmp_path / 'out'):
        pytest.fail('refused before the work')
    assert names(tmp_path) == ['out'] and not (tmp_path / 'out').is_file()


@pytest.mark.parametrize(('path', 'number'), [
    ('file/out', errno.ENOTDIR), ('file/deep/out', errno.ENOTDIR), ('loop', errno.ELOOP),
    ('loop/out', errno.ELOOP), ('/proc/no/out', errno.ENOENT), ('a' * 300, errno.ENAMETOOLONG)])
def test_output_that_cannot_be_made_is_refused_before_the_work(tmp_path, path, number):
    (tmp_path / 'file').touch()
    (tmp_path / 'loop').symlink_to('loop')
    with pytest.raises(OSError, match=os.strerror(number)) as error, \
            atomic_write(tmp_path / path):
        pytest.fail('refused before the work')
    assert error.value.errno == number and error.value.filename


def test_full_disk_names_the_file_and_not_its_temporary_name(tmp_path):
    with pytest.raises(OSError, match='No space') as error, atomic_write(tmp_path / 'out'):
        raise OSError(errno.ENOSPC, 'No space left on device')
    assert error.value.filename == str(tmp_path / 'out')


# ------------------------------------------------------------------------------------------ locks

HOLDER = r'''
import os, sys, time
from projects.openimages.common.files import exclusive
path, do = sys.argv[1:]
with exclusive(path, 'holding'):
    child = os.fork() if 'fork' in do else 1
    if not child and 'leave' in do:
        raise SystemExit(0)
    os.write(1, f'{os.getpid()}\n'.encode())
    time.sleep(600)
'''


@pytest.fixture
def hold(tmp_path):
    """Start processes that hold the lock on ``out``; returns the pids that they print."""
    started = []

    def start(do='', lines=1):
        process = subprocess.Popen([sys.executable, '-c', HOLDER, tmp_path / 'out', do],
                                   cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process, [int(process.stdout.readline()) for _ in range(lines)]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def assert_locked(path):
    with pytest.raises(UserError, match='out: another run is working; wait for it, or stop it'), \
            exclusive(path, 'working'):
        pass


def assert_free(path):
    with exclusive(path, 'working'):
        pass


def test_lock_excludes_a_second_process(tmp_path, hold):
    hold()
    assert_locked(tmp_path / 'out')
    assert_free(tmp_path / 'other')


def test_lock_ends_with_its_block_and_leaves_no_file(tmp_path):
    for _ in range(2):
        with exclusive(tmp_path / 'new' / 'out', 'working'):
            assert_locked(tmp_path / 'new' / 'out')
        assert names(tmp_path / 'new') == []


def test_lock_ends_with_a_killed_holder(tmp_path, hold):
    process, _ = hold()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert names(tmp_path) == ['.out.lock']  # left behind, and locks nobody
    assert_free(tmp_path / 'out')


def test_lock_ends_with_a_killed_holder_whose_forked_child_lives_on(tmp_path, hold):
    process, pids = hold('fork', lines=2)
    child, = set(pids) - {process.pid}
    process.send_signal(signal.SIGKILL)
    process.wait()
    try:
        assert_free(tmp_path / 'out')
    finally:
        os.kill(child, signal.SIGKILL)


def test_lock_stays_when_a_forked_child_leaves_the_block(tmp_path, hold):
    hold('fork and leave')
    time.sleep(0.3)  # so that the child is gone
    assert_locked(tmp_path / 'out')


def test_lock_on_a_file_that_its_holder_has_just_removed_is_none(tmp_path, monkeypatch):
    flock, calls = fcntl.flock, []

    def slow_flock(handle, operation):
        if not calls:  # the holder ends between our opening of the file and our locking of it
            os.unlink(tmp_path / '.out.lock')
        calls.append(handle)
        return flock(handle, operation)

    (tmp_path / '.out.lock').touch()
    monkeypatch.setattr(fcntl, 'flock', slow_flock)
    with exclusive(tmp_path / 'out', 'working'):
        assert len(calls) == 2
        assert_locked(tmp_path / 'out')


def test_lock_file_of_somebody_else_is_not_removed(tmp_path):
    lock = tmp_path / '.out.lock'
    with exclusive(tmp_path / 'out', 'working'):
        lock.unlink()
        with exclusive(tmp_path / 'out', 'working'):
            pass
        lock.touch()
    assert lock.exists()


def test_file_system_without_locks_is_warned_about(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(fcntl, 'flock', no_locks)
    with pytest.warns(UserWarning, match='No locks available') as caught, \
            exclusive(tmp_path / 'out', 'working'):
        pass
    assert caught[0].filename == __file__


def test_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='file: expected a folder'), \
            exclusive(tmp_path / 'file' / 'out', 'working'):
        pass


@pytest.mark.parametrize('make', [os.mkdir, lambda path: os.symlink('elsewhere', path)])
def test_lock_that_is_no_file_is_an_error_and_followed_nowhere(tmp_path, make):
    make(tmp_path / '.out.lock')
    with pytest.raises(OSError, match=r'\.out\.lock'), exclusive(tmp_path / 'out', 'working'):
        pass
    assert names(tmp_path) == ['.out.lock']


# ---------------------------------------------------------------------------------------- reading

def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(('kind', 'make'), [
    ('a folder', os.mkdir), ('a FIFO', os.mkfifo), ('a socket', make_socket),
    ('a device', lambda path: os.symlink('/dev/zero', path))])
def test_input_that_is_no_file_is_refused_without_waiting(tmp_path, monkeypatch, kind, make):
    monkeypatch.chdir(tmp_path)  # the name of a socket may not be long
    make('in')
    with pytest.raises(UserError, match=f'in: {kind}, expected a file'):
        open_regular('in')


def test_file_is_opened_also_behind_a_link(tmp_path):
    (tmp_path / 'file').write_bytes(b'text')
    (tmp_path / 'link').symlink_to('file')
    with open_regular(tmp_path / 'link') as file:
        assert file.read() == b'text'


def test_missing_input_and_loop_of_links_are_os_errors(tmp_path):
    (tmp_path / 'loop').symlink_to('loop')
    for name, number in (('missing', errno.ENOENT), ('loop', errno.ELOOP)):
        with pytest.raises(OSError, match=name) as error:
            open_regular(tmp_path / name)
        assert error.value.errno == number
