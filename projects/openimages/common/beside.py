"""Work in a thread beside the caller's, which waits for it only when too much is waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Beside:
    """A thread that works on one call after the other.

    What a call raises is raised by the next :meth:`call` or by :meth:`finish`; what waits behind it
    is then forgotten.

    Args:
        waiting: calls that may wait; the next one waits with its caller, so memory is bounded.
    """

    def __init__(self, waiting: int) -> None:
        self._waiting = waiting
        self._calls: deque[Future[Any]] = deque()
        self._thread: ThreadPoolExecutor | None = None

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Let the thread call a function when the calls before have been made."""
        while self._calls and (self._calls[0].done() or len(self._calls) > self._waiting):
            self._take_first()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1)
        self._calls.append(self._thread.submit(function, *arguments))

    def finish(self) -> None:
        """Wait until all calls have been made; the thread ends."""
        while self._calls:
            self._take_first()
        self._close()

    def _take_first(self) -> None:
        try:
            self._calls.popleft().result()
        except BaseException:  # Ctrl-C as well
            self._close()
            raise

    def _close(self) -> None:
        self._calls.clear()
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._thread = None
