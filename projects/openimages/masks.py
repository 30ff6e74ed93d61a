"""Masks as run lengths and as submission text; no pixels unless somebody asks for them.

An ``Rle`` is the COCO dict ``{'size': [height, width], 'counts': bytes}`` in the compressed form of
pycocotools: run lengths of the column-major image, zeros first, written as deltas to the run two
before in groups of five bits (``rleToString`` in pycocotools' ``maskApi.c``). The text of a
submission is ``base64(zlib(counts))``, as the challenge's evaluation page asks:
https://www.kaggle.com/competitions/open-images-2019-instance-segmentation/overview/evaluation

Example:
    >>> rle = rle_from_mask(np.array([[0, 1],
    ...                               [1, 1]]))
    >>> decompress_counts(rle['counts']).tolist()  # down the columns: one zero, three ones
    [1, 3]
    >>> text = encode_text(rle['counts'])
    >>> decode_text(text, height=2, width=2) == rle
    True
"""

from __future__ import annotations

import base64
import binascii
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypedDict, TypeVar

import numpy as np
from pycocotools import mask as coco_mask


class Rle(TypedDict):
    """COCO compressed run lengths of one full image."""

    size: list[int]
    counts: bytes


class MaskError(ValueError):
    """Text or bytes that are not a mask of the size they should have."""


MAX_PIXELS = 100_000_000
"""Images and masks that claim more are refused before memory is taken; the largest Open Images
originals have 25M."""

BATCH_BYTES = 1 << 17
"""Of run lengths that are worked on at once: enough to pay for numpy's calls, little enough to stay
in a processor's cache, also if it is twenty times as much when looked into."""

# Five bits a group, the group's fifth as sign, so n groups hold [-2**(5n-1), 2**(5n-1)).
_GROUP_LIMITS = 1 << (5 * np.arange(1, 8, dtype=np.int64) - 1)


def compress_counts(runs: np.ndarray) -> bytes:
    """Run lengths to COCO's compressed counts.

    Args:
        runs: (R,) int, alternating lengths of zeros and ones, zeros first.
    """
    return compress_many(np.asarray(runs, np.int64), np.array([0, len(runs)]))[0]


def compress_many(runs: np.ndarray, offsets: np.ndarray) -> list[bytes]:
    """Many masks' run lengths to COCO's compressed counts; undoes :func:`decompress_many`.

    Args:
        runs: (R,) int64, all masks' runs one after the other.
        offsets: (N + 1,) int, mask ``n`` has ``runs[offsets[n]:offsets[n + 1]]``.
    """
    within = np.arange(len(runs)) - np.repeat(offsets[:-1], np.diff(offsets))
    later = np.flatnonzero(within > 2)
    deltas = runs.copy()
    deltas[later] -= runs[later - 2]
    magnitude = np.where(deltas < 0, ~deltas, deltas)
    groups = np.searchsorted(_GROUP_LIMITS, magnitude, side='right') + 1
    digit = np.arange(groups.max(initial=1))
    chars = (deltas[:, None] >> (5 * digit)) & 0x1F
    chars |= np.where(digit < groups[:, None] - 1, 0x20, 0)
    data = (chars + 48)[digit < groups[:, None]].astype(np.uint8).tobytes()
    ends = np.concatenate(([0], np.cumsum(groups)))[offsets].tolist()
    return [data[start:end] for start, end in pairwise(ends)]


def decompress_counts(counts: bytes) -> np.ndarray:
    """COCO's compressed counts to run lengths, (R,) int32; MaskError if they are malformed."""
    runs, _ = decompress_many([counts])
    return runs


