"""Image sizes from image headers or from a CSV, never by decoding a JPEG.

In: an image file, or a CSV of sizes. Out: width and height as stored, and whether EXIF wants the
image turned or mirrored. A JPEG that a broken download cut short is refused: decoders fill what is
missing with grey, and a model would train on it.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import warnings
import zlib
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from projects.openimages.common.csv_files import read_header
from projects.openimages.common.errors import UserError
from projects.openimages.common.files import open_regular
from projects.openimages.data.official.tables import read_table
from projects.openimages.data.problems import ProblemLog
from projects.openimages.masks import MAX_PIXELS

_FORMATS = ('JPEG', 'PNG', 'GIF', 'WEBP', 'BMP')  # what loaders take under the name of a JPEG
_DAMAGES = (OSError, SyntaxError, ValueError, LookupError, TypeError, EOFError, ZeroDivisionError,
            struct.error, zlib.error)  # how Pillow complains of a damaged file

_START, _END = b'\xff\xd8', b'\xff\xd9'
_MARKER = re.compile(rb'\xff([^\x00\xff\xd0-\xd7])')  # but stuffing, fill bytes and restarts
_SEGMENTS = frozenset((*range(0xC0, 0xD0), *range(0xDA, 0xF0), 0xFE))
"""Markers of what may stand between a JPEG's start and its end; each is followed by its length.
Table B.1 of https://www.w3.org/Graphics/JPEG/itu-t81.pdf"""

_SIZE_COLUMNS = (('ImageID', 'ImageWidth', 'ImageHeight'), ('image_id', 'image_w', 'image_h'))


class ImageError(ValueError):
    """A file that is no whole image; the message says why."""


def read_image_size(path: str | os.PathLike) -> tuple[int, int, int]:
    """Width and height in pixels as stored, and the EXIF orientation: 2 to 8, or 1 for as stored.

    Of a JPEG only the header and the end are read. That finds every file that was cut short, not
    one that was damaged in its middle. Other formats, which are rare, are decoded.

    Raises:
        ImageError: empty, not an image, cut short, or of more than ``MAX_PIXELS``.
        UserError: not a regular file.
        OSError: the file cannot be opened.
    """
    with open_regular(path) as file, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        image = _open(file)
        if image.width * image.height > MAX_PIXELS:
            raise ImageError(f'{image.width}x{image.height} pixels, more than {MAX_PIXELS:,}')
        if image.format in ('JPEG', 'MPO'):  # MPO is a JPEG with further pictures behind it
            if not image.tile or not _reaches_end(file):
                raise ImageError('truncated JPEG')
        else:
            _decode(image)
        return image.width, image.height, _orientation(image)


def _open(file: IO[bytes]) -> ImageFile.ImageFile:
    """Parse the header."""
    start = file.read(2)
    if not start:
        raise ImageError('an image of zero bytes')
    try:
        return Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        raise ImageError('damaged JPEG: no picture in it' if start == _START
                         else 'not an image') from None
    except Image.DecompressionBombError:
        raise ImageError(f'more than {MAX_PIXELS:,} pixels') from None
    except _DAMAGES as error:
        raise ImageError('truncated JPEG' if start == _START
                         else f'damaged image: {error}') from None


def _reaches_end(file: IO[bytes]) -> bool:
    """Whether a JPEG's picture goes on to its end marker.

    Nearly always that marker is the end of the file. Where it is not, there may be something
    behind it (padding, a camera's second picture), so the whole file is walked through, from
    segment to segment, past previews that have ends of their own.
    """
    file.seek(-len(_END), os.SEEK_END)
    if file.read() == _END:
        return True
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position = len(_START)
        while found := _MARKER.search(data, position):
            if found[0] == _END:
                return True
            if found[1][0] not in _SEGMENTS:  # the picture stopped, and something else is here
                return False
            position = found.end() + int.from_bytes(data[found.end():found.end() + 2], 'big')
    return False


def _decode(image: ImageFile.ImageFile) -> None:
    try:
        image.load()
    except _DAMAGES as error:
        raise ImageError(f'damaged {image.format}: {error}') from None


def _orientation(image: ImageFile.ImageFile) -> int:
    try:
        orientation: Any = image.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGES:  # EXIF that cannot be read turns an image in no program
        return 1
    return orientation if orientation in range(1, 9) else 1


def read_sizes_csv(path: str | os.PathLike, log: ProblemLog) -> tuple[pa.Array, np.ndarray]:
    """Image ids and their sizes from a CSV.

    Takes ``ImageID,ImageWidth,ImageHeight`` with any further columns, as in the challenge's sample
    submission, or ``image_id,image_w,image_h``. An image may have several rows that agree.

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
    ids, sizes, lines = (table[id_column].combine_chunks(), table.numbers(*size_columns),
                         table.lines)
    good = (((sizes >= 1) & (sizes < 65536) & (sizes == np.floor(sizes))).all(axis=1)
            & (sizes.prod(axis=1) <= MAX_PIXELS))
    for n in np.flatnonzero(~good):
        log.bad('broken_row', f'image size {sizes[n, 0]:g}x{sizes[n, 1]:g}, expected whole numbers '
                f'from 1 to 65535 and at most {MAX_PIXELS:,} pixels', path=path, row=int(lines[n]))
    ids, sizes, lines = ids.filter(pa.array(good)), sizes[good].astype(np.int32), lines[good]
    known = _without_contradiction(ids, sizes, lines, path, log)
    return ids.filter(pa.array(known)), sizes[known]


def _without_contradiction(ids: pa.Array, sizes: np.ndarray, lines: np.ndarray,
                           path: str | os.PathLike, log: ProblemLog) -> np.ndarray:
    """(R,) bool: the rows of images whose rows all say the same size."""
    codes = ids.dictionary_encode().indices.to_numpy()
    first = np.unique(codes, return_index=True)[1][codes]  # the first row of the same image
    other = np.flatnonzero((sizes != sizes[first]).any(axis=1))
    for n in other:
        (width, height), (first_width, first_height) = sizes[[n, first[n]]].tolist()
        log.bad('broken_row', f'image {ids[n]} has {width}x{height} pixels here and '
                f'{first_width}x{first_height} in row {lines[first[n]]}', path=path,
                row=int(lines[n]))
    return ~np.isin(codes, codes[other])


def look_up_sizes(image_ids: Sequence[str], ids: pa.Array, sizes: np.ndarray) -> np.ndarray:
    """(I, 2) int32 sizes of the given images; zeros where the CSV does not have one."""
    found = pc.index_in(pa.array(image_ids, pa.large_utf8()), value_set=ids).fill_null(-1)
    return np.concatenate((sizes, np.zeros((1, 2), np.int32)))[found.to_numpy()]
