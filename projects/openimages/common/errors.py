"""Errors for people, and how a command line ends.

A user's mistake is a :class:`UserError`: one line that names the file, the row and the value.
:func:`run_command` turns it into exit code 2 without a traceback; a bug keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn

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
             errno.ENOTDIR, errno.EISDIR, errno.EFBIG, errno.ELOOP, errno.ENAMETOOLONG}


def _complain(message: str) -> int:
    print('error: ' + ' '.join(message.split()), file=sys.stderr)
    return EXIT_USER_ERROR
