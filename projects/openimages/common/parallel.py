"""Work in several processes, with the results in the order of the tasks.

The one way in which this project starts worker processes. They are spawned, not forked: the parent
has Arrow's threads, and a forked lock may never open again. Each worker has a pipe of its own and
shares no lock with the others, so that the end of any of them, at any time, is noticed and blocks
nobody (``concurrent.futures.ProcessPoolExecutor`` hangs where a worker is killed while the next one
starts).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from queue import SimpleQueue
from typing import Any, TypeVar

from projects.openimages.common.errors import UserError

_TASKS_TO_START = 2
_TASKS_AHEAD = 4
Task = TypeVar('Task')
Result = TypeVar('Result')


def worker_count(requested: int | None = None) -> int:
    """How many processes to use.

    Args:
        requested: what the user asked for; None takes one a CPU core that this process may use.

    Raises:
        UserError: fewer than one.
    """
    if requested is None:
        return len(os.sched_getaffinity(0))
    if requested < 1:
        raise UserError(f'{requested} workers, expected at least 1')
    return requested


def run_in_order(function: Callable[..., Result], tasks: Iterable[Task], workers: int, total: int,
                 *, shared: Any = None) -> Iterator[Result]:
    """``map(function, tasks)`` over processes.

    Tasks are taken from the iterable a few ahead of the results, so neither is ever held whole.
    One worker means this process. After an error or Ctrl-C the tasks that are being worked on come
    to their end, so that they can leave things in order, and no further one is begun.

    Args:
        function: importable by name, as are its arguments and its result; called with a task, or
            with ``shared`` and a task where ``shared`` is given.
        tasks: any number.
        workers: processes at most; starting one takes a second, so it gets several tasks.
        total: number of tasks.
        shared: what all tasks need, handed to each process once.

    Raises:
        UserError: a worker process was killed.
    """
    workers = min(workers, total // _TASKS_TO_START)
    if workers <= 1:
        for task in tasks:
            yield _call(function, shared, task)
        return
    pool = _Pool(workers, ForkingPickler.dumps((function, shared)))
    try:
        waiting: deque[Future[Result]] = deque()
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) >= _TASKS_AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.close()


def _call(function: Callable[..., Result], shared: Any, task: Task) -> Result:
    return function(task) if shared is None else function(shared, task)


class _Pool:
    """Processes, and a thread for each of those at work that hands it a task and waits for it.

    Args:
        workers: how many.
        work: the pickled function and what is shared.
    """

    def __init__(self, workers: int, work: memoryview) -> None:
        self._free: SimpleQueue[_Worker] = SimpleQueue()
        self._workers: list[_Worker] = []
        self._threads = ThreadPoolExecutor(workers)
        with _interrupts_wait():
            for _ in range(workers):
                self._workers.append(_Worker(work))
                self._free.put(self._workers[-1])

    def submit(self, task: Any) -> Future[Any]:
        return self._threads.submit(self._work_on, task)

    def _work_on(self, task: Any) -> Any:
        worker = self._free.get()
        try:
            return worker.call(task)
        finally:
            self._free.put(worker)

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers:
            worker.close()


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block; processes that are started in it never see it.

    They inherit which signals are blocked. Here the signal may come by another thread, so Python's
    answer to it has to wait as well: a process that is half started would complain.
    """
    received: list[int] = []
    resource_tracker.ensure_running()  # multiprocessing's helper, whose start unblocks the signal
    if threading.current_thread() is not threading.main_thread():
        yield  # Ctrl-C is the main thread's, and only there Python's answer may be changed
        return
    answer = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGINT, answer)
    if received:
        signal.raise_signal(signal.SIGINT)


class _WorkerError(Exception):
    """Stands as the cause of a worker's error and prints its traceback, which cannot be sent."""


class _Worker:
    """A process that works on one task at a time."""

    def __init__(self, work: memoryview) -> None:
        context = multiprocessing.get_context('spawn')
        self._work: memoryview | None = work
        self._pipe, end = context.Pipe()
        self._process = context.Process(target=_serve, args=(end,), daemon=True)
        self._process.start()
        end.close()  # so that only the process has it, and its end is the pipe's

    def call(self, task: Any) -> Any:
        """The result of a task; what it raised is raised."""
        message = ForkingPickler.dumps(task)
        try:
            if self._work is not None:
                self._pipe.send_bytes(self._work)
                self._work = None
            self._pipe.send_bytes(message)
            result, error, where = self._pipe.recv()
        except (EOFError, ConnectionError):
            raise UserError('a worker process was killed, perhaps for want of memory; run the '
                            'same command again, with fewer --workers if it happens again'
                            ) from None
        if error is not None:
            raise error from _WorkerError(where)
        return result

    def close(self) -> None:
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection) -> None:
    """A worker's life: work on what comes, until the parent closes its end or is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, ConnectionError):
        function, shared = pipe.recv()
        while True:
            task = pipe.recv()
            result = error = where = None
            try:
                result = _call(function, shared, task)
            except Exception as raised:
                error, where = raised, traceback.format_exc()
            pipe.send((result, error, where))


def _end_with_parent() -> None:
    """Not only at the end of a task: the parent was killed, and nobody wants the result."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
