"""Mask PNGs to packed bits: a fast way for what the archives hold, a library for the rest.

In: the bytes of a PNG. Out: a :class:`PackedMask`, one bit a pixel, set where the pixel is not
zero. Every file's chunks are checked here; then 1-bit files are unpacked by :func:`_read_bilevel`,
and all others (gray levels, palettes, colours, interlaced files) by Pillow.

Nothing in the file is believed before it is checked: size before memory is taken, checksum of each
chunk, length of the inflated data. Rules: https://www.w3.org/TR/png-3/ (sections 5, 7 and 9).
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile
from zlib_ng import zlib_ng

from projects.openimages.masks import MAX_PIXELS

_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_GRAY = ('1', 'L', 'I', 'I;16')  # Pillow's modes whose numbers are the brightness
_NONE, _SUB, _UP, _AVERAGE, _PAETH = range(5)
_MANY_BYTES = 4096  # of rows that are undone byte by byte; Pillow is faster then
_STRIP_PIXELS = 1 << 20


class PngError(ValueError):
    """Bytes that are not a PNG we can read; the message says why."""


@dataclass(frozen=True)
class PackedMask:
    """A binary image, eight pixels a byte.

    Attributes:
        rows: (height, ceil(width / 8)) uint8, the leftmost pixel in the highest bit; bits beyond
            the width are zero.
        width: pixels.
    """

    rows: np.ndarray
    width: int

    @property
    def height(self) -> int:
        return len(self.rows)

    @classmethod
    def from_pixels(cls, pixels: np.ndarray) -> PackedMask:
        """From (H, W) numbers or bool; non-zero is object."""
        return cls(np.packbits(pixels != 0, axis=1), pixels.shape[1])

    def to_pixels(self) -> np.ndarray:
        """(H, W) bool."""
        return np.unpackbits(self.rows, axis=1, count=self.width).astype(bool)


@dataclass(frozen=True)
class _Header:
    width: int
    height: int
    bit_depth: int
    colour_type: int
    interlaced: bool


def read_mask(data: bytes) -> PackedMask:
    """Decode a mask PNG; non-zero is object.

    Raises:
        PngError: not a PNG, damaged, truncated, or larger than ``MAX_PIXELS``.
    """
    header, compressed = _read_chunks(data)
    if (header.colour_type, header.bit_depth, header.interlaced) == (0, 1, False):
        mask = _read_bilevel(header, compressed)
        if mask is not None:
            return mask
    return _read_with_pillow(data)


def _read_chunks(data: bytes) -> tuple[_Header, bytes]:
    """The header and the joined image data, checksums and order checked."""
    if data[:8] != _SIGNATURE:
        raise PngError('not a PNG: empty file' if not data else 'not a PNG: wrong first bytes')
    header = None
    parts: list[bytes] = []
    view = memoryview(data)
    position = 8
    while True:
        if position + 12 > len(data):
            raise PngError('truncated PNG')
        length, kind = struct.unpack_from('>I4s', data, position)
        end = position + 12 + length
        if end > len(data):
            raise PngError('truncated PNG')
        body = view[position + 8:end - 4]
        if zlib.crc32(view[position + 4:end - 4]) != struct.unpack_from('>I', data, end - 4)[0]:
            raise PngError(f'damaged PNG: wrong checksum of chunk {kind.decode("latin-1")}')
        if (kind == b'IHDR') != (header is None):
            raise PngError('damaged PNG: chunks out of order')
        if header is None:
            header = _read_header(body)
        elif kind == b'IDAT':
            parts.append(bytes(body))
        elif kind == b'IEND':
            return header, b''.join(parts)
        position = end


def _read_header(body: memoryview) -> _Header:
    if len(body) != 13:
        raise PngError('damaged PNG: header of a wrong length')
    width, height, depth, colour_type, _, _, interlace = struct.unpack('>IIBBBBB', body)
    if width == 0 or height == 0:
        raise PngError('damaged PNG: no pixels')
    if width * height > MAX_PIXELS:
        raise PngError(f'PNG claims {width}x{height} pixels, more than {MAX_PIXELS:,}')
    return _Header(width, height, depth, colour_type, interlace != 0)


def _read_bilevel(header: _Header, compressed: bytes) -> PackedMask | None:
    """A 1-bit gray image: its rows are packed bits already, but for the filters.

    It takes a third of the time of ``cv2.imdecode`` and ``np.packbits``: 0.26 against 0.75 ms of
    CPU for a mask of 1024x768 (``python benchmarks/prepare_speed.py --masks 300 --rounds 5``). The
    like of it for 8-bit files was less than twice as fast, so those are left to Pillow.

    Returns:
        None where a row has a filter that is rare at this depth: the file is left to Pillow.
    """
    expected = header.height * (1 + (header.width + 7) // 8)
    try:
        raw = zlib_ng.decompressobj().decompress(compressed, expected + 1)
    except zlib_ng.error as error:  # type: ignore[misc]  # the package has no types
        raise PngError(f'damaged PNG: {error}') from None
    if len(raw) < expected:
        raise PngError('truncated PNG: fewer rows than the header says')
    if len(raw) > expected:
        raise PngError('damaged PNG: more data than the header says')
    lines = np.frombuffer(raw, np.uint8).reshape(header.height, -1)
    filters, rows = lines[:, 0], lines[:, 1:].copy()
    if filters.max() > _PAETH:
        raise PngError(f'damaged PNG: row filter {filters.max()}')
    if (filters == _AVERAGE).any() or rows[filters == _PAETH].size > _MANY_BYTES:
        return None
    rows = _unfilter(filters, rows)
    rows[:, -1] &= (0xFF << (-header.width % 8)) & 0xFF  # a file may hold anything there
    return PackedMask(rows, header.width)


def _unfilter(filters: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Undo the row filters of an image of at most a byte a pixel; bytes wrap around.

    A row of differences to the row above is its base, the last row that is none, plus all
    differences since. Those sums are the running sum of all rows, less what it was at the base.

    Args:
        filters: (H,) uint8, the filter of each row; above the first row everything is zero.
        stored: (H, B) uint8.
    """
    if not filters.any():
        return stored
    is_base = filters != _UP
    is_base[0] = True
    bases = np.flatnonzero(is_base)
    totals = _running_sum(stored)
    values = stored[bases]
    left = filters[bases] == _SUB
    values[left] = np.add.accumulate(values[left], axis=1, dtype=np.uint8)
    values -= totals[bases]
    for n in np.flatnonzero(filters[bases] == _PAETH).tolist():
        y = int(bases[n])
        above = totals[y - 1] + values[n - 1] if y else np.zeros_like(stored[0])
        values[n] = _undo_paeth(stored[y], above) - totals[y]
    totals += values[np.cumsum(is_base) - 1]
    return totals