def decompress_many(counts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The run lengths of many masks at once.

    Args:
        counts: N compressed masks.

    Returns:
        ``runs`` (R,) int32, all masks' runs one after the other, and ``offsets`` (N + 1,) int64:
        mask ``n`` has ``runs[offsets[n]:offsets[n + 1]]``.

    Raises:
        MaskError: an empty string, a character outside the code, or a group without end.
    """
    chars = np.frombuffer(b''.join(counts), np.uint8) - np.uint8(48)
    if len(chars) and chars.max() > 0x3F:
        raise MaskError('run lengths with a character outside the code')
    lengths = np.fromiter(map(len, counts), np.int64, len(counts))
    ends = np.cumsum(lengths)
    is_last = chars < 0x20
    if (lengths == 0).any() or not is_last[ends - 1].all():
        raise MaskError('run lengths that stop in the middle')
    going_on = np.flatnonzero(~is_last)
    deltas = (chars[is_last] ^ np.uint8(0x10)).astype(np.int32)
    deltas -= 0x10  # five bits with sign
    _add_lower_groups(deltas, chars, going_on)
    offsets = np.concatenate(([0], ends - np.searchsorted(going_on, ends)))
    return _undo_deltas(deltas, offsets), offsets


def _add_lower_groups(values: np.ndarray, chars: np.ndarray, going_on: np.ndarray) -> None:
    """Put the lower groups of five bits below the numbers' topmost ones, in place.

    Args:
        values: (R,) int32, the topmost group of every number, with its sign.
        chars: (B,) uint8, all groups.
        going_on: (K,) int64, which of them are not topmost; few, for most numbers are small.
    """
    if not len(going_on):
        return
    owner = going_on - np.arange(len(going_on))  # as many topmost groups come before
    first = np.flatnonzero(np.append(True, owner[1:] != owner[:-1]))
    sizes = np.diff(first, append=len(owner))
    if sizes.max() > 6:
        raise MaskError('a run length of more than 32 bits')
    digit = np.arange(len(owner)) - np.repeat(first, sizes)
    lower = np.add.reduceat((chars[going_on] & 0x1F).astype(np.int64) << (5 * digit), first)
    whole = (values[owner[first]].astype(np.int64) << (5 * sizes)) + lower
    if np.abs(whole).max() >= 1 << 32:
        raise MaskError('a run length of more than 32 bits')
    values[owner[first]] = whole.astype(np.int32)  # may wrap around, and back in the sums


def _undo_deltas(deltas: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Runs from deltas: inside each mask, run i > 2 is stored as its difference to run i - 2.

    So the runs are sums along chains of every second delta; each mask starts three of them, at its
    first, second and third run.
    """
    runs = np.empty_like(deltas)
    starts = np.concatenate([first[first < offsets[1:]]
                             for first in (offsets[:-1] + place for place in range(3))])
    for parity in range(2):
        chain = deltas[parity::2].copy()  # numpy sums five times as fast without gaps
        total = np.cumsum(chain, dtype=chain.dtype)  # may wrap around, and back below
        begin = np.sort(starts[starts % 2 == parity]) // 2
        base = total[begin] - chain[begin]
        np.subtract(total, np.repeat(base, np.diff(begin, append=len(chain))),
                    out=runs[parity::2])
    return runs


def encode_text(counts: bytes) -> str:
    """Compressed counts to a submission's mask text."""
    return base64.b64encode(zlib.compress(counts)).decode('ascii')


def decode_text(text: str, height: int, width: int) -> Rle:
    """A submission's mask text to an Rle.

    Raises:
        MaskError: not base64, not zlib, malformed run lengths, or a mask of another size.
    """
    rle: Rle = {'size': [height, width], 'counts': inflate_text(text, height, width)}
    check_sizes([rle])
    return rle


def inflate_text(text: str | bytes, height: int, width: int) -> bytes:
    """The compressed counts inside a mask text, not looked into.

    No more is inflated than the run lengths of such an image can need, so a text of a megabyte
    cannot become gigabytes.

    Args:
        text: ``base64(zlib(counts))``.
        height, width: of the mask's image.

    Raises:
        MaskError: not base64, not zlib or cut, longer than any mask of that size, or an image of
            more than ``MAX_PIXELS``.
    """
    limit = longest_counts(height, width)
    try:
        packed = _from_base64(text)
    except (binascii.Error, ValueError) as error:
        raise MaskError(f'mask is not base64 ({error}): {_shorten(text)}') from None
    inflater = zlib.decompressobj()
    try:
        counts = inflater.decompress(packed, limit + 1)
    except zlib.error as error:
        raise MaskError(f'mask is not zlib data ({error}): {_shorten(text)}') from None
    if len(counts) > limit:
        raise MaskError(f'mask inflates to more than {limit} bytes, the most that an image of '
                        f'{width}x{height} can need: {_shorten(text)}')
    if not inflater.eof or inflater.unused_data:
        kind = 'has more behind its zlib data' if inflater.eof else 'is zlib data cut short'
        raise MaskError(f'mask {kind}: {_shorten(text)}')
    return counts


if sys.version_info >= (3, 11):
    def _from_base64(text: str | bytes) -> bytes:
        return binascii.a2b_base64(text, strict_mode=True)
else:
    def _from_base64(text: str | bytes) -> bytes:
        return base64.b64decode(text, validate=True)


def longest_counts(height: int, width: int) -> int:
    """The most bytes that the compressed counts of an image of that size can have.

    Runs of one pixel take a byte each, and longer ones fewer bytes than pixels; twice that leaves
    room for the empty runs that some programs write.

    Raises:
        MaskError: a size below 1, or more than ``MAX_PIXELS``.
    """
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise MaskError(f'an image of {width}x{height}, expected 1 to {MAX_PIXELS} pixels')
    return 2 * height * width + 64


Mask = TypeVar('Mask', bound=Rle | None)


def batches(rles: Iterable[Mask]) -> Iterator[list[Mask]]:
    """Consecutive masks, as many at a time as may be worked on together.

    Looking into run lengths takes some twenty times their bytes, so that masks each within its
    limit may be too many together. A batch has more than ``BATCH_BYTES`` only by its last mask.
    """
    batch: list[Mask] = []
    size = 0
    for rle in rles:
        batch.append(rle)
        size += 0 if rle is None else len(rle['counts'])
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _shorten(text: str | bytes) -> str:
    shown = text if isinstance(text, str) else text.decode('utf-8', 'replace')
    return repr(shown if len(shown) <= 24 else shown[:20] + '...')


def check_sizes(rles: Iterable[Rle]) -> None:
    """Raise a MaskError unless each mask's runs are legal and fill its image exactly."""
    for batch in batches(rles):
        _check_batch(batch)


def _check_batch(rles: list[Rle]) -> None:
    runs, offsets = decompress_many([rle['counts'] for rle in rles])
    if (runs < 0).any():
        raise MaskError('a negative run length')
    pixels = np.add.reduceat(runs, offsets[:-1])
    expected = np.array([rle['size'][0] * rle['size'][1] for rle in rles], np.int64)
    for n in np.flatnonzero(pixels != expected)[:1]:
        height, width = rles[n]['size']
        raise MaskError(f'mask of {pixels[n]} pixels in an image of {width}x{height} = '
                        f'{expected[n]} pixels')


def rle_from_crop(crop: np.ndarray, x0: int, y0: int, height: int, width: int) -> Rle:
    """Full-image run lengths of a mask that lies inside a box, without the full image.

    The same bytes as ``pycocotools.mask.encode`` of the crop pasted into zeros.

    Args:
        crop: (bh, bw) bool or 0/1, the pixels of the box.
        x0, y0: the box's left and upper pixel in the image; the crop must fit.
        height, width: the image's size.
    """
    box_height, box_width = crop.shape
    # One zero below each column keeps the columns apart in a single pass over the flat crop.
    columns = np.zeros((box_width, box_height + 1), bool)
    columns[:, :box_height] = crop.T
    flat = columns.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if flat.size and flat[0]:
        edges = np.concatenate(([0], edges))
    column, offset = np.divmod(edges, box_height + 1)
    edges = (column + x0) * height + offset + y0
    return rle_from_edges(edges, height, width)


def rle_from_edges(edges: np.ndarray, height: int, width: int) -> Rle:
    """Run lengths from the positions where the mask starts and ends.

    Args:
        edges: (2K,) int, ascending positions in the column-major image: start, end, start, end …
            (ends exclusive). An end equal to the next start, as where a run goes on from the
            bottom of one column to the top of the next, is joined.
    """
    touching = 2 * np.flatnonzero(edges[1:-1:2] == edges[2::2]) + 1
    if len(touching):
        edges = np.delete(edges, np.concatenate((touching, touching + 1)))
    runs = np.diff(edges, prepend=0, append=height * width)
    if len(runs) > 1 and runs[-1] == 0:  # COCO writes no empty last run
        runs = runs[:-1]
    # For a single mask pycocotools is ten times as fast as compress_many.
    return coco_mask.frPyObjects({'size': [int(height), int(width)], 'counts': runs},
                                 int(height), int(width))


def rles_from_edges(edges: Sequence[np.ndarray], height: int, width: int) -> list[Rle]:
    """:func:`rle_from_edges` of many masks of one image size at once."""
    if not len(edges):
        return []
    lengths = np.array([len(item) for item in edges]) + 2
    last = np.cumsum(lengths) - 1
    points = np.zeros(lengths.sum(), np.int64)  # of each mask: 0, its edges, the image's end
    points[last] = height * width
    within = np.arange(len(points)) - np.repeat(last - lengths + 1, lengths)
    is_edge = within > 0
    is_edge[last] = False
    points[is_edge] = np.concatenate(edges)
    joined = np.flatnonzero(is_edge & (within % 2 == 0) & (points == np.roll(points, -1)))
    keep = np.ones(len(points), bool)
    keep[joined[is_edge[joined + 1]]] = False
    keep[joined + 1] = False  # also the image's end: COCO writes no empty last run
    mask = np.repeat(np.arange(len(edges)), lengths)[keep]
    runs = np.diff(points[keep])[mask[1:] == mask[:-1]]
    offsets = np.concatenate(([0], np.cumsum(np.bincount(mask) - 1)))
    return [{'size': [int(height), int(width)], 'counts': counts}
            for counts in compress_many(runs, offsets)]


def rle_from_mask(mask: np.ndarray) -> Rle:
    """(H, W) bool or 0/1 to an Rle."""
    height, width = mask.shape
    return rle_from_crop(mask, 0, 0, height, width)


def to_rles(masks: Any) -> list[Rle]:
    """A model's masks as Rles.

    Args:
        masks: (N, H, W) bool or 0/1, a numpy array or a torch tensor on any device; or N Rles; or
            something that has them as ``rles``.
    """
    if hasattr(masks, 'rles'):
        return masks.rles
    if hasattr(masks, 'cpu'):  # a tensor, without importing torch
        masks = masks.cpu().numpy()
    return [rle_from_mask(mask) for mask in masks] if isinstance(masks, np.ndarray) else list(masks)


def rle_to_mask(rle: Rle) -> np.ndarray:
    """An Rle to (H, W) bool."""
    return coco_mask.decode(rle).astype(bool)


def area(rles: Sequence[Rle]) -> np.ndarray:
    """Pixels of each mask, (N,) int64."""
    # pycocotools fails on more than 255 masks at once: it keeps their number in eight bits.
    parts = [coco_mask.area(list(rles[start:start + 255])) for start in range(0, len(rles), 255)]
    return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)


def bbox(rles: Sequence[Rle]) -> np.ndarray:
    """Tight boxes in pixels, (N, 4) float64 ``x, y, w, h``; zeros for an empty mask."""
    return np.asarray(coco_mask.toBbox(list(rles)), np.float64).reshape(-1, 4)


def iou(first: Sequence[Rle], second: Sequence[Rle]) -> np.ndarray:
    """Pairwise intersection over union, (N, M) float64."""
    if not len(first) or not len(second):
        return np.zeros((len(first), len(second)))
    return np.asarray(coco_mask.iou(list(first), list(second), [0] * len(second)))
