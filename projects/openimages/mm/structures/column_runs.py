"""Masks as the vertical runs of their pixels: what flips, crops and scaling need, and no pixels.

COCO's run lengths go down the columns of an image. Cut where a column ends, each run is three
numbers: its column, its first row, and the row below its last. All that keeps rows and columns
apart - nearest-neighbour scaling, flips, crops, shifts - is then arithmetic on those numbers, and
equal to the same done on pixels. A mask takes 12 bytes a run; of an object without holes there is
one run a column.

In: RLE, boxes or pixels. Out: RLE, boxes, areas or pixels. Nothing here knows of MMDetection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from projects.openimages.masks import MaskError, Rle, decompress_many, rles_from_edges


@dataclass(frozen=True)
class ColumnRuns:
    """The runs of N masks, one mask after the other.

    Within a mask the runs do not overlap; their order is free.

    Attributes:
        columns, tops, bottoms: (R,) int32; a run covers rows ``tops`` to ``bottoms - 1``.
        offsets: (N + 1,) int64, mask ``n`` has the runs ``offsets[n]:offsets[n + 1]``.
    """

    columns: np.ndarray
    tops: np.ndarray
    bottoms: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __reduce__(self) -> tuple:
        # A pickle goes from a loader's process to the training process: two bytes a number will do.
        places = np.stack([self.columns, self.tops, self.bottoms])
        return _restored, (places.astype(np.min_scalar_type(places.max(initial=0))), self.offsets)

    @classmethod
    def from_rles(cls, rles: Sequence[Rle], height: int, width: int) -> ColumnRuns:
        """Decode RLE; ``counts`` may be text or bytes.

        Raises:
            MaskError: malformed run lengths, or a mask of another size.
        """
        if not len(rles):
            return cls.none(0)
        for rle in rles:
            if tuple(rle['size']) != (height, width):
                raise MaskError(f'mask of {rle["size"][1]}x{rle["size"][0]}, expected {width}x'
                                f'{height}')
        counts = [rle['counts'] for rle in rles]
        runs, offsets = decompress_many(
            [item.encode('ascii') if isinstance(item, str) else item for item in counts])
        ends = np.cumsum(runs, dtype=np.int64)
        before = np.concatenate(([0], ends[offsets[1:] - 1]))
        if (runs < 0).any() or (np.diff(before) != height * width).any():
            raise MaskError(f'run lengths that do not fill an image of {width}x{height}')
        sizes = np.diff(offsets)
        # Of each mask every second run is one of ones.
        first = offsets[:-1] + 1
        chosen = _ranges(first, sizes // 2, step=2)
        ends = (ends[chosen] - np.repeat(before[:-1], sizes // 2)).astype(np.int32)
        return cls._cut(ends - runs[chosen], ends, _offsets(sizes // 2), height)

    @classmethod
    def from_pixels(cls, pixels: np.ndarray) -> ColumnRuns:
        """The runs of (N, H, W) pixels; what is not zero is set."""
        count, height, width = pixels.shape
        # A zero below each column keeps the columns apart in a single pass.
        padded = np.zeros((count, width, height + 1), bool)
        padded[:, :, :height] = pixels.transpose(0, 2, 1)
        edges = np.flatnonzero(np.diff(padded.reshape(-1), prepend=False))
        column, tops = np.divmod(edges[0::2], height + 1)
        mask, columns = np.divmod(column, width)
        lengths = edges[1::2] - edges[0::2]
        return cls(columns.astype(np.int32), tops.astype(np.int32),
                   (tops + lengths).astype(np.int32), _offsets(np.bincount(mask, minlength=count)))

    @classmethod
    def from_boxes(cls, boxes: np.ndarray, height: int, width: int) -> ColumnRuns:
        """All pixels that boxes touch: (N, 4) x1, y1, x2, y2."""
        limits = np.array([width, height, width, height])
        whole = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], 1)
        left, top, right, bottom = np.clip(whole, 0, limits).astype(np.int32).T
        counts = np.where(bottom > top, np.maximum(right - left, 0), 0)
        return cls(_ranges(left, counts).astype(np.int32), np.repeat(top, counts),
                   np.repeat(bottom, counts), _offsets(counts))

    @classmethod
    def none(cls, count: int) -> ColumnRuns:
        """Masks without a pixel."""
        empty = np.zeros(0, np.int32)
        return cls(empty, empty, empty, np.zeros(count + 1, np.int64))

    @classmethod
    def cat(cls, parts: Sequence[ColumnRuns]) -> ColumnRuns:
        """The masks of one or more parts."""
        sizes = np.concatenate([np.diff(part.offsets) for part in parts])
        return cls(*(np.concatenate([getattr(part, name) for part in parts])
                     for name in ('columns', 'tops', 'bottoms')), _offsets(sizes))

    @classmethod
    def _cut(cls, starts: np.ndarray, ends: np.ndarray, offsets: np.ndarray,
             height: int) -> ColumnRuns:
        """Runs along the column-major image, (K,) int32 each, cut where columns end."""
        first = starts // height
        counts = np.where(ends > starts, (ends - 1) // height - first + 1, 0)
        columns = _ranges(first, counts).astype(np.int32)
        above = columns * np.int32(height)
        return cls(columns, np.maximum(np.repeat(starts, counts) - above, 0),
                   np.minimum(np.repeat(ends, counts) - above, height),
                   _offsets(counts)[offsets])

    def take(self, index: np.ndarray) -> ColumnRuns:
        """The masks at (M,) int positions, in that order."""
        sizes = np.diff(self.offsets)[index]
        chosen = _ranges(self.offsets[index], sizes)
        return ColumnRuns(self.columns[chosen], self.tops[chosen], self.bottoms[chosen],
                          _offsets(sizes))

    def where(self, keep: np.ndarray, other: ColumnRuns | None = None) -> ColumnRuns:
        """The masks where (N,) bool ``keep`` is True; elsewhere ``other``'s, or empty ones."""
        if keep.all():
            return self
        count = len(self)
        both = self.cat([self, self.none(count) if other is None else other])
        return both.take(np.arange(count) + np.where(keep, 0, count))

    def flipped(self, height: int | None = None, width: int | None = None) -> ColumnRuns:
        """Upside down in an image of that height, left to right in one of that width."""
        columns, tops, bottoms = self.columns, self.tops, self.bottoms
        if height is not None:
            tops, bottoms = np.int32(height) - bottoms, np.int32(height) - tops
        if width is not None:
            columns = np.int32(width - 1) - columns
        return ColumnRuns(columns, tops, bottoms, self.offsets)

    def window(self, left: int, top: int, height: int, width: int) -> ColumnRuns:
        """What lies in a window, as seen from its corner, which may be outside the image."""
        columns = self.columns - np.int32(left)
        tops = np.maximum(self.tops - np.int32(top), 0)
        bottoms = np.minimum(self.bottoms - np.int32(top), np.int32(height))
        return self._filtered((columns >= 0) & (columns < width) & (tops < bottoms), columns, tops,
                              bottoms)

    def resampled(self, rows: np.ndarray, columns: np.ndarray, height: int,
                  width: int) -> ColumnRuns:
        """The masks on another grid, each new pixel taken from one old one.

        Args:
            rows, columns: (new height,) and (new width,) int, the old row and column of each new
                one, ascending.
            height, width: of the old image.
        """
        # How many new ones come before an old one is the new place of its upper or left edge.
        new_row = np.searchsorted(rows, np.arange(height + 1)).astype(np.int32)
        new_column = np.searchsorted(columns, np.arange(width + 1)).astype(np.int32)
        tops, bottoms = new_row[self.tops], new_row[self.bottoms]
        first = new_column[self.columns]
        counts = np.where(tops < bottoms, new_column[self.columns + 1] - first, 0)
        return ColumnRuns(_ranges(first, counts).astype(np.int32), np.repeat(tops, counts),
                          np.repeat(bottoms, counts), _offsets(counts)[self.offsets])

    def without(self, others: ColumnRuns, height: int, width: int) -> ColumnRuns:
        """The masks without the pixels that any mask of ``others`` has."""
        if not len(others.columns):
            return self
        starts, ends = others.positions(height)
        order = np.argsort(starts)
        starts, reached = starts[order], np.maximum.accumulate(ends[order])
        apart = np.flatnonzero(starts[1:] > reached[:-1])
        # The gaps between the others' runs, from the image's start to its end.
        gap_starts = np.concatenate(([0], reached[apart], reached[-1:]))
        gap_ends = np.concatenate((starts[:1], starts[apart + 1], [height * width]))
        starts, ends = self.positions(height)
        first = np.searchsorted(gap_ends, starts, side='right')
        counts = np.searchsorted(gap_starts, ends, side='left') - first
        gap = _ranges(first, counts)
        columns = np.repeat(self.columns, counts)
        above = columns.astype(np.int64) * height
        starts = np.maximum(np.repeat(starts, counts), gap_starts[gap])
        ends = np.minimum(np.repeat(ends, counts), gap_ends[gap])
        return ColumnRuns(columns, (starts - above).astype(np.int32),
                          (ends - above).astype(np.int32), _offsets(counts)[self.offsets])

    def positions(self, height: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the runs start and end in the column-major image, (R,) int64 each."""
        above = self.columns.astype(np.int64) * height
        return above + self.tops, above + self.bottoms

    def areas(self) -> np.ndarray:
        """Pixels of each mask, (N,) int64."""
        return np.diff(_offsets(self.bottoms - self.tops)[self.offsets])

    def boxes(self) -> np.ndarray:
        """Tight boxes x1, y1, x2, y2, (N, 4) int32; zeros for a mask without pixels."""
        boxes = np.zeros((len(self), 4), np.int32)
        some = np.flatnonzero(np.diff(self.offsets))
        if len(some):
            first = self.offsets[some]
            boxes[some] = np.stack([np.minimum.reduceat(self.columns, first),
                                    np.minimum.reduceat(self.tops, first),
                                    np.maximum.reduceat(self.columns, first) + 1,
                                    np.maximum.reduceat(self.bottoms, first)], 1)
        return boxes

    def to_rles(self, height: int, width: int) -> list[Rle]:
        """The bytes that pycocotools makes of the pixels."""
        if not len(self):
            return []
        edges = np.stack(self.positions(height), 1)
        owner = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        edges = edges[np.argsort(owner * (height * width) + edges[:, 0])]
        return rles_from_edges(np.split(edges.reshape(-1), 2 * self.offsets[1:-1]), height, width)

    def to_pixels(self, height: int, width: int) -> np.ndarray:
        """(N, H, W) uint8."""
        steps = np.zeros(len(self) * width * height + 1, np.int8)
        start = np.repeat(np.arange(len(self)) * (height * width), np.diff(self.offsets))
        starts, ends = self.positions(height)
        steps[start + starts] += 1  # no two runs of a mask share their start, or their end
        steps[start + ends] -= 1
        pixels = np.cumsum(steps[:-1], dtype=np.int8).view(np.uint8)
        return np.ascontiguousarray(pixels.reshape(len(self), width, height).transpose(0, 2, 1))

    def _filtered(self, keep: np.ndarray, columns: np.ndarray, tops: np.ndarray,
                  bottoms: np.ndarray) -> ColumnRuns:
        """Only the runs where (R,) bool ``keep`` is True."""
        return ColumnRuns(columns[keep], tops[keep], bottoms[keep], _offsets(keep)[self.offsets])


def _restored(places: np.ndarray, offsets: np.ndarray) -> ColumnRuns:
    return ColumnRuns(*places.astype(np.int32), offsets)


def _offsets(sizes: np.ndarray) -> np.ndarray:
    """(N + 1,) int64: where each of N parts begins, and the last one ends."""
    return np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))


def _ranges(first: np.ndarray, counts: np.ndarray, step: int = 1) -> np.ndarray:
    """``counts[n]`` numbers from ``first[n]`` on, one range after the other."""
    offsets = _offsets(counts)
    return np.arange(offsets[-1]) * step + np.repeat(first - offsets[:-1] * step, counts)
