"""Looking at the processes of a running command."""

import contextlib
import time
from collections.abc import Callable

import psutil


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until ``condition()`` is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.02)


def workers_of(pid: int) -> list[psutil.Process]:
    """The worker processes that a running command has started."""
    found = []
    for process in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error):
            if any('spawn_main' in word for word in process.cmdline()):
                found.append(process)
    return found
