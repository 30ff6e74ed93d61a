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
from itertools import pairwise

import numpy as np
from PIL import Image, ImageFile
from zlib_ng import zlib_ng

from projects.openimages.masks import MAX_PIXELS

_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_GRAY = ('1', 'L', 'I', 'I;16')  # Pillow's modes whose numbers are the brightness
_NONE, _SUB, _UP, _AVERAGE, _PAETH = range(5)
_BLOCK_ROWS = 32
_MANY_CHANGES = 20_000  # no outline has so many; Pillow is faster then
_PIXELS_A_CHANGE = 100  # numpy adds so many pixels while Python handles one change


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
        mask = _unpack(_inflate(compressed, header), header)
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


def _unpack(filtered: np.ndarray, header: _Header) -> PackedMask | None:
    """(H, 1 + B) uint8 to packed rows; None where the file is left to Pillow.

    Only the part of the image that can hold anything is looked at: the rows from the first to the
    last with a byte set (the others are zeros under no filter), and in them the columns with a
    byte set and one more. If that one stays zero, so does all to its right.
    """
    packed = np.zeros((header.height, (header.width + 7) // 8), np.uint8)
    if filtered[:, 0].max() > _PAETH:
        raise PngError(f'damaged PNG: row filter {filtered[:, 0].max()}')
    rows = _used_rows(filtered)
    filters, stored = filtered[rows, 0], filtered[rows, 1:]
    used = np.flatnonzero(np.bitwise_or.reduce(stored, axis=0))
    if not len(used):
        return PackedMask(packed, header.width)
    pixels_a_byte = 8 // header.bit_depth
    start = int(used[0]) * pixels_a_byte // 8 * 8 // pixels_a_byte
    stop = min(int(used[-1]) + 2, header.row_bytes)
    values = _unfilter(filters, stored[:, start:stop])
    if values is not None and stop < header.row_bytes and values[:, -1].any():
        start = 0
        values = _unfilter(filters, stored)
    if values is None:
        return None
    if header.bit_depth == 8:
        values = np.packbits(values, axis=1)
        start //= 8
    packed[rows, start:start + values.shape[1]] = values
    packed[:, -1] &= (0xFF << (-header.width % 8)) & 0xFF  # a file may hold anything there
    return PackedMask(packed, header.width)


def _used_rows(filtered: np.ndarray) -> slice:
    """Rows from the first to the last with a byte set, perhaps a few more; eight bytes a look."""
    flat = filtered.reshape(-1)
    end = flat.size // 8 * 8
    used = flat[:end].view(np.uint64) != 0
    if flat[end:].any() or not used.any():
        return slice(0, len(filtered))
    last = 8 * (len(used) - int(used[::-1].argmax())) - 1
    return slice(8 * int(used.argmax()) // filtered.shape[1], last // filtered.shape[1] + 1)


def _unfilter(filters: np.ndarray, stored: np.ndarray) -> np.ndarray | None:
    """Undo the row filters of an image of at most a byte a pixel.

    A row of differences to the row above is its base, the last row that is none, plus all
    differences since. Those sums are the running sum of all rows, less what it was at the base.
    Bytes wrap around, as the format wants.

    Args:
        filters: (H,) uint8, the filter of each row; above the first row everything is zero.
        stored: (H, B) uint8.

    Returns:
        (H, B) uint8, or None where a row uses the averaging filter or is too crowded.
    """
    if not filters.any():
        return stored
    paeth_rows = filters == _PAETH
    if (filters == _AVERAGE).any() or np.count_nonzero(stored[paeth_rows]) > _MANY_CHANGES:
        return None
    is_base = filters != _UP
    is_base[0] = True
    bases = np.flatnonzero(is_base)
    base_of = np.cumsum(is_base) - 1
    totals = _running_sum(stored)
    values = stored[bases]
    left = np.flatnonzero(filters[bases] == _SUB)
    values[left] = _undo_sub(values[left])
    values -= totals[bases]
    for n in np.flatnonzero(paeth_rows[bases]).tolist():
        y = int(bases[n])
        above = totals[y - 1] + values[n - 1] if y else np.zeros_like(stored[0])
        np.subtract(_undo_paeth(stored[y], above), totals[y], out=values[n])
    totals += values[base_of]
    return totals


def _running_sum(rows: np.ndarray) -> np.ndarray:
    """(H, B) uint8, the sum of all rows up to each; by blocks, so that numpy adds long runs."""
    height, width = rows.shape
    count = -(-height // _BLOCK_ROWS)
    sums = np.empty((count * _BLOCK_ROWS, width), np.uint8)
    sums[:height] = rows
    sums[height:] = 0
    blocks = sums.reshape(count, _BLOCK_ROWS, width)
    columns = blocks.transpose(1, 0, 2)
    for above, row in pairwise(columns):
        np.add(row, above, out=row)
    for above, block in pairwise(blocks):
        np.add(block, above[-1], out=block)
    return sums[:height]


def _undo_sub(rows: np.ndarray) -> np.ndarray:
    """(K, B) uint8 running sums along each row; the rows of a mask change in a few places only."""
    flat = rows.reshape(-1)
    places = np.flatnonzero(flat)
    if _PIXELS_A_CHANGE * len(places) > rows.size:
        return np.add.accumulate(rows, axis=1)
    sums = np.zeros_like(flat)
    value = row_end = 0
    ends = [*places[1:].tolist(), flat.size]
    for place, difference, end in zip(places.tolist(), flat[places].tolist(), ends, strict=False):
        if place >= row_end:
            value = 0
            row_end = (place // rows.shape[1] + 1) * rows.shape[1]
        value = (value + difference) & 0xFF
        if value:
            sums[place:min(end, row_end)] = value
    return sums.reshape(rows.shape)


def _undo_paeth(stored: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Undo a Paeth row; all (B,) uint8.

    Where the two pixels above are equal the prediction is the left pixel, so that without a stored
    difference the value only goes on; in a mask there are few other places, and only those are
    computed one by one.
    """
    changes = stored | above
    changes[1:] = stored[1:] | (above[1:] ^ above[:-1])
    places = np.flatnonzero(changes).tolist()
    row = np.zeros(len(stored), np.uint8)
    differences, upper = stored.tobytes(), above.tobytes()
    left = 0
    for place, end in zip(places, [*places[1:], len(row)], strict=False):
        b = upper[place]
        c = upper[place - 1] if place else 0
        predicted = left + b - c
        da, db, dc = abs(predicted - left), abs(predicted - b), abs(predicted - c)
        nearest = left if da <= db and da <= dc else b if db <= dc else c
        left = (differences[place] + nearest) & 0xFF
        if left:
            row[place:end] = left
    return row


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
