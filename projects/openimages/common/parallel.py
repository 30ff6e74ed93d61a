"""Work in several processes, with the results in the order of the tasks.

The one way in which this project starts worker processes. They are spawned, not forked: the parent
has Arrow's threads, and a forked lock may never open again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
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
    One worker means this process.

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
    context = multiprocessing.get_context('spawn')
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker,
                               initargs=(function, shared))
    try:
        waiting: deque = deque()
        for task in tasks:
            waiting.append(pool.submit(_call_in_worker, task))
            if len(waiting) >= _TASKS_AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError('a worker process was killed, perhaps for want of memory; run the same '
                        'command again, with fewer --workers if it happens again') from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _call(function: Callable[..., Result], shared: Any, task: Task) -> Result:
    return function(task) if shared is None else function(shared, task)


_work: tuple[Callable[..., Any], Any]


def _start_worker(function: Callable[..., Any], shared: Any) -> None:
    """Leave Ctrl-C to the parent, and do not outlive it: a killed one would be waited for."""
    global _work
    _work = (function, shared)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _call_in_worker(task: Any) -> Any:
    return _call(*_work, task)
