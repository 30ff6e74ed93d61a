"""Work in several processes, with the results in the order of the tasks."""

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
from typing import TypeVar

from projects.openimages.support import UserError

_TASKS_TO_START = 2
Task = TypeVar('Task')
Result = TypeVar('Result')


def run_in_order(function: Callable[[Task], Result], tasks: Iterable[Task],
                 workers: int, total: int) -> Iterator[Result]:
    """``map(function, tasks)`` over processes.

    Tasks are taken from the iterable a few ahead of the results, so neither is ever held whole.
    One worker means this process.

    Args:
        function: importable by name, as are its argument and its result.
        tasks: any number.
        workers: processes at most; starting one takes a second, so it gets several tasks.
        total: number of tasks.
    """
    workers = min(workers, total // _TASKS_TO_START)
    if workers <= 1:
        yield from map(function, tasks)
        return
    # Not forked: the parent has Arrow's threads, and a forked lock may never open again.
    context = multiprocessing.get_context('spawn')
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare_worker)
    try:
        waiting: deque = deque()
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) >= 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError('a worker process was killed, perhaps for want of memory; run the same '
                        'command again to go on, with fewer --workers if it happens again'
                        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _prepare_worker() -> None:
    """Leave Ctrl-C to the parent, and do not outlive it: a killed one would be waited for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
