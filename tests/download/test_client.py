"""Files over HTTP, from a server that does what servers do."""

import io
import os
import threading
import time
import zipfile
from email.utils import formatdate
from pathlib import Path

import numpy as np
import pytest

from projects.openimages.common.errors import UserError
from projects.openimages.download.client import FetchError, Job, Patience, fetch_all, look_up
from tests.download.server import answer, cut, spoil, stall

QUICK = Patience(attempts=3, first_wait=0.01)
SIZE = 1_000_000


def put(server, name: str = 'file', size: int = SIZE, seed: int = 0) -> bytes:
    data = np.random.default_rng(seed).bytes(size)
    (server.folder / name).write_bytes(data)
    return data


class Count:
    """Bytes and files that were told of."""

    bytes = files = 0

    def add(self, size: int) -> None:
        self.bytes += size

    def tick(self) -> None:
        self.files += 1


def fetch(server, folder: Path, *names: str, is_zip: bool = False, known: bool = False,
          connections: int = 8, **options) -> Count:
    """Fetch files into a folder; ``known`` asks the server about them first."""
    count = Count()
    urls = [f'{server.url}/{name}' for name in names]
    remotes = look_up(urls, patience=QUICK) if known else [None] * len(names)
    options.setdefault('patience', QUICK)
    folder.mkdir(exist_ok=True)
    count.missing = fetch_all(
        [Job(url, folder / name, remote, is_zip)
         for url, name, remote in zip(urls, names, remotes, strict=True)],
        connections, on_bytes=count.add, on_file=count.tick, **options)
    return count


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / 'out'


def test_many_files_arrive_as_they_are_and_nothing_else(server, out):
    files = {f'{n}.jpg': put(server, f'{n}.jpg', 1000 * n, seed=n) for n in range(100)}
    count = fetch(server, out, *files)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == files
    assert (count.files, count.bytes) == (100, sum(map(len, files.values())))


def test_connections_are_used_again_and_as_many_as_asked(server, out):
    names = [f'{n}' for n in range(30)]
    for name in names:
        put(server, name, 10)
    together = Together(5)
    for name in names[:5]:
        server.faults[name].append(together)
    fetch(server, out, *names, connections=5)
    assert together.met


class Together:
    """A fault that answers only when so many requests wait for it."""

    met = False

    def __init__(self, number: int) -> None:
        self.barrier = threading.Barrier(number, action=self.meet)

    def meet(self) -> None:
        self.met = True

    def __call__(self, handler, data: bytes) -> bool:
        self.barrier.wait(20)
        return False


def test_a_cut_connection_goes_on_where_it_was(server, out):
    data = put(server)
    server.faults['file'] += [cut(300_000), cut(200_000)]
    count = fetch(server, out, 'file')
    assert (out / 'file').read_bytes() == data
    starts = [int(each.range.removeprefix('bytes=').rstrip('-')) for each in server.gets()[1:]]
    assert len(starts) == 2
    assert 0 < starts[0] <= 300_000 and starts[0] < starts[1] <= 500_000
    assert count.bytes == SIZE


def test_a_connection_is_cut_more_often_than_is_tried_without_progress(server, out):
    data = put(server)
    server.faults['file'] += [cut(100_000)] * 8
    fetch(server, out, 'file')
    assert (out / 'file').read_bytes() == data


def test_a_server_without_ranges_sends_it_again_from_the_start(server, out):
    data, server.has_ranges = put(server), False
    server.faults['file'].append(cut(300_000))
    count = fetch(server, out, 'file')
    assert (out / 'file').read_bytes() == data
    assert server.gets()[1].range is not None
    assert count.bytes == SIZE


@pytest.mark.parametrize('honours_if_range', [True, False])
def test_a_file_that_changes_meanwhile_is_not_joined_from_two(server, out, honours_if_range):
    put(server)
    server.checksums = 'other'  # no MD5 would show it

    def change(handler, data: bytes) -> bool:
        handler.send(data, lambda content: content[:300_000])
        put(server, seed=1)
        return True

    def forget_if_range(handler, data: bytes) -> bool:
        if not honours_if_range:
            del handler.headers['If-Range']
        return False

    server.faults['file'] += [change, forget_if_range]
    fetch(server, out, 'file')
    assert (out / 'file').read_bytes() == (server.folder / 'file').read_bytes()
    assert len(server.gets()) == (2 if honours_if_range else 3)


