"""Work in processes: order, what they are handed, and how they end."""

import itertools
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from projects.openimages.common.errors import UserError
from projects.openimages.common.parallel import run_in_order, worker_count
from tests.common.processes import wait_until, workers_of
from tests.helpers import REPOSITORY


def slow_first(task):
    time.sleep(0.3 if task == 0 else 0)
    return task, os.getpid()


def test_results_come_in_the_order_of_the_tasks():
    results = list(run_in_order(slow_first, range(12), 2, 12))
    assert [task for task, _ in results] == list(range(12))
    assert {pid for _, pid in results}.isdisjoint({os.getpid()})


def test_processes_can_be_started_by_another_thread_than_the_main_one():
    with ThreadPoolExecutor(1) as thread:
        results = thread.submit(lambda: list(run_in_order(slow_first, range(6), 2, 6))).result()
    assert [task for task, _ in results] == list(range(6))


@pytest.mark.parametrize(('workers', 'total'), [(1, 12), (2, 3)])
def test_one_worker_and_few_tasks_are_this_process(workers, total):
    results = list(run_in_order(slow_first, range(total), workers, total))
    assert results == [(task, os.getpid()) for task in range(total)]


class Shared:
    """Counts how often this process has received it."""

    received = 0

    def __setstate__(self, state):
        Shared.received += 1


def received(shared, task):
    return shared.received, os.getpid()


def test_what_is_shared_is_handed_to_each_process_once():
    shared = Shared()
    shared.state = 'something to hand over'
    results = list(run_in_order(received, range(30), 2, 30, shared=shared))
    assert {times for times, _ in results} == {1}
    assert [times for times, _ in run_in_order(received, range(3), 1, 3, shared=shared)] == [0] * 3


def test_tasks_are_taken_a_few_ahead_only():
    taken = []
    tasks = (taken.append(task) or task for task in range(1000))
    results = run_in_order(slow_first, tasks, 2, 1000)
    assert [task for task, _ in itertools.islice(results, 5)] == list(range(5))
    assert len(taken) < 20
    results.close()


def kill_itself(task):
    if task[:1] == b'x':
        os.kill(os.getpid(), signal.SIGKILL)
    return len(task)


@pytest.mark.parametrize('size', [1, 10_000_000], ids=['small tasks', 'tasks that fill the pipe'])
def test_killed_worker_is_a_user_error(size):
    tasks = (b'x' if task == 3 else b'-' * size for task in range(12))
    done = []
    with pytest.raises(UserError, match=r'a worker process was killed.*fewer --workers'):
        for result in run_in_order(kill_itself, tasks, 2, 12):
            done.append(result)
    assert done == [size] * len(done) and len(done) <= 3


def fail_at_once(folder, task):
    (folder / str(task)).touch()
    if task == 0:
        raise UserError('unknown class', path='found.csv', row=7)
    time.sleep(0.5)


def test_error_of_a_task_ends_the_work_and_begins_no_further_task(tmp_path):
    with pytest.raises(UserError, match=r'^found\.csv, row 7: unknown class$'):
        list(run_in_order(fail_at_once, range(12), 2, 12, shared=tmp_path))
    assert len(list(tmp_path.iterdir())) <= 3


def divide_by(task):
    return 1 / task


def test_bug_in_a_worker_says_where_it_is():
    with pytest.raises(ZeroDivisionError) as error:
        list(run_in_order(divide_by, range(4), 2, 4))
    assert 'in divide_by\n    return 1 / task' in str(error.value.__cause__)


def test_fewer_than_one_worker_is_refused():
    for number in (0, -1):
        with pytest.raises(UserError, match=f'^{number} workers, expected at least 1$'):
            worker_count(number)
    assert worker_count(3) == 3
    assert worker_count() == len(os.sched_getaffinity(0))


@pytest.fixture
def command(tmp_path):
    """``worker_run`` in a process group of its own, as a shell starts it."""
    process = subprocess.Popen(
        [sys.executable, '-m', 'tests.common.worker_run', tmp_path, '20'], cwd=REPOSITORY,
        text=True, stderr=subprocess.PIPE, start_new_session=True)
    yield process
    process.kill()
    process.communicate()


def numbers(folder, what):
    return {int(path.name.split('-')[1]) for path in folder.glob(f'{what}-*')}


def test_interrupt_lets_what_was_begun_end_and_is_one_line(command, tmp_path):
    wait_until(lambda: len(numbers(tmp_path, 'start')) >= 2)
    pids = {process.pid for process in workers_of(command.pid)}
    os.killpg(command.pid, signal.SIGINT)
    assert command.communicate(timeout=60)[1] == 'interrupted\n'
    assert command.returncode == 130
    assert numbers(tmp_path, 'start') == numbers(tmp_path, 'end')
    assert len(numbers(tmp_path, 'end')) <= 4
    assert not any(map(psutil.pid_exists, pids))


def test_interrupt_while_workers_start_is_one_line(command, tmp_path):
    wait_until(lambda: workers_of(command.pid))
    os.killpg(command.pid, signal.SIGINT)
    assert command.communicate(timeout=60)[1] == 'interrupted\n'
    assert command.returncode == 130


def test_workers_end_with_a_killed_parent(command, tmp_path):
    wait_until(lambda: len(numbers(tmp_path, 'start')) >= 2)
    workers = workers_of(command.pid)
    assert len(workers) == 2
    command.kill()
    wait_until(lambda: not any(worker.is_running() for worker in workers))
    assert len(numbers(tmp_path, 'start')) <= 4  # not only when all is done
