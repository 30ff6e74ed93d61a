"""Files: written whole or not at all, by one run at a time, and read only where they are files."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO, overload

from projects.openimages.common.errors import UserError


@overload
def atomic_write(path: str | os.PathLike, mode: Literal['w'] = ...,
                 **options: Any) -> AbstractContextManager[TextIO]: ...


@overload
def atomic_write(path: str | os.PathLike, mode: Literal['wb'],
                 **options: Any) -> AbstractContextManager[BinaryIO]: ...


@contextmanager
def atomic_write(path: str | os.PathLike, mode: str = 'w', **options: Any) -> Iterator[Any]:
    """Open ``path`` for writing so that it is whole or not there at all.

    The text goes to a temporary name ``.NAME.*.part`` in the same folder, is flushed to disk, and
    takes the real name only when the block ends without an error; otherwise the temporary file is
    removed and a former file stays as it was. So a command that opens its output first knows
    before its work that it can be written. Missing folders are made; links are followed.

    Args:
        path: the file to write.
        mode: ``'w'`` or ``'wb'``.
        options: further arguments of :func:`open`; text is UTF-8 unless they say otherwise.

    Raises:
        UserError: there is something else of that name, such as a folder or a device.
        OSError: what the file system refuses, with the name of the file.
    """
    target = _output(path)
    if 'b' not in mode:
        options.setdefault('encoding', 'utf-8')
        options.setdefault('newline', '\n')
    part = target.with_name(f'.{target.name}.{secrets.token_hex(4)}.part')
    try:
        with open(part, mode.replace('w', 'x'), **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and (error.filename == os.fspath(part)
                                           or error.errno in _NO_ROOM):
            error.filename = os.fspath(path)
        raise


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def _output(path: str | os.PathLike) -> Path:
    """The file that a path leads to, in a folder that exists."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    if not stat.S_ISREG(mode):
        raise UserError(f'{_kind(mode)}, expected a file', path=path)
    target = Path(os.path.realpath(path))  # renaming would replace a link, not what it points to
    _make_folder(target.parent)
    return target


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError('expected a folder', path=path) from None


@contextmanager
def exclusive(path: str | os.PathLike, work: str) -> Iterator[None]:
    """Let one run at a time work on ``path``.

    The lock is the kernel's, on a small file ``.NAME.lock`` beside ``path``: it ends with the
    process that holds it, however that ends, and a file left behind locks nothing. On NFS it holds
    between machines as well; where a file system has no locks, a warning says so.

    Args:
        path: the file or folder that is about to be written; its folder is made if missing.
        work: what the run does, for the other run's message, such as ``'preparing this split'``.

    Raises:
        UserError: another run holds it.
    """
    path = Path(path)
    _make_folder(path.parent)
    lock = path.with_name(f'.{path.name}.lock')
    handle = _locked(lock)
    if handle is None:
        raise UserError(f'another run is {work}; wait for it, or stop it', path=path)
    _held.add(handle)
    try:
        yield
    finally:
        if handle in _held:  # not in a forked child that leaves this block as well
            _held.remove(handle)
            if _is_file_of(handle, lock):
                lock.unlink(missing_ok=True)  # while we hold it, so nobody has locked it yet
            os.close(handle)


_held: set[int] = set()


def _leave_locks_to_the_parent() -> None:
    """The lock lasts until all copies of the descriptor are closed; a child's must not count."""
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_leave_locks_to_the_parent)


def _locked(lock: Path) -> int | None:
    """A descriptor that holds the lock; None while another process does."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(handle)
                raise
            warnings.warn(f'{lock.parent}: this file system has no locks ({error.strerror}); '
                          'nothing keeps a second run away', stacklevel=4)
        except BaseException:
            os.close(handle)
            raise
        if _is_file_of(handle, lock):
            return handle
        os.close(handle)  # its holder removed it between our opening and our locking: again


_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def _is_file_of(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Open an input for reading in binary, refusing what is no regular file.

    A FIFO or a device would make the reader wait, or read, for ever.

    Raises:
        UserError: a folder, FIFO, socket or device.
        OSError: as :func:`open` raises it: no such file, no permission, a loop of links.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise UserError(f'{_kind(mode)}, expected a file', path=path)
    return open(path, 'rb')


_KINDS = ((stat.S_ISDIR, 'a folder'), (stat.S_ISFIFO, 'a FIFO'), (stat.S_ISSOCK, 'a socket'),
          (stat.S_ISCHR, 'a device'), (stat.S_ISBLK, 'a device'))


def _kind(mode: int) -> str:
    return next((name for test, name in _KINDS if test(mode)), 'a special file')


def refuse_to_overwrite(out: str | os.PathLike, *inputs: str | os.PathLike) -> None:
    """Raise a UserError, before hours of work, where ``out`` cannot be written or should not be.

    Args:
        out: the file to be written.
        inputs: files that are read for it, under whatever name.
    """
    out = Path(out)
    if out.is_dir():
        raise UserError('a folder, expected a file to write', path=out)
    above = next((folder for folder in out.parents if folder.exists()), None)
    if above is not None and not above.is_dir():
        raise UserError('not a folder', path=above)
    for source in map(Path, inputs):
        if out.exists() and source.exists() and out.samefile(source):
            raise UserError(f'this is the input {source}, expected another file to write',
                            path=out)
