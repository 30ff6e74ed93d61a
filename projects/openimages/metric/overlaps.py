"""Areas, tight boxes and overlaps of masks and boxes, rounded as the official evaluator rounds.

In: COCO RLEs and boxes. Out: arrays. Masks are never drawn: areas and boxes come from the run
lengths, intersections from pycocotools' walk along two masks' runs. The evaluator keeps mask
overlaps in float32, so masks of more than 2**24 pixels are outside what can be equal to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
from pycocotools import mask as coco_mask

from projects.openimages.masks import (
    MaskError,
    Rle,
    batches,
    decompress_many,
    rle_from_edges,
)

MAX_IMAGE_BYTES = 1 << 28
"""Of run lengths in the masks of one image together, a thousand times what they usually have."""


@dataclass(frozen=True)
class MeasuredMasks:
    """Masks with what scoring needs of them.

    Attributes:
        rles: N RLEs, None where there was none.
        areas: (N,) int64 in pixels, 0 where there was none.
        spans: (N, 2) int64, the column-major pixels from which and before which the mask lies.
    """

    rles: Sequence[Rle | None]
    areas: np.ndarray
    spans: np.ndarray

    @cached_property
    def boxes(self) -> np.ndarray:
        """(N, 4) float64 tight boxes in 0..1, zeros for an empty mask."""
        boxes = np.zeros((len(self.rles), 4))
        rows = np.flatnonzero(self.areas > 0)
        if len(rows):
            masks = self.present(rows)
            sizes = np.array([mask['size'] for mask in masks], np.int64)
            x, y, width, height = coco_mask.toBbox(masks).reshape(-1, 4).T
            boxes[rows] = np.column_stack((x / sizes[:, 1], (x + width) / sizes[:, 1],
                                           y / sizes[:, 0], (y + height) / sizes[:, 0]))
        return boxes

    @property
    def extent(self) -> np.ndarray:
        """(N,) bool: where there is something inside."""
        return self.areas > 0

    def present(self, rows: np.ndarray) -> list[Rle]:
        """The masks in the given rows, (K,) int, each of which has one."""
        return cast(list[Rle], [self.rles[row] for row in rows.tolist()])

    def take(self, rows: np.ndarray) -> MeasuredMasks:
        """The masks in the given rows, (K,) int."""
        return MeasuredMasks([self.rles[row] for row in rows.tolist()], self.areas[rows],
                             self.spans[rows])

    @staticmethod
    def concatenate(parts: Sequence[MeasuredMasks]) -> MeasuredMasks:
        """All masks of ``parts``, of which there is one at least, in their order."""
        return MeasuredMasks([rle for part in parts for rle in part.rles],
                             np.concatenate([part.areas for part in parts]),
                             np.concatenate([part.spans for part in parts]))


def measure(masks: Iterable[Rle | None]) -> MeasuredMasks:
    """Areas of the masks of an image, and tight boxes where they are asked for.

    Run lengths are checked and, where need be, brought to the form that pycocotools' own code for
    boxes and overlaps relies on: no empty run after the first.

    Raises:
        MaskError: malformed run lengths, runs that do not fill the image, or more than
            ``MAX_IMAGE_BYTES`` of them.
    """
    return measure_images([read_masks(masks)])[0]


def read_masks(masks: Iterable[Rle | None]) -> list[Rle | None]:
    """The masks of an image as a list; a MaskError if they have more than ``MAX_IMAGE_BYTES``."""
    rles: list[Rle | None] = []
    size = 0
    for rle in masks:
        rles.append(rle)
        size += 0 if rle is None else len(rle['counts'])
        if size > MAX_IMAGE_BYTES:
            raise MaskError(f'the masks of one image have more than {MAX_IMAGE_BYTES} bytes of '
                            'run lengths together')
    return rles


def measure_images(images: Sequence[Sequence[Rle | None]]) -> list[MeasuredMasks]:
    """:func:`measure` for the masks of many images, which takes little more than for one."""
    parts = [MeasuredMasks([], np.zeros(0, np.int64), np.zeros((0, 2), np.int64))]
    parts += map(_measure_batch, batches(rle for image in images for rle in image))
    whole = MeasuredMasks.concatenate(parts)
    ends = np.cumsum([len(image) for image in images]).tolist()
    places = [slice(end - len(image), end) for image, end in zip(images, ends, strict=True)]
    return [MeasuredMasks(whole.rles[place], whole.areas[place], whole.spans[place])
            for place in places]


def _measure_batch(rles: list[Rle | None]) -> MeasuredMasks:
    """Some masks; those with unusual runs are replaced."""
    areas, spans = np.zeros(len(rles), np.int64), np.zeros((len(rles), 2), np.int64)
    present = [(n, rle) for n, rle in enumerate(rles) if rle is not None]
    if present:
        sizes = np.array([rle['size'] for _, rle in present], np.int64)
        runs, offsets = decompress_many([rle['counts'] for _, rle in present])
        rows = [n for n, _ in present]
        areas[rows] = _areas(runs, offsets, sizes)
        ends_with_zeros = np.diff(offsets) % 2 == 1
        spans[rows, 0] = runs[offsets[:-1]]
        spans[rows, 1] = sizes.prod(axis=1) - ends_with_zeros * runs[offsets[1:] - 1]
        for place, edges in _edges_of_unusual_runs(runs, offsets):
            rles[rows[place]] = rle_from_edges(edges, *sizes[place].tolist())
    return MeasuredMasks(rles, areas, spans)


def _areas(runs: np.ndarray, offsets: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(N,) pixels of the masks, the sum of every second run; a MaskError if the runs are wrong."""
    if runs.min() < 0:
        raise MaskError('mask with a negative run length')
    at_even, at_odd = (np.concatenate(([0], np.cumsum(runs[parity::2]))) for parity in range(2))
    at_even = np.diff(at_even[(offsets + 1) // 2])
    at_odd = np.diff(at_odd[offsets // 2])
    pixels = at_even + at_odd
    for n in np.flatnonzero(pixels != sizes.prod(axis=1))[:1]:
        raise MaskError(f'mask of {pixels[n]} pixels, expected {sizes[n, 1]} x {sizes[n, 0]}')
    return np.where(offsets[:-1] % 2, at_even, at_odd)  # a mask's first run is zeros


def _edges_of_unusual_runs(runs: np.ndarray,
                           offsets: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Masks with an empty run after their first, and where their pixels really change."""
    if len(runs) - np.count_nonzero(runs) == np.count_nonzero(runs[offsets[:-1]] == 0):
        return []
    empty = runs == 0
    empty[offsets[:-1]] = False
    unusual = np.unique(np.searchsorted(offsets, np.flatnonzero(empty), side='right') - 1)
    result = []
    for n in unusual.tolist():
        ends = np.cumsum(runs[offsets[n]:offsets[n + 1]])
        edges, times = np.unique(ends[:-1], return_counts=True)
        edges = edges[(times % 2 == 1) & (edges < ends[-1])]
        result.append((n, np.append(edges, ends[-1]) if len(edges) % 2 else edges))
    return result


def mask_intersections(first: Sequence[Rle], second: Sequence[Rle],
                       first_areas: np.ndarray) -> np.ndarray:
    """Pixels that masks have in common, (N, M) int64, exact.

    pycocotools returns intersection over the first mask's area where the second is a crowd; the
    product with that area differs from the integer by a rounding error only.
    """
    if not len(first) or not len(second):
        return np.zeros((len(first), len(second)), np.int64)
    others, are_crowds = list(second), [1] * len(second)
    shares = np.concatenate([coco_mask.iou(batch, others, are_crowds)
                             for batch in batches(first)])
    return np.rint(shares * first_areas[:, None]).astype(np.int64)


def mask_iou(intersections: np.ndarray, areas: np.ndarray, other_areas: np.ndarray) -> np.ndarray:
    """Intersection over union, float32, rounded as the evaluator's float32 masks are.

    Args:
        intersections, areas, other_areas: int, of shapes that broadcast: (P,) each for pairs of
            masks; (N, M), (N, 1) and (M,) for all of N with all of M.
    """
    intersections = intersections.astype(np.float32)
    unions = areas.astype(np.float32) + other_areas.astype(np.float32) - intersections
    return intersections / np.maximum(unions, np.float32(1e-7))


def mask_ioa(intersections: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Intersection over the first mask's own area, float32, shapes as for :func:`mask_iou`."""
    return intersections.astype(np.float32) / (areas.astype(np.float32) + np.float32(1e-7))


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """(...) float64 areas of (..., 4) boxes."""
    return (boxes[..., 3] - boxes[..., 2]) * (boxes[..., 1] - boxes[..., 0])


def box_intersections(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Area that boxes have in common, float64.

    Args:
        first, second: boxes of shapes that broadcast: (P, 4) each for pairs; (N, 1, 4) and (M, 4)
            for all of N with all of M.
    """
    sides = np.maximum(0.0, np.minimum(first[..., 1::2], second[..., 1::2])
                       - np.maximum(first[..., ::2], second[..., ::2]))
    return sides[..., 1] * sides[..., 0]


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes, shapes as for :func:`box_intersections`."""
    intersections = box_intersections(first, second)
    return intersections / (box_areas(first) + box_areas(second) - intersections)


def box_ioa(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over the first box's own area, shapes as for :func:`box_intersections`."""
    return box_intersections(first, second) / box_areas(first)
