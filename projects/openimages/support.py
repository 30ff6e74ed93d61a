"""What every command line here shares: errors for people, whole files, progress.

A user's mistake is a :class:`UserError`: one line that names the file, the row and the value.
:func:`run_command` turns it into exit code 2 without a traceback; a bug keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

from tqdm import tqdm

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class UserError(Exception):
    """A mistake in the input, told in one line: what, where (file and row), and what was expected.

    Args:
        message: what is wrong, and what was expected.
        path: the file it is in.
        row: 1-based line number in that file, the header being line 1.
    """

    def __init__(self, message: str, *, path: str | os.PathLike | None = None,
                 row: int | None = None) -> None:
        place = '' if path is None else os.fspath(path)
        if row is not None:
            place += f', row {row}'
        super().__init__(f'{place}: {message}' if place else message)

    def __reduce__(self):  # a worker process hands it on as it is, its place already in the text
        return (UserError, (str(self),))


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Run a command line's ``main`` and exit as a shell expects.

    0 or the number that ``main`` returns; 2 for a :class:`UserError` or a file system's refusal;
    130 after Ctrl-C. Anything else is a bug of ours and keeps its traceback.
    """
    try:
        code = main() or 0
        sys.stdout.flush()
    except UserError as error:
        code = _complain(str(error))
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # `command | head`: the reader left, nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        name = f'{error.filename}: ' if error.filename else ''
        code = _complain(f'{name}{error.strerror}')
    sys.exit(code)


_REFUSALS = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EROFS,
             errno.ENOTDIR, errno.EISDIR, errno.EFBIG}


def _complain(message: str) -> int:
    print('error: ' + ' '.join(message.split()), file=sys.stderr)
    return EXIT_USER_ERROR


@contextmanager
def atomic_write(path: str | os.PathLike, mode: str = 'w', **options: Any) -> Iterator[IO[Any]]:
    """Open ``path`` for writing so that it is whole or not there at all.

    The text goes to a temporary name in the same folder, is flushed to disk, and takes the real
    name only when the block ends without an error; otherwise the temporary file is removed and a
    former file stays as it was. Missing folders are made.

    Args:
        path: the file to write.
        mode: ``'w'`` or ``'wb'``.
        options: further arguments of :func:`open`; text is UTF-8 unless they say otherwise.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if 'b' not in mode:
        options.setdefault('encoding', 'utf-8')
        options.setdefault('newline', '\n')
    handle, name = tempfile.mkstemp(prefix=f'.{path.name}.', suffix='.part', dir=path.parent)
    os.close(handle)
    try:
        with open(name, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())  # mkstemp makes files private
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def progress(iterable: Iterable | None = None, *, total: int | None = None, desc: str = '',
             unit: str = 'it') -> tqdm:
    """A progress bar on stderr with rate and time left.

    On a terminal it moves. In a log file it is a line every ten seconds, and none for what is done
    in two, so that a log stays readable and still shows that the work goes on.
    """
    if sys.stderr.isatty():
        return tqdm(iterable, total=total, desc=desc, unit=unit, dynamic_ncols=True,
                    mininterval=0.2, smoothing=0.1)
    return tqdm(iterable, total=total, desc=desc, unit=unit, file=_Lines(sys.stderr), ncols=100,
                mininterval=10.0, delay=2.0, smoothing=0.1, ascii=True)


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
