"""Runs that are killed, interrupted or in each other's way, met at their work."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from projects.openimages.data.mask_files.png import PackedMask
from projects.openimages.data.official.releases import CHALLENGE
from projects.openimages.data.prepare import fingerprint, run, shards
from projects.openimages.data.prepare.shards import ShardResult
from tests.data.helpers import archive_of, outputs, prepare, read_rows, table
from tests.helpers import REPOSITORY, assert_one_line_error, run_tool

PATIENCE = 120  # seconds; a loaded machine is no failure


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, 'waited too long'
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    try:
        status = Path(f'/proc/{pid}/stat').read_text(encoding='utf-8')
    except FileNotFoundError:
        return False
    return status.rpartition(') ')[2][0] != 'Z'


class HeldRun:
    """A run of two worker processes on the train split, in a process group of its own.

    Its workers stop in the midst of their second shard until they are released.
    """

    def __init__(self, root: Path, log: Path) -> None:
        self._root, self._log = root, log
        log.touch()
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'tests.data.prepare.held_run', str(root), '2', str(log)],
            cwd=REPOSITORY, text=True, start_new_session=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE)

    def release(self) -> None:
        self._log.with_name(f'{self._log.name}.go').touch()

    def noted(self, word: str) -> list[int]:
        """The process ids noted with 'read', one a mask, or with 'held'."""
        lines = map(str.split, self._log.read_text(encoding='ascii').splitlines())
        return [int(pid) for noted, pid in lines if noted == word]

    def held_workers(self) -> list[int]:
        """Wait until both workers are held; returns their process ids.

        They are at work then: each has left a shard and has begun another, and there is no index.
        """
        wait_for(lambda: len(self.noted('held')) == 2)
        workers = self.noted('held')
        folder = self._root / 'prepared' / 'train'
        assert self.process.pid not in workers and all(map(is_running, workers))
        assert len(list(folder.glob('.parts/*/shard-*.npz'))) == 2
        assert not list(folder.rglob('index.arrow'))
        return workers

    def end(self) -> subprocess.CompletedProcess:
        """Wait for its end."""
        _, errors = self.process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess([], self.process.returncode, '', errors)


@pytest.fixture
def start_run(data_root, tmp_path):
    """Start runs on the demo data; what a failed test leaves running is killed."""
    runs = []

    def start() -> HeldRun:
        runs.append(HeldRun(data_root, tmp_path / f'run-{len(runs)}'))
        return runs[-1]

    yield start
    for held in runs:
        if held.process.poll() is None:
            os.killpg(held.process.pid, signal.SIGKILL)
        held.process.stderr.close()


def assert_goes_on(start: Callable[[], HeldRun], data_root: Path, prepared_data: Path) -> None:
    """The same command again uses the shards that are there and leaves the bytes of an undisturbed
    run."""
    there = [ShardResult.load(path) for path in data_root.glob('prepared/train/.parts/*/*.npz')]
    again = start()
    again.release()
    ended = again.end()
    assert ended.returncode == 0, ended.stderr
    masks = len(read_rows(table(data_root, 'masks')))
    assert len(again.noted('read')) == masks - sum(len(result.areas) for result in there)
    assert outputs(data_root) == outputs(prepared_data)
    assert os.listdir(data_root / 'prepared') == ['train']


def test_killed_worker_is_told_in_one_line_and_loses_nothing(data_root, prepared_data, start_run):
    held = start_run()
    workers = held.held_workers()
    os.kill(workers[0], signal.SIGKILL)
    held.release()  # the other worker may come to the end of its shard
    assert_one_line_error(held.end(), 'a worker process was killed')
    assert os.listdir(data_root / 'prepared' / 'train') == ['.parts']
    wait_for(lambda: not any(map(is_running, workers)))
    assert_goes_on(start_run, data_root, prepared_data)


def test_killed_run_takes_its_workers_along_and_blocks_nobody(data_root, prepared_data, start_run):
    held = start_run()
    workers = held.held_workers()
    held.process.kill()
    held.process.wait()
    wait_for(lambda: not any(map(is_running, workers)))
    assert (data_root / 'prepared' / '.train.lock').exists()
    assert_goes_on(start_run, data_root, prepared_data)


def test_interrupt_of_the_process_group_is_no_traceback_and_loses_nothing(
        data_root, prepared_data, start_run):
    held = start_run()
    workers = held.held_workers()
    os.killpg(held.process.pid, signal.SIGINT)
    held.release()  # it waits for the shards that are begun
    ended = held.end()
    assert ended.returncode == 130
    assert ended.stderr.splitlines()[-1] == 'interrupted' and 'Traceback' not in ended.stderr
    assert not any(map(is_running, workers))
    assert os.listdir(data_root / 'prepared' / 'train') == ['.parts']
    assert_goes_on(start_run, data_root, prepared_data)


def test_second_run_on_a_split_is_refused_and_the_first_finishes(data_root, prepared_data,
                                                                 start_run):
    first = start_run()
    first.held_workers()
    command = ('tools/prepare_data.py', '--data-root', data_root, '--workers', 1, '--split')
    assert_one_line_error(run_tool(*command, 'train'),
                          'prepared/train: another run is preparing this split')
    assert run_tool(*command, 'validation').returncode == 0  # another split is not in the way
    assert first.process.poll() is None
    first.release()
    assert first.end().returncode == 0
    for split in ('train', 'validation'):
        assert outputs(data_root, split) == outputs(prepared_data, split)


KILL_SCRIPT = '''
import sys
from pathlib import Path
from projects.openimages.data.export import coco, tf_ground_truth
from projects.openimages.data.prepare import shards
from tests.data.helpers import prepare
shards.MASKS_PER_SHARD = coco._IMAGES_PER_TASK = tf_ground_truth._IMAGES_PER_TASK = 4
print('ready', flush=True)
prepare(Path(sys.argv[1]))
'''


def test_runs_killed_at_any_moment_end_with_the_same_bytes(data_root, prepared_data):
    """SIGKILL ten times at random moments of a run, also while it writes and publishes."""
    command = [sys.executable, '-c', KILL_SCRIPT, str(data_root)]
    moments = random.Random(1)
    longest = 0.5
    kills = 0
    while kills < 10:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, text=True)
        assert process.stdout.readline() == 'ready\n'
        started = time.monotonic()
        try:
            process.wait(moments.uniform(0, longest))
            assert process.returncode == 0
            longest = max(longest, time.monotonic() - started)
            shutil.rmtree(data_root / 'prepared')  # it was finished: the next one starts afresh
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        process.stdout.close()
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert outputs(data_root) == outputs(prepared_data)


@pytest.fixture
def masks_read(data_root, monkeypatch) -> list[bytes]:
    """The masks read since a run was interrupted at its 30th; it has left some shards."""
    monkeypatch.setattr(shards, 'MASKS_PER_SHARD', 8)
    read = []
    real = shards.read_mask

    def stop_in_the_middle(data: bytes) -> PackedMask:
        read.append(data)
        if len(read) == 30:
            raise KeyboardInterrupt
        return real(data)

    monkeypatch.setattr(shards, 'read_mask', stop_in_the_middle)
    with pytest.raises(KeyboardInterrupt):
        prepare(data_root)
    monkeypatch.setattr(shards, 'read_mask', lambda data: (read.append(data), real(data))[1])
    read.clear()
    return read


def change_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pass


def touch_table(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(table(root, 'masks'), (0, 0))


def touch_archive(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(archive_of(root, 2), (0, 0))


def touch_class_list(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(root / CHALLENGE.classes[0], (0, 0))


def touch_image(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(next((root / 'images' / 'train').iterdir()), (0, 0))


def extract_a_mask(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / 'masks' / 'train' / 'train-masks-0'
    folder.mkdir(parents=True)
    (folder / 'a.png').touch()


def raise_version(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, 'PREPARE_VERSION', 99)


def raise_index_version(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, 'INDEX_VERSION', 99)


def join_closer(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, 'JOIN_TOLERANCE', 0.019)


CHANGES = (touch_table, touch_archive, touch_class_list, touch_image, extract_a_mask, raise_version,
           raise_index_version, join_closer)


def test_shards_of_another_size_are_not_mistaken_for_these(data_root, prepared_data, masks_read,
                                                           monkeypatch):
    monkeypatch.setattr(shards, 'MASKS_PER_SHARD', 16)
    prepare(data_root)
    assert outputs(data_root) == outputs(prepared_data)


@pytest.mark.parametrize('change', [change_nothing, *CHANGES])
def test_shards_are_used_again_only_for_the_same_inputs(data_root, prepared_data, masks_read,
                                                        monkeypatch, change):
    change(data_root, monkeypatch)
    prepare(data_root)
    masks = len(read_rows(table(data_root, 'masks')))
    assert len(masks_read) == (masks - 24 if change is change_nothing else masks)
    assert outputs(data_root)['index.arrow'] == outputs(prepared_data)['index.arrow']
    assert not (data_root / 'prepared/train/.parts').exists()


def test_shards_are_used_again_with_other_options(data_root, masks_read):
    """No option changes what a shard holds: what it leaves out is bad input, which stops a run
    before its first shard, or is in the shard's list of problems."""
    prepare(data_root, skip_bad=True, polygon_tolerance=1.0)
    assert len(masks_read) == len(read_rows(table(data_root, 'masks'))) - 24