@pytest.mark.parametrize('shift', [-1, 1])
def test_a_range_that_begins_elsewhere_is_not_appended(server, out, shift):
    data = put(server)

    def send_elsewhere(handler, data: bytes) -> bool:
        start = int(handler.headers['Range'].removeprefix('bytes=').rstrip('-')) + shift
        handler.headers.replace_header('Range', f'bytes={start}-')
        return False

    server.faults['file'] += [cut(300_000), send_elsewhere]
    server.checksums = 'other'
    fetch(server, out, 'file')
    assert (out / 'file').read_bytes() == data


def test_an_interrupted_part_is_continued_by_the_next_run(server, out):
    data = put(server)
    server.faults['file'] += [cut(300_000), answer(403)]
    with pytest.raises(FetchError):
        fetch(server, out, 'file', known=True)
    assert [path.suffix for path in out.iterdir()] == ['.part']
    count = fetch(server, out, 'file', known=True)
    assert [path.read_bytes() for path in out.iterdir()] == [data]
    assert server.gets()[-1].range is not None
    assert count.bytes == SIZE


def test_a_part_of_another_version_is_not_continued(server, out):
    put(server)
    server.checksums = 'other'
    server.faults['file'] += [cut(300_000), answer(403)]
    with pytest.raises(FetchError):
        fetch(server, out, 'file', known=True)
    data = put(server, seed=1)
    fetch(server, out, 'file', known=True)
    assert [path.read_bytes() for path in out.iterdir()] == [data]
    assert server.gets()[-1].range is None


def test_a_part_that_is_whole_already_only_gets_its_name(server, out):
    data = put(server)
    server.faults['file'] += [cut(300_000), answer(403)]
    with pytest.raises(FetchError):
        fetch(server, out, 'file', known=True)
    next(out.iterdir()).write_bytes(data)
    before = len(server.gets())
    fetch(server, out, 'file', known=True)
    assert [path.read_bytes() for path in out.iterdir()] == [data]
    assert len(server.gets()) == before


def test_a_part_that_is_too_long_is_begun_again(server, out):
    data = put(server)
    server.faults['file'] += [cut(300_000), answer(403)]
    with pytest.raises(FetchError):
        fetch(server, out, 'file', known=True)
    next(out.iterdir()).write_bytes(data + b'more')
    fetch(server, out, 'file', known=True)
    assert [path.read_bytes() for path in out.iterdir()] == [data]


def test_a_missing_file_is_told_in_one_line_with_its_address(server, out):
    with pytest.raises(FetchError, match=rf'^{server.url}/none: HTTP 404 Not Found$'):
        fetch(server, out, 'none')
    with pytest.raises(FetchError, match=rf'^{server.url}/none: HTTP 404 Not Found$'):
        look_up([f'{server.url}/none'])
    assert not list(out.iterdir())
    assert len(server.gets()) == 1


def test_missing_files_do_not_stop_the_others_if_so_asked(server, out):
    data = put(server, 'there', 10)
    count = fetch(server, out, 'none', 'there', connections=1, keep_going=True)
    assert [str(error) for error in count.missing] == [f'{server.url}/none: HTTP 404 Not Found']
    assert (out / 'there').read_bytes() == data
    assert count.files == 1


def test_a_server_that_has_nothing_is_not_asked_for_everything(server, out):
    with pytest.raises(FetchError, match='404 Not Found, as for 99 other files'):
        fetch(server, out, *(f'{n}' for n in range(500)), keep_going=True)
    assert len(server.gets()) < 120


@pytest.mark.parametrize(('status', 'wait'), [(429, lambda: '1'), (503, lambda: '1'),
                                              (503, lambda: http_date(2))])
def test_all_connections_leave_a_server_alone_as_long_as_it_asks(server, out, status, wait):
    names = [f'{n}' for n in range(12)]
    for name in names:
        put(server, name, 10)
    times = []

    def refuse(handler, data: bytes) -> bool:
        time.sleep(0.2)  # the others have been answered
        times.append(time.monotonic())
        handler.say(status, Retry_After=wait())
        return True

    def note_time(handler, data: bytes) -> bool:
        times.append(time.monotonic())
        return False

    server.faults['0'] += [refuse]
    for name in names[1:3]:
        server.faults[name].append(slowly)
    for name in names[3:]:
        server.faults[name].append(note_time)
    fetch(server, out, *names, connections=3)
    assert len(list(out.iterdir())) == len(names)
    assert times[1] - times[0] > 0.9


def slowly(handler, data: bytes) -> bool:
    time.sleep(0.4)
    return False


def http_date(seconds: float) -> str:
    return formatdate(time.time() + seconds, usegmt=True)


def test_a_server_that_asks_for_a_day_is_not_waited_for(server, out):
    put(server)
    server.faults['file'].append(answer(503, Retry_After='86400'))
    with pytest.raises(FetchError, match=r'HTTP 503 .*; to be tried again in 86400 s'):
        fetch(server, out, 'file')


