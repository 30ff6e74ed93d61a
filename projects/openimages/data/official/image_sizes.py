"""Image sizes from JPEG headers or from a CSV, never by decoding.

A JPEG's size is in its frame header, a few hundred bytes from its start unless a camera put a
preview before it. Format: https://www.w3.org/Graphics/JPEG/itu-t81.pdf, section B.2.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from projects.openimages.common.csv_files import read_header
from projects.openimages.common.errors import UserError
from projects.openimages.data.official.tables import read_table
from projects.openimages.data.problems import ProblemLog

# All frame headers SOF0..SOF15; C4, C8 and CC in their midst are tables, not frames.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_BODY = frozenset((0x01, *range(0xD0, 0xD8)))
_START_BYTES = 4096
_SIZE_COLUMNS = (('ImageID', 'ImageWidth', 'ImageHeight'), ('image_id', 'image_w', 'image_h'))


class ImageError(ValueError):
    """A file whose size cannot be read; the message says why."""


def read_image_size(path: str | os.PathLike) -> tuple[int, int, bool]:
    """Width and height in pixels as stored, and whether EXIF says to rotate by a quarter turn.

    Raises:
        ImageError: empty, not an image, or cut before its frame header.
        OSError: the file cannot be opened.
    """
    with open(path, 'rb', buffering=_START_BYTES) as file:
        start = file.read(2)
        if not start:
            raise ImageError('an image of zero bytes')
        if start != b'\xff\xd8':
            return _read_other_size(file)
        return _read_jpeg_size(file)


def _read_jpeg_size(file: BinaryIO) -> tuple[int, int, bool]:
    rotated = False
    while True:
        marker = _next_marker(file)
        if marker in _WITHOUT_BODY:
            continue
        if marker in (0xD9, 0xDA):
            raise ImageError('damaged JPEG: no frame header before the picture')
        length = struct.unpack('>H', _exactly(file, 2))[0]
        if length < 2:
            raise ImageError('damaged JPEG: segment of impossible length')
        if marker in _FRAMES:
            _, height, width = struct.unpack('>BHH', _exactly(file, 5))
            if not width or not height:
                raise ImageError(f'damaged JPEG: {width}x{height} pixels')
            return width, height, rotated
        if marker == 0xE1:
            rotated = _is_rotated(_exactly(file, length - 2)) or rotated
        else:
            file.seek(length - 2, os.SEEK_CUR)


def _next_marker(file: BinaryIO) -> int:
    if _exactly(file, 1) != b'\xff':
        raise ImageError('damaged JPEG: no marker where one must be')
    marker = 0xFF
    while marker == 0xFF:  # fill bytes
        marker = _exactly(file, 1)[0]
    return marker


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise ImageError('truncated JPEG')
    return data


def _is_rotated(segment: bytes) -> bool:
    """Whether an EXIF segment asks for a quarter turn (orientation 5 to 8)."""
    if segment[:6] != b'Exif\0\0' or len(segment) < 16:
        return False
    tiff = segment[6:]
    order = {b'II': '<', b'MM': '>'}.get(tiff[:2])
    if order is None:
        return False
    (directory,) = struct.unpack_from(order + 'I', tiff, 4)
    if directory + 2 > len(tiff):
        return False
    (count,) = struct.unpack_from(order + 'H', tiff, directory)
    for n in range(count):
        entry = directory + 2 + 12 * n
        if entry + 12 > len(tiff):
            return False
        tag, _, _, value = struct.unpack_from(order + 'HHIH', tiff, entry)
        if tag == 0x0112:
            return 5 <= value <= 8
    return False


def _read_other_size(file: BinaryIO) -> tuple[int, int, bool]:
    """Some files named .jpg are PNGs or GIFs, which image readers open all the same."""
    file.seek(0)
    try:
        with Image.open(file) as image:
            return (*image.size, False)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise ImageError('not an image') from None


def read_sizes_csv(path: str | os.PathLike, log: ProblemLog) -> tuple[pa.Array, np.ndarray]:
    """Image ids and their sizes from a CSV.

    Takes ``ImageID,ImageWidth,ImageHeight`` with any further columns, as in the challenge's sample
    submission, or ``image_id,image_w,image_h``.

    Returns:
        R ids, an Arrow string array, and (R, 2) int32 width, height.
    """
    header = read_header(path)
    columns = next((names for names in _SIZE_COLUMNS if set(names) <= set(header)), None)
    if columns is None:
        raise UserError(f'no columns {",".join(_SIZE_COLUMNS[0])} in the header '
                        f'{",".join(header)[:200]!r}', path=path, row=1)
    id_column, *size_columns = columns
    table = read_table(path, {id_column: 'text', **dict.fromkeys(size_columns, 'number')}, log)
    sizes = table.numbers(*size_columns)
    good = ((sizes >= 1) & (sizes < 65536) & (sizes == np.floor(sizes))).all(axis=1)
    for n in np.flatnonzero(~good):
        log.bad('broken_row', f'image size {sizes[n, 0]:g}x{sizes[n, 1]:g}, expected whole numbers '
                'from 1 to 65535', path=table.path, row=int(table.lines[n]))
    return table[id_column].filter(pa.array(good)), sizes[good].astype(np.int32)


def look_up_sizes(image_ids: list[str], ids: pa.Array, sizes: np.ndarray) -> np.ndarray:
    """(I, 2) int32 sizes of the given images; zeros where the CSV does not have one."""
    found = pc.index_in(pa.array(image_ids, pa.large_utf8()), value_set=ids).fill_null(-1)
    return np.concatenate((sizes, np.zeros((1, 2), np.int32)))[found.to_numpy()]