def test_half_files_and_shards_of_other_inputs_are_cleared_away_first(data_root, masks_read,
                                                                      monkeypatch):
    def stop(*_) -> None:
        raise KeyboardInterrupt

    parts, = (data_root / 'prepared' / 'train' / '.parts').iterdir()
    whole = sorted(parts.glob('shard-*.npz'))
    (parts / '.index.arrow.abc.part').touch()
    (parts.parent / 'of-other-inputs').mkdir()
    monkeypatch.setattr(run, '_prepare', stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(data_root)
    assert list(parts.parent.iterdir()) == [parts]
    assert whole and sorted(parts.glob('.*.part')) == [] and sorted(parts.glob('*.npz')) == whole


@pytest.mark.parametrize('change', CHANGES)
def test_finished_split_is_used_again_until_its_inputs_change(data_root, monkeypatch, change):
    prepare(data_root)
    assert prepare(data_root).reused
    change(data_root, monkeypatch)
    assert not prepare(data_root).reused
    assert prepare(data_root).reused


@pytest.mark.parametrize('options', [{'skip_bad': True}, {'polygon_tolerance': 0.0},
                                     {'sizes': 'sizes.csv'}])
def test_finished_split_is_made_again_with_other_options(data_root, options):
    sizes = data_root / 'sizes.csv'
    sizes.write_text('ImageID,ImageWidth,ImageHeight\n', encoding='utf-8')
    if 'sizes' in options:
        options = {'sizes': sizes}
    prepare(data_root)
    assert not prepare(data_root, **options).reused
    assert prepare(data_root, **options).reused
    assert not prepare(data_root).reused


def test_what_a_run_killed_as_it_tidies_up_leaves_goes_with_the_next(data_root, monkeypatch):
    def stop(folder: Path, ignore_errors: bool) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, 'rmtree', stop)
        prepare(data_root)
    assert prepare(data_root).reused
    assert not (data_root / 'prepared/train/.parts').exists()


def test_split_that_another_run_finishes_just_now_is_used(data_root, monkeypatch):
    prepare(data_root)
    answers = iter([False])  # not yet, when this run looks first

    def look(*arguments) -> bool:
        return next(answers, None) is None and fingerprint.is_prepared(*arguments)

    monkeypatch.setattr(run, 'is_prepared', look)
    assert prepare(data_root).reused


def test_other_number_of_workers_is_no_other_option(data_root):
    prepare(data_root)
    assert prepare(data_root, workers=2).reused