@pytest.mark.parametrize('status', [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(server, out, status):
    data = put(server, size=10)
    server.faults['file'] += [answer(status)] * 2
    fetch(server, out, 'file')
    assert (out / 'file').read_bytes() == data


def test_a_pause_in_the_midst_of_a_file_forgets_none_of_it(server, out):
    data = put(server)
    server.faults['file'] += [cut(300_000), answer(503)]
    fetch(server, out, 'file')
    assert (out / 'file').read_bytes() == data
    assert server.gets()[-1].range not in (None, 'bytes=0-')


def test_a_connection_that_falls_silent_counts_as_cut(server, out):
    data, until = put(server), threading.Event()
    server.faults['file'].append(stall(300_000, until))
    started = time.monotonic()
    try:
        fetch(server, out, 'file', patience=Patience(3, 0.01, silence=0.5))
    finally:
        until.set()
    assert time.monotonic() - started < 40
    assert (out / 'file').read_bytes() == data
    assert server.gets()[-1].range is not None


def test_what_does_not_pass_is_told_with_how_often_it_was_tried(server, out):
    put(server)
    server.faults['file'] += [answer(500)] * 9
    with pytest.raises(FetchError, match='HTTP 500 Internal Server Error; so 3 times'):
        fetch(server, out, 'file', keep_going=True)  # a server that is ill has not said no
    assert len(server.gets()) == 3


def test_waiting_long_is_told(server, out, capsys):
    put(server)
    server.faults['file'] += [answer(500)] * 3
    fetch(server, out, 'file', patience=Patience(5, 0.01))
    assert f'{server.url}/file: HTTP 500 Internal Server Error; again in 0 s' \
        in capsys.readouterr().err


def test_no_server_is_an_error_in_one_line(out):
    with pytest.raises(UserError, match='Cannot connect to host'):
        look_up(['http://127.0.0.1:9/file'], patience=QUICK)


@pytest.mark.parametrize('checksums', ['google', 'google pieces', 's3'])
def test_bytes_that_do_not_have_the_checksum_are_fetched_again(server, out, checksums):
    data, server.checksums = put(server), checksums
    server.faults['file'].append(spoil)
    count = fetch(server, out, 'file')
    assert (out / 'file').read_bytes() == data
    assert len(server.gets()) == 2
    assert count.bytes == SIZE


def test_bytes_that_never_have_the_checksum_become_no_file(server, out):
    put(server)
    server.faults['file'] += [spoil] * 5
    with pytest.raises(FetchError, match=r'/file: MD5 [0-9a-f]{32}, expected [0-9a-f]{32}; so 3 '):
        fetch(server, out, 'file')
    assert not list(out.iterdir())


def test_an_etag_of_another_server_is_no_checksum(server, out):
    data, server.checksums = put(server), 'other'
    fetch(server, out, 'file')
    assert (out / 'file').read_bytes() == data


def test_a_zip_that_is_damaged_inside_becomes_no_file(server, out):
    with zipfile.ZipFile(server.folder / 'a.zip', 'w') as archive:
        archive.writestr('mask.png', b'0123456789' * 100)
    data, server.checksums = (server.folder / 'a.zip').read_bytes(), 'other'
    fetch(server, out, 'a.zip', is_zip=True, known=True)
    assert (out / 'a.zip').read_bytes() == data
    for name, damaged in (('b.zip', data.replace(b'0123456789', b'0123456780', 1)),
                          ('c.zip', data[:-10])):
        (server.folder / name).write_bytes(damaged)
        with pytest.raises(FetchError, match='corrupt zip: '):
            fetch(server, out, name, is_zip=True, known=True)
        assert not (out / name).exists()


def test_a_full_disk_names_the_file_and_ends_the_other_connections(server, out, monkeypatch):
    for name in ('a', 'b'):
        put(server, name)

    class Full(io.FileIO):
        def write(self, data) -> int:
            if self.tell() + len(data) > 500_000:
                raise OSError(28, os.strerror(28))
            return super().write(data[:1000])

    monkeypatch.setattr('projects.openimages.download.part.io.FileIO', Full)
    with pytest.raises(OSError, match='No space left') as caught:
        fetch(server, out, 'a', 'b', known=True)
    assert caught.value.filename in (str(out / 'a'), str(out / 'b'))
    assert not (out / 'a').exists() and not (out / 'b').exists()
    monkeypatch.undo()
    fetch(server, out, 'a', 'b', known=True)
    assert {path.name for path in out.iterdir()} == {'a', 'b'}
    assert any(each.range for each in server.gets()[-2:])
