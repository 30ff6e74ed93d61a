"""Mask files where they are: inside the official zips, or in folders somebody extracted them to.

In: zips and folders. Out: for each mask of the masks CSV the place of its bytes, and a reader that
worker processes use. Nothing is extracted; no name out of an archive ever becomes a path.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import open_regular
from projects.openimages.data.folders import file_names
from projects.openimages.data.layout import SplitFiles
from projects.openimages.data.problems import ProblemLog

MAX_FILE_BYTES = 64 << 20
"""A mask file that says it is larger is refused; real ones have a few kilobytes."""

_DAMAGES = (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, ValueError, RuntimeError,
            LookupError, EOFError, struct.error, zlib.error)  # zipfile's ways to say it


class EntryError(Exception):
    """A mask file whose bytes cannot be had; the message says why."""


@dataclass(frozen=True)
class MaskPlaces:
    """Where the bytes of M masks are.

    Attributes:
        source: (M,) int32, which folder or zip; -1 where there is no such file.
        entry: (M,) int64, which entry of the zip's directory; -1 in a folder.
    """

    source: np.ndarray
    entry: np.ndarray

    def take(self, rows: np.ndarray) -> MaskPlaces:
        """The places of some masks."""
        return MaskPlaces(self.source[rows], self.entry[rows])


def find_masks(files: SplitFiles, names: pa.Array, log: ProblemLog) -> MaskPlaces:
    """Look up mask files by name; an extracted file goes before an archive.

    Args:
        files: the split's archives and folders.
        names: M file names, an Arrow string array.
        log: gets the archives that cannot be read and the names that are not safe.
    """
    listings = [_list_archive(path, log) if path in files.archives else _list_folder(path)
                for path in _sources(files)]
    all_names = pa.chunked_array([listing[0] for listing in listings], pa.large_utf8())
    sources = np.repeat(np.arange(len(listings)), [len(listing[0]) for listing in listings])
    entries = np.concatenate([np.zeros(0, np.int64), *(listing[1] for listing in listings)])
    found = pc.index_in(names, value_set=all_names).fill_null(-1).to_numpy()
    return MaskPlaces(np.append(sources, -1)[found].astype(np.int32),
                      np.append(entries, -1)[found])


def _sources(files: SplitFiles) -> tuple[Path, ...]:
    """What :class:`MaskPlaces` counts."""
    return (*files.mask_folders, *files.archives)


def _list_folder(folder: Path) -> tuple[pa.Array, np.ndarray]:
    names = file_names(folder, '.png')
    return pa.array(names, pa.large_utf8()), np.full(len(names), -1)


def _list_archive(path: Path, log: ProblemLog) -> tuple[pa.Array, np.ndarray]:
    """File names, and the number of each in the zip's directory, (E,) int64."""
    names, numbers = [], []
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except _DAMAGES as error:
        log.bad('broken_archive', f'corrupt or truncated zip: {error}', path=path)
        entries = []
    for number, entry in enumerate(entries):
        if _is_unsafe(entry.orig_filename):
            log.bad('unsafe_archive_name',
                    f'entry {entry.orig_filename!r} leaves the archive\'s folder', path=path)
            continue
        names.append(entry.filename.rpartition('/')[2])
        numbers.append(number)
    return pa.array(names, pa.large_utf8()), np.array(numbers, np.int64)


def _is_unsafe(name: str) -> bool:
    parts = name.replace('\\', '/').split('/')
    return '..' in parts or parts[0] == '' or ':' in parts[0] or '\0' in name


class MaskReader:
    """Reads a split's mask files by their places.

    It keeps the last archive open, for masks come archive by archive. Opening one of full size
    (133,000 entries) takes each process 0.6 s and 87 MiB. Parsing zips here, with the entries'
    offsets from the parent process, saved 6% of a shard's CPU time in one process and 8% in two
    (6000 to 16,000 masks of 1024x768, both readers in turns), and perhaps 11% in each of eight:
    too little to keep such code.
    """

    def __init__(self, files: SplitFiles) -> None:
        self._sources = _sources(files)
        self._open: tuple[Path, zipfile.ZipFile] | None = None

    def read(self, source: int, entry: int, name: str) -> bytes:
        """The bytes of a mask file.

        Args:
            source, entry: its place.
            name: its name.

        Raises:
            EntryError: they are not there or not whole.
        """
        path = self._sources[source]
        try:
            return _read_file(path / name) if entry < 0 else self._read_entry(path, entry)
        except UserError as error:
            raise EntryError(str(error)) from None
        except OSError as error:
            raise EntryError(f'cannot read {path}: {error.strerror}') from None
        except _DAMAGES as error:
            raise EntryError(f'damaged zip (wrong checksum, size or header): {error}') from None

    def _read_entry(self, path: Path, number: int) -> bytes:
        archive = self._archive(path)
        entry = archive.infolist()[number]
        _check_size(entry.file_size)
        with archive.open(entry) as file:
            data = file.read(entry.file_size)  # without a number it would inflate all there is
        if len(data) != entry.file_size:
            raise EntryError(f'damaged zip: {len(data)} bytes, expected {entry.file_size}')
        return data

    def _archive(self, path: Path) -> zipfile.ZipFile:
        if self._open is None or self._open[0] != path:
            self.close()
            self._open = (path, zipfile.ZipFile(path))
        return self._open[1]

    def close(self) -> None:
        """Close the archive that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None


def _read_file(path: Path) -> bytes:
    with open_regular(path) as file:
        _check_size(os.fstat(file.fileno()).st_size)
        return file.read()


def _check_size(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise EntryError(f'larger than {MAX_FILE_BYTES} bytes')
