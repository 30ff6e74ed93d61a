"""Mask PNGs to packed bits: the fast way for what Open Images has, a library for the rest.

In: the bytes of a PNG. Out: a :class:`PackedMask`, one bit a pixel, set where the pixel is not
zero. 1-bit and 8-bit gray files, which is what the mask archives hold, are inflated and unfiltered
here row by row, without ever making one byte a pixel out of one bit; everything else that is a PNG
(palettes, colours, interlacing, the rare row filter) goes through Pillow.

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

MAX_PIXELS = 100_000_000
"""Larger images are refused before memory is taken; the largest Open Images originals have 25M."""

_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_GRAY = ('1', 'L', 'I', 'I;16')  # Pillow's modes whose numbers are the brightness
_NONE, _SUB, _UP, _AVERAGE, _PAETH = range(5)


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

    @property
    def row_bytes(self) -> int:
        return (self.width * self.bit_depth + 7) // 8


def read_mask(data: bytes) -> PackedMask:
    """Decode a mask PNG; non-zero is object.

    Raises:
        PngError: not a PNG, damaged, truncated, or larger than ``MAX_PIXELS``.
    """
    header, compressed = _read_chunks(data)
    if header.colour_type == 0 and header.bit_depth in (1, 8) and not header.interlaced:
        filtered = _inflate(compressed, header)
        unfiltered = _unfilter(filtered)
        if unfiltered is not None:
            return _pack(filtered, *unfiltered, header)
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
        if kind == b'IHDR':
            header = _read_header(body)
        elif kind == b'IDAT':
            parts.append(bytes(body))
        elif kind == b'IEND':
            return header, parts[0] if len(parts) == 1 else b''.join(parts)
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


def _inflate(compressed: bytes, header: _Header) -> np.ndarray:
    """(height, 1 + row_bytes) uint8, the filter type in the first column."""
    expected = header.height * (1 + header.row_bytes)
    decompressor = zlib_ng.decompressobj()  # same as zlib, several times as fast
    try:
        raw = decompressor.decompress(compressed, expected + 1)
    except zlib_ng.error as error:
        raise PngError(f'damaged PNG: {error}') from None
    if len(raw) < expected:
        raise PngError('truncated PNG: fewer rows than the header says')
    if len(raw) > expected:
        raise PngError('damaged PNG: more data than the header says')
    return np.frombuffer(raw, np.uint8).reshape(header.height, -1)


def _unfilter(filtered: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Undo the row filters of an image of at most a byte a pixel, only where there are any.

    Args:
        filtered: (H, 1 + B) uint8.

    Returns:
        Which rows were filtered, (K,) int64, and what they hold, (K, B) uint8; None where a row
        uses the averaging filter, which is left to Pillow.
    """
    filters = filtered[:, 0].tolist()
    if _AVERAGE in filters:
        return None
    if max(filters) > _PAETH:
        raise PngError(f'damaged PNG: row filter {max(filters)}')
    places = np.flatnonzero(filtered[:, 0])
    rows = np.empty((len(places), filtered.shape[1] - 1), np.uint8)
    above, above_place = np.zeros(rows.shape[1], np.uint8), -1
    for row, y in zip(rows, places.tolist(), strict=True):
        if above_place != y - 1:
            above = filtered[y - 1, 1:]
        stored = filtered[y, 1:]
        if filters[y] == _UP:
            np.add(stored, above, out=row)
        elif filters[y] == _SUB:
            np.add.accumulate(stored, out=row)
        else:
            _undo_paeth(stored, above, row)
        above, above_place = row, y
    return places, rows


def _undo_paeth(stored: np.ndarray, above: np.ndarray, row: np.ndarray) -> None:
    """Undo a Paeth row into ``row``; all (B,) uint8.

    Where the two pixels above are equal the prediction is the left pixel, so that without a stored
    difference the value only goes on; in a mask there are few other places, and only those are
    computed one by one.
    """
    changes = stored != 0
    changes[0] = True
    changes[1:] |= above[1:] != above[:-1]
    places = np.flatnonzero(changes)
    values = np.empty(len(places), np.uint8)
    left = 0
    above_left = above[places - 1].tolist()  # place 0 has nothing to its left, see below
    above_left[0] = 0
    for n, (difference, b, c) in enumerate(zip(stored[places].tolist(), above[places].tolist(),
                                               above_left, strict=True)):
        predicted = left + b - c
        da, db, dc = abs(predicted - left), abs(predicted - b), abs(predicted - c)
        nearest = left if da <= db and da <= dc else b if db <= dc else c
        left = (difference + nearest) & 0xFF
        values[n] = left
    row[:] = np.repeat(values, np.diff(places, append=len(row)))


def _pack(filtered: np.ndarray, places: np.ndarray, rows: np.ndarray,
          header: _Header) -> PackedMask:
    """Join the rows that had no filter with those it was taken off."""
    if header.bit_depth == 8:
        packed = np.packbits(filtered[:, 1:], axis=1)
        packed[places] = np.packbits(rows, axis=1)
    else:
        packed = filtered[:, 1:].copy()
        packed[places] = rows
        packed[:, -1] &= (0xFF << (-header.width % 8)) & 0xFF  # a PNG may hold anything there
    return PackedMask(packed, header.width)


def _read_with_pillow(data: bytes) -> PackedMask:
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise PngError('Pillow is set to accept truncated images')
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=['PNG']) as image:
            warnings.simplefilter('ignore')  # its own size limits; ours is checked above
            pixels = np.asarray(image if image.mode in _GRAY else image.convert('RGB'))
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        raise PngError(f'damaged PNG: {error}') from None
    return PackedMask.from_pixels(pixels if pixels.ndim == 2 else pixels[..., :3].any(axis=2))
