"""Files: written whole or not at all, by one run at a time, and read only where they are files."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from projects.openimages.common.errors import UserError


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


@contextmanager
def exclusive(path: str | os.PathLike, work: str) -> Iterator[None]:
    """Let one run at a time work on ``path``.

    The lock is the kernel's, on a small file ``.NAME.lock`` beside ``path``: it ends with the
    process that holds it, however that ends, and a file left behind locks nothing.

    Args:
        path: the file or folder that is about to be written; its folder is made if missing.
        work: what the run does, for the other run's message, such as ``'preparing this split'``.

    Raises:
        UserError: another run holds it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f'.{path.name}.lock')
    handle = _locked(lock)
    if handle is None:
        raise UserError(f'another run is {work}; wait for it, or stop it', path=path)
    _held.add(handle)
    try:
        yield
    finally:
        if handle in _held:  # not in a forked child
            _held.remove(handle)
            lock.unlink(missing_ok=True)  # before the lock goes: nobody's fresh file is removed
            os.close(handle)


_held: set[int] = set()


def _let_go() -> None:
    """In a forked child, such as a data loader: the locks are its parent's, and end with that."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)


def _locked(lock: Path) -> int | None:
    """A descriptor that holds the lock; None while another process does."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        if _is_file_of(handle, lock):
            return handle
        os.close(handle)  # its holder removed it between our opening and our locking: again


def _is_file_of(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def open_regular(path: str | os.PathLike) -> IO[bytes]:
    """Open an input for reading in binary, refusing what is no regular file.

    A FIFO or a device would make the reader wait, or read, for ever; opening one for writing by
    mistake may even act on it, so the kind is known before anything is read.

    Raises:
        UserError: a folder, FIFO, socket or device.
        OSError: as :func:`open` raises it: no such file, no permission, a loop of links.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a FIFO would wait for a writer
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            raise UserError(f'{_kind(mode)}, expected a file', path=path)
        os.set_blocking(handle, True)
        return open(handle, 'rb')
    except BaseException:
        os.close(handle)
        raise


_KINDS = ((stat.S_ISDIR, 'a folder'), (stat.S_ISFIFO, 'a FIFO'), (stat.S_ISSOCK, 'a socket'),
          (stat.S_ISCHR, 'a device'), (stat.S_ISBLK, 'a device'))


def _kind(mode: int) -> str:
    return next((name for test, name in _KINDS if test(mode)), 'a special file')
