"""Mask files where they are: inside the official zips, or in folders somebody extracted them to.

In: zips and folders. Out: for each mask of the masks CSV the place of its bytes, which a worker
process reads without opening the zip's directory again. Nothing is extracted; no name out of an
archive ever becomes a path. Rules: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from zlib_ng import zlib_ng

from projects.openimages.data.layout import SplitFiles
from projects.openimages.data.problems import ProblemLog

MAX_FILE_BYTES = 64 << 20
"""A mask file that says it is larger is refused; real ones have a few kilobytes."""

_LOCAL_HEADER = struct.Struct('<4s22xHH')


class EntryError(ValueError):
    """A mask file whose bytes cannot be had; the message says why."""


@dataclass(frozen=True)
class MaskPlaces:
    """Where the bytes of M masks are.

    Attributes:
        sources: zip files and folders.
        source: (M,) int32 into ``sources``; -1 where there is no such file.
        offset: (M,) int64, the local header's position in the zip; -1 in a folder.
        packed, size: (M,) int64 bytes, compressed and not.
        crc: (M,) uint32.
    """

    sources: tuple[str, ...]
    source: np.ndarray
    offset: np.ndarray
    packed: np.ndarray
    size: np.ndarray
    crc: np.ndarray

    def take(self, rows: np.ndarray) -> MaskPlaces:
        """The places of some masks."""
        return MaskPlaces(self.sources, self.source[rows], self.offset[rows], self.packed[rows],
                          self.size[rows], self.crc[rows])


def find_masks(files: SplitFiles, names: pa.Array, log: ProblemLog) -> MaskPlaces:
    """Look up mask files by name; an extracted file goes before an archive.

    Args:
        files: the split's archives and folders.
        names: M file names, an Arrow string array.
        log: gets the archives that cannot be read and the names that are not safe.
    """
    listings = [_list_folder(folder) for folder in files.mask_folders]
    listings += [_list_archive(path, log) for path in files.archives]
    sources = (*map(str, files.mask_folders), *map(str, files.archives))
    entry_names = pa.chunked_array([listing[0] for listing in listings], pa.large_utf8())
    numbers = np.concatenate([np.zeros((0, 4), np.int64), *(listing[1] for listing in listings)])
    entry_source = np.repeat(np.arange(len(listings)), [len(listing[0]) for listing in listings])
    found = pc.index_in(names, value_set=entry_names).fill_null(-1).to_numpy()
    numbers = np.concatenate((numbers, [[-1, 0, 0, 0]]))[found]
    return MaskPlaces(sources, np.append(entry_source, -1)[found].astype(np.int32),
                      numbers[:, 0], numbers[:, 1], numbers[:, 2], numbers[:, 3].astype(np.uint32))


def _list_folder(folder: Path) -> tuple[pa.Array, np.ndarray]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.endswith('.png')]
    return pa.array(names, pa.large_utf8()), np.tile([-1, 0, 0, 0], (len(names), 1))


def _list_archive(path: Path, log: ProblemLog) -> tuple[pa.Array, np.ndarray]:
    """File names, and offset, packed size, size and checksum of each, (E, 4) int64."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, ValueError,
            UnicodeDecodeError, struct.error) as error:
        log.bad('broken_archive', f'corrupt or truncated zip: {error}', path=path)
        entries = []
    names, numbers = [], []
    for entry in entries:
        if entry.is_dir():
            continue
        if _is_unsafe(entry.orig_filename):
            log.bad('unsafe_archive_name',
                    f'entry {entry.orig_filename!r} leaves the archive\'s folder', path=path)
            continue
        names.append(entry.filename.rpartition('/')[2])
        numbers.append((entry.header_offset, entry.compress_size, entry.file_size, entry.CRC))
    return pa.array(names, pa.large_utf8()), np.array(numbers, np.int64).reshape(-1, 4)


def _is_unsafe(name: str) -> bool:
    parts = name.replace('\\', '/').split('/')
    return '..' in parts or parts[0] == '' or ':' in parts[0] or '\0' in name


class MaskReader:
    """Reads mask files by their places; keeps the last archive open, for places come in runs."""

    def __init__(self, places: MaskPlaces, names: Sequence[str]) -> None:
        self._places = places
        self._names = names
        self._open: tuple[int, object] | None = None

    def __enter__(self) -> MaskReader:
        return self

    def __exit__(self, *_) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def read(self, row: int) -> bytes:
        """The bytes of a mask file; EntryError if they are not there or not whole."""
        places = self._places
        source = int(places.source[row])
        path = places.sources[source]
        try:
            if places.offset[row] < 0:
                return self._read_file(os.path.join(path, self._names[row]))
            return self._read_entry(source, int(places.offset[row]), int(places.packed[row]),
                                    int(places.size[row]), int(places.crc[row]))
        except OSError as error:
            raise EntryError(f'cannot read {path}: {error.strerror}') from None

    def _read_file(self, path: str) -> bytes:
        with open(path, 'rb') as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise EntryError(f'larger than {MAX_FILE_BYTES} bytes')
        return data

    def _read_entry(self, source: int, offset: int, packed: int, size: int, crc: int) -> bytes:
        if max(packed, size) > MAX_FILE_BYTES:
            raise EntryError(f'larger than {MAX_FILE_BYTES} bytes')
        file = self._archive(source)
        file.seek(offset)
        header = file.read(30)
        if len(header) < 30 or header[:4] != b'PK\3\4':
            raise EntryError('damaged zip: no entry where the directory says')
        flags, method = struct.unpack_from('<HH', header, 6)
        if flags & 1:
            raise EntryError('encrypted zip entry')
        _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        body = file.read(name_length + extra_length + packed)[name_length + extra_length:]
        if len(body) < packed:
            raise EntryError('truncated zip')
        data = _unpack(body, method, size)
        if len(data) != size or zlib.crc32(data) != crc:
            raise EntryError('damaged zip: wrong checksum or size')
        return data

    def _archive(self, source: int):
        if self._open is None or self._open[0] != source:
            self.__exit__()
            self._open = (source, open(self._places.sources[source], 'rb'))  # noqa: SIM115
        return self._open[1]


def _unpack(body: bytes, method: int, size: int) -> bytes:
    if method == zipfile.ZIP_STORED:
        return body
    if method != zipfile.ZIP_DEFLATED:
        raise EntryError(f'zip compression method {method}, expected stored or deflated')
    try:
        return zlib_ng.decompressobj(-zlib.MAX_WBITS).decompress(body, size + 1)
    except zlib_ng.error as error:
        raise EntryError(f'damaged zip: {error}') from None
