"""Progress bars that also read well in a log file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import IO

from tqdm import tqdm


def progress(iterable: Iterable | None = None, *, total: int | None = None, desc: str = '',
             unit: str = 'it', scaled: bool = False) -> tqdm:
    """A progress bar on stderr with rate and time left.

    On a terminal it moves. In a log file it is a line every ten seconds, and none for what is done
    in two, so that a log stays readable and still shows that the work goes on. ``scaled`` writes
    large numbers with k, M, G.
    """
    if sys.stderr.isatty():
        return tqdm(iterable, total=total, desc=desc, unit=unit, unit_scale=scaled,
                    dynamic_ncols=True, mininterval=0.2, smoothing=0.1)
    return tqdm(iterable, total=total, desc=desc, unit=unit, unit_scale=scaled,
                file=_Lines(sys.stderr), ncols=100, mininterval=10.0, delay=2.0, smoothing=0.1,
                ascii=True)


class _Lines:
    """A stream on which tqdm's redrawing of one line becomes a line each."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        line = text.strip('\r\n ')
        if line:
            self._stream.write(line + '\n')

    def flush(self) -> None:
        self._stream.flush()
