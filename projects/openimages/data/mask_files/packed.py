"""Packed masks to run lengths at the image's size, by their edges instead of their pixels.

A mask's run lengths are given by the places where, going down a column, it begins and ends. In
packed rows those are the bits of ``row XOR row above``: a few hundred of a million pixels. Scaling
to the image's size moves the edges, so the large image never exists.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from projects.openimages.data.mask_files.png import PackedMask
from projects.openimages.masks import rle_from_edges


@dataclass(frozen=True)
class EncodedMask:
    """A mask as the index stores it.

    Attributes:
        counts: compressed RLE counts at full image size; empty for a mask without pixels.
        area: pixels.
        box: x, y, w, h in pixels.
    """

    counts: bytes
    area: int
    box: tuple[int, int, int, int]


EMPTY = EncodedMask(b'', 0, (0, 0, 0, 0))


def encode_packed(mask: PackedMask, height: int, width: int) -> EncodedMask:
    """Run lengths, area and box of a mask scaled to an image.

    Where the sizes differ the mask is scaled to the nearest neighbour by pixel centres: pixel
    ``i`` of ``n`` takes pixel ``floor((i + 0.5) * m / n)`` of ``m``, computed in whole numbers.
    This is Pillow's ``NEAREST`` (which decides exact ties by its rounding errors); OpenCV's
    ``INTER_NEAREST`` takes corners and moves the mask by half a pixel.

    Args:
        mask: any size.
        height, width: the image's size.
    """
    columns, rows = _edges(mask)
    if (mask.height, mask.width) != (height, width):
        columns, rows = _scale(columns, rows, (mask.height, mask.width), (height, width))
    if not len(columns):
        return EMPTY
    edges = columns * height + rows
    starts, ends = edges[0::2], edges[1::2]
    left, right = int(columns[0]), int(columns[-1])
    top, bottom = int(rows[0::2].min()), int(rows[1::2].max())
    counts = rle_from_edges(edges, height, width)['counts']
    return EncodedMask(counts, int((ends - starts).sum()),
                       (left, top, right - left + 1, bottom - top))


def _edges(mask: PackedMask) -> tuple[np.ndarray, np.ndarray]:
    """Column and row of every vertical edge, (2K,) int64 each, by column, then by row.

    Begins and ends alternate; an end is the row after the last, at most the height.
    """
    occupied = np.flatnonzero(mask.rows.any(axis=1))
    if not len(occupied):
        return occupied, occupied
    top, bottom = int(occupied[0]), int(occupied[-1]) + 1
    rows = mask.rows[top:bottom]
    changes = np.empty((bottom - top + 1, rows.shape[1]), np.uint8)
    changes[0] = rows[0]
    np.bitwise_xor(rows[1:], rows[:-1], out=changes[1:-1])
    changes[-1] = rows[-1]
    places = np.flatnonzero(changes)
    bits = np.flatnonzero(np.unpackbits(changes.reshape(-1)[places]))
    row, byte = np.divmod(places, rows.shape[1])
    # A column's edges in one number each, so that one sort puts all in order.
    keys = ((byte << 3) * (mask.height + 1) + row + top)[bits >> 3]
    keys += (bits & 7) * (mask.height + 1)
    keys.sort()
    return np.divmod(keys, mask.height + 1)


def _scale(columns: np.ndarray, rows: np.ndarray, old: tuple[int, int],
           new: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The edges of the nearest-neighbour scaled image; sizes are (height, width)."""
    row_sources = nearest_sources(new[0], old[0])
    rows = np.searchsorted(row_sources, rows)
    # An object thinner than a new pixel can fall between two centres: begin and end meet.
    seen = np.repeat(rows[0::2] < rows[1::2], 2)
    columns, rows = columns[seen], rows[seen]
    first = np.searchsorted(columns, np.arange(old[1] + 1))
    column_sources = nearest_sources(new[1], old[1])
    counts = np.diff(first)[column_sources]
    new_columns = np.repeat(np.arange(new[1]), counts)
    within = np.arange(len(new_columns)) - np.repeat(np.cumsum(counts) - counts, counts)
    return new_columns, rows[first[column_sources][new_columns] + within]


def nearest_sources(new: int, old: int) -> np.ndarray:
    """(new,) int64: the old pixel under each new pixel's centre."""
    return (2 * np.arange(new, dtype=np.int64) + 1) * old // (2 * new)
