"""Errors for people, and how a command line starts and ends.

A user's mistake is a :class:`UserError`: one line that names the file, the row and the value.
:func:`run_command` turns it into exit code 2 without a traceback; a bug keeps its traceback.

A command begins with :func:`exit_on_interrupt`, so that Ctrl-C is answered in one line from its
first import on::

    from projects.openimages.common.errors import exit_on_interrupt, run_command

    if __name__ == '__main__':
        exit_on_interrupt()

    from ... import ...    # all other imports of the project

    if __name__ == '__main__':
        run_command(main)
"""

from __future__ import annotations

import errno
import math
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_BROKEN_PIPE = 128 + signal.SIGPIPE


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

    def __reduce__(self) -> tuple[type[UserError], tuple[str]]:
        """A worker process hands it on as it is, its place already in the text."""
        return UserError, (str(self),)


class ConfigError(UserError, ValueError):
    """An option of a config that cannot be: a ``ValueError`` in Python, one line for a command."""

    def __reduce__(self) -> tuple[type[UserError], tuple[str]]:
        """As a ``UserError``'s."""
        return ConfigError, (str(self),)


def check_number(name: str, value: object, low: float, high: float = math.inf) -> None:
    """A :class:`ConfigError` where an option is no number from ``low`` to ``high``."""
    if not (isinstance(value, (int, float)) and low <= value <= high):
        expected = f'{low:g} or more' if high == math.inf else f'from {low:g} to {high:g}'
        raise ConfigError(f'{name} must be {expected}, got {value!r}')


def exit_on_interrupt() -> None:
    """Let Ctrl-C end this process at once and without a traceback, until :func:`run_command`.

    The imports of a command take seconds. There is nothing to clean up yet, and an exception in
    the middle of a C extension's import may come out as another one. Where Ctrl-C is ignored
    already, as in a background job of a shell script, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit_at_once)


def _exit_at_once(*_: object) -> NoReturn:
    os.write(2, b'interrupted\n')
    os._exit(EXIT_INTERRUPTED)


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Run a command line's ``main`` and exit as a shell expects.

    0 or the number that ``main`` returns; 2 for a :class:`UserError` or a file system's refusal;
    130 after Ctrl-C and 141 where nobody reads the output any more (``command | head``), as for a
    command that the signal ended. Anything else is a bug of ours and keeps its traceback.
    """
    try:
        if signal.getsignal(signal.SIGINT) is _exit_at_once:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = main() or 0
        sys.stdout.flush()
    except UserError as error:
        code = _complain(str(error))
    except KeyboardInterrupt:
        exit_on_interrupt()  # who asks again waits for nothing
        print('interrupted', file=sys.stderr)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        code = EXIT_BROKEN_PIPE
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        name = f'{error.filename}: ' if error.filename else ''
        code = _complain(f'{name}{error.strerror}')
    _let_go_of_stdout()
    sys.exit(code)


_REFUSALS = {errno.ENOENT, errno.EEXIST, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT,
             errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EFBIG, errno.ELOOP,
             errno.ENAMETOOLONG, errno.EIO, errno.ESTALE}


def _complain(message: str) -> int:
    print('error: ' + ' '.join(message.split()), file=sys.stderr)
    return EXIT_USER_ERROR


def _let_go_of_stdout() -> None:
    """What stdout does not take now it will not take at exit either, where Python would complain
    once more and change the exit code."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
