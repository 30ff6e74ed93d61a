"""A file that is on its way: ``.NAME.part`` until it is whole and checked, then ``NAME``."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
import zlib
from pathlib import Path

from projects.openimages.download.checksums import find_difference
from projects.openimages.download.remote import Remote

_DAMAGES = (zipfile.BadZipFile, NotImplementedError, ValueError, RuntimeError, EOFError, zlib.error)


class DamagedError(Exception):
    """What came is not what the server has; the message says how that shows."""


class Part:
    """The beginning of a file, to be continued; a context manager.

    One whose version was known beforehand is kept from run to run, under a name with the version
    in it, so that two versions never become one file. Any other lasts as long as the context.

    Args:
        target: the file it becomes; its folder is there.
        known: what the server said of it, if it was asked before.
        is_zip: test the checksums inside as well.

    Attributes:
        size: how many bytes there are.
        remote: the file on the server that they are of.
    """

    def __init__(self, target: Path, known: Remote | None, *, is_zip: bool) -> None:
        self.target, self.remote, self.size = target, known or Remote(), 0
        self._is_zip, self._is_kept = is_zip, self.remote.version is not None
        tag = ''
        if self.remote.version is not None:
            tag = '.' + hashlib.sha256(self.remote.version.encode()).hexdigest()[:8]
        self._path = target.with_name(f'.{target.name}{tag}.part')
        self._file: io.FileIO | None = None

    def __enter__(self) -> Part:
        if self._is_kept:
            for other in self.target.parent.glob(f'.{self.target.name}.*.part'):
                if other != self._path:
                    other.unlink()
        self._file = io.FileIO(self._path, 'ab' if self._is_kept else 'wb')
        self.size = self._file.seek(0, os.SEEK_END)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        self._file.close()
        if not self._is_kept:
            self._path.unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        """Append; an OSError has the target's name."""
        assert self._file is not None
        view = memoryview(chunk)
        try:
            while view:  # a disk that is nearly full takes a part of it
                written = self._file.write(view)
                self.size += written
                view = view[written:]
        except OSError as error:
            error.filename = os.fspath(self.target)
            raise

    def restart(self, remote: Remote) -> None:
        """Forget all bytes; what comes next is the beginning of ``remote``."""
        assert self._file is not None
        self._file.truncate(0)
        self._file.seek(0)
        self.size, self.remote = 0, remote

    def finish(self) -> None:
        """Check the bytes and give them their name.

        An image is not flushed to the disk first: that would take longer than fetching it. One
        that a power cut empties counts as absent in the next run.

        Raises:
            DamagedError: another size or checksum than expected, also of a file inside a zip.
        """
        assert self._file is not None
        difference = find_difference(self._path, self.remote)
        if difference is not None:
            raise DamagedError(difference)
        if self._is_zip:
            _test_zip(self._path)
        if self._is_kept:
            os.fsync(self._file.fileno())
        os.replace(self._path, self.target)


def _test_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entry = archive.testzip()
    except _DAMAGES as error:
        raise DamagedError(f'corrupt zip: {error}') from None
    if entry is not None:
        raise DamagedError(f'corrupt zip: wrong checksum of {entry}')
