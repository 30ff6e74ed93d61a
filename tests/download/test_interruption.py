"""Downloads that are killed, interrupted, disturbed or out of disk, and the runs after them."""

import contextlib
import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest

from tests.common.processes import wait_until
from tests.download.command import arguments, download, downloaded, images_of, prepared, table
from tests.download.mirror import CHALLENGE
from tests.download.server import Server, answer, cut, spoil, stall
from tests.helpers import REPOSITORY, assert_one_line_error, run_tool


def running(server: Server, root: Path, *more) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, *arguments(server, root, *more)], cwd=REPOSITORY,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def stalled(challenge, root):
    """A run that has half of the masks CSV and waits for the rest."""
    name = f'{CHALLENGE}/{table(root, "masks").name}'
    half = (challenge.folder / name).stat().st_size // 2
    until = threading.Event()
    challenge.faults[name].append(stall(half, until))
    process = running(challenge, root)
    try:
        wait_until(lambda: [path for path in root.rglob('*masks.csv*.part')
                            if path.stat().st_size == half])
        yield process
    finally:
        process.kill()
        process.wait()
        until.set()


def test_a_killed_run_goes_on_where_it_was(stalled, challenge, demo, root):
    stalled.send_signal(signal.SIGKILL)
    stalled.wait()
    before = len(challenge.requests)
    downloaded(challenge, root)
    again = [each for each in challenge.requests[before:] if each.method == 'GET'
             and each.path.startswith(CHALLENGE) and each.path.endswith('.csv')]
    half = (demo / table(root, 'masks').name).stat().st_size // 2
    assert ('GET', f'{CHALLENGE}/{table(root, "masks").name}', f'bytes={half}-') in again
    assert len(again) < 4  # those that were whole are not fetched again
    assert table(root, 'masks').read_bytes() == table(demo, 'masks').read_bytes()
    assert not list(root.rglob('*.part'))
    prepared(root, 'validation')


def test_a_second_run_at_the_same_time_is_refused(stalled, challenge, root):
    assert_one_line_error(download(challenge, root), 'another run is downloading into this folder')
    assert stalled.poll() is None


def test_ctrl_c_is_one_word_and_leaves_no_half_file(stalled, challenge, root):
    stalled.send_signal(signal.SIGINT)
    out, err = stalled.communicate(timeout=30)
    assert (stalled.returncode, out, err.splitlines()[-1]) == (130, '', 'interrupted')
    assert 'Traceback' not in err
    assert not table(root, 'masks').exists()
    downloaded(challenge, root)
    assert challenge.gets('segmentation-masks')[-1].range is not None


def test_progress_has_the_rate_and_the_time_left(challenge, root):
    ours, theirs = os.openpty()  # a terminal, where every step is drawn
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('4H', 40, 120, 0, 0))
    result = subprocess.run([sys.executable, *arguments(challenge, root)], cwd=REPOSITORY,
                            stdout=subprocess.DEVNULL, stderr=theirs, check=False)
    os.close(theirs)
    shown = b''
    with contextlib.suppress(OSError), open(ours, 'rb', buffering=0) as terminal:
        while block := terminal.read(4096):
            shown += block
    assert result.returncode == 0
    shown = shown.decode()
    assert re.search(r'CSVs: 100%.*[kM]B/s\]', shown)
    assert re.search(r'images, validation: 100%.* 8/8 \[\d\d:\d\d<00:00, +[\d.]+image/s, '
                     r'[\d.]+ MB/s\]', shown)


def test_parts_of_images_that_a_killed_run_left_are_removed(challenge, demo, root):
    folder = root / 'images' / 'validation'
    folder.mkdir(parents=True)
    (folder / '.0123456789abcdef.jpg.part').write_bytes(b'half')
    downloaded(challenge, root)
    assert images_of(root) == {path.stem for path in (demo / 'images' / 'validation').iterdir()}


def test_a_bad_line_harms_nothing(challenge, demo, root):
    for path in sorted(challenge.folder.rglob('*')):
        name = path.relative_to(challenge.folder).as_posix()
        if path.is_file() and 'train' not in name:
            trouble = [[cut(path.stat().st_size // 2)], [answer(503, Retry_After='0')], [spoil],
                       []][len(name) % 4] if name.endswith(('.csv', '.json', '.zip')) \
                else [[cut(100)], [answer(500)], [spoil], []][ord(name[-5]) % 4]
            challenge.faults[name].extend(trouble)
    downloaded(challenge, root)
    assert images_of(root) == {path.stem for path in (demo / 'images' / 'validation').iterdir()}
    for path in (*root.glob('images/*/*'), *root.glob('masks/*'), *root.glob('*.csv')):
        assert path.read_bytes() == (demo / path.relative_to(root)).read_bytes()


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(challenge, demo, root):
    masks = challenge.folder / CHALLENGE / table(root, 'masks').name
    masks.unlink()
    header, *rows = table(demo, 'masks').read_bytes().splitlines(keepends=True)
    masks.write_bytes(b''.join([header, *rows * 200]))
    assert masks.stat().st_size > 200_000
    code = ('import resource, runpy, sys; '
            'resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY)); '
            'sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name="__main__")')
    result = run_tool('-c', code, *arguments(challenge, root))
    assert_one_line_error(result, f'full_csvs/{masks.name}: File too large')
    downloaded(challenge, root)
    assert challenge.gets(masks.name)[-1].range == 'bytes=100000-'