def _running_sum(rows: np.ndarray) -> np.ndarray:
    """(H, B) uint8, the sum of all rows up to each: first of two rows, then of four, eight ..."""
    sums, step = rows.copy(), 1
    while step < len(sums):
        sums[step:] = sums[step:] + sums[:-step]
        step *= 2
    return sums


def _undo_paeth(stored: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Undo a Paeth row, byte by byte; all (B,) uint8."""
    row = bytearray()
    left = corner = 0
    for difference, up in zip(stored.tolist(), above.tolist(), strict=True):
        guess = left + up - corner
        distances = abs(guess - left), abs(guess - up), abs(guess - corner)
        nearest = (left, up, corner)[distances.index(min(distances))]  # the first of equals
        left, corner = (difference + nearest) & 0xFF, up
        row.append(left)
    return np.frombuffer(row, np.uint8)


def _read_with_pillow(data: bytes) -> PackedMask:
    """Any PNG; only Pillow's own image, of at most four bytes a pixel, is ever whole in memory."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise PngError('Pillow is set to accept truncated images')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # Pillow warns of large images; ours is measured
            with Image.open(io.BytesIO(data), formats=['PNG']) as image:
                width, height = image.size
                step = max(1, _STRIP_PIXELS // width)
                rows = [_pack(image.crop((0, top, width, min(top + step, height))))
                        for top in range(0, height, step)]
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        raise PngError(f'damaged PNG: {error}') from None
    return PackedMask(np.concatenate(rows), width)


def _pack(strip: Image.Image) -> np.ndarray:
    """Some rows of an image as those of a :class:`PackedMask`."""
    if strip.mode in _GRAY:
        pixels = np.asarray(strip)
    else:
        red, green, blue = np.moveaxis(np.asarray(strip.convert('RGB')), 2, 0)
        pixels = red | green | blue
    return np.packbits(pixels != 0, axis=1)
