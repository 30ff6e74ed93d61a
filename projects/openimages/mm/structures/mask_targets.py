"""Mask targets of a box head's regions, sampled from runs instead of image-sized bitmaps.

MMDetection takes a copy of the whole image's mask for every region, as float32, and lets
``roi_align`` average bilinear samples on a grid in each of a target's cells. Bilinear weights are a
product of those along each axis, so a target is ``Y @ M @ X.T``: ``Y`` (cells, height) sums the
samples' weights on each row, ``X`` on each column. A run of the mask ``M`` is some rows of one
column; ``Y`` gives it a difference of two running sums. The work is by runs, not by pixels, and a
region takes memory for its rows and columns only.

Sample positions are ``roi_align``'s own, in its float32 arithmetic; sums are in float64, which
neither TF32 nor autocast touch. What is left is the rounding of ``roi_align``'s own sums.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from projects.openimages.mm.structures.column_runs import ColumnRuns

_GROUP = 1 << 17  # regions times runs worked on together: a few arrays of some 30 MB


def sample_targets(runs: ColumnRuns, height: int, width: int, boxes: Tensor, owners: np.ndarray,
                   shape: tuple[int, int]) -> Tensor:
    """How much of each cell of a grid over each box a mask covers.

    Args:
        runs: the masks of an image of ``height`` x ``width``.
        boxes: (P, 4) x1, y1, x2, y2 in pixels.
        owners: (P,) int, the mask that belongs to each box.
        shape: rows and columns of a target.

    Returns:
        (P, rows, columns) float32 on the boxes' device: what ``roi_align`` gives for the masks
        with ``sampling_ratio=0`` and ``aligned=True``, up to its rounding.
    """
    targets = boxes.new_zeros(len(boxes), *shape, dtype=torch.float64)
    if not len(boxes):
        return targets.float()
    boxes = boxes.float()
    rows = _axis(boxes[:, 1], boxes[:, 3], shape[0], height)
    columns = _axis(boxes[:, 0], boxes[:, 2], shape[1], width)
    above = F.pad(rows.weights.cumsum(1), (0, 0, 1, 0))  # the weights of all rows above a row
    beside = F.pad(columns.weights, (0, 0, 1, 1))  # none left and right of the samples
    places = torch.from_numpy(np.stack([runs.columns, runs.tops, runs.bottoms])).to(boxes.device)
    for mask in np.unique(owners):
        regions = torch.from_numpy(np.flatnonzero(owners == mask)).to(boxes.device)
        of_mask = places[:, runs.offsets[mask]:runs.offsets[mask + 1]]
        for part in of_mask.split(max(_GROUP // len(regions), 1), 1):
            column, top, bottom = part[:, None].long()
            on_rows = (_pick(above, regions, bottom - rows.first[regions])
                       - _pick(above, regions, top - rows.first[regions]))
            on_column = _pick(beside, regions, column - columns.first[regions] + 1)
            targets[regions] += on_rows.transpose(1, 2) @ on_column
    samples = (rows.samples * columns.samples).clamp(min=1)
    return (targets / samples[:, :, None]).float()


class _Axis(NamedTuple):
    """The weights of bilinear samples on the pixels along one axis.

    Attributes:
        weights: (P, L, cells) float64, of pixels ``first`` to ``first + L - 1``; each sample's sum
            to 1.
        first: (P, 1) int64.
        samples: (P, 1) float32, the samples in a cell.
    """

    weights: Tensor
    first: Tensor
    samples: Tensor


def _axis(lower: Tensor, upper: Tensor, cells: int, length: int) -> _Axis:
    """Sample as ``roi_align`` does: its operations in its order, on float32.

    Args:
        lower, upper: (P,) the boxes' sides along the axis.
        cells: of a target along the axis.
        length: of the image along the axis, in pixels.
    """
    start = (lower - 0.5)[:, None, None]
    cell_size = ((upper - 0.5)[:, None, None] - start) / cells
    samples = cell_size.ceil()
    cell = torch.arange(cells, device=lower.device)[:, None]
    number = torch.arange(max(int(samples.max()), 1), device=lower.device)
    # All boxes get as many samples as the largest; those too many stay on the last, weightless.
    within = (torch.minimum(number, samples - 1).clamp(min=0) + 0.5) * cell_size
    place = start + cell * cell_size + within / samples.clamp(min=1)
    counts = (number < samples) & (place >= -1) & (place <= length)
    place = place.clamp(0, length - 1)
    low = place.floor()
    upper_part = (place - low).double()
    first = low.flatten(1).amin(1)[:, None, None]
    size = int((low - first).max()) + 2
    region = torch.arange(len(lower), device=lower.device)[:, None, None]
    index = ((region * size + (low - first).long()) * cells + cell).flatten()
    weights = place.new_zeros(len(lower) * size * cells, dtype=torch.float64)
    weights.index_add_(0, index, ((1 - upper_part) * counts).flatten())
    weights.index_add_(0, index + cells, (upper_part * counts).flatten())
    return _Axis(weights.view(len(lower), size, cells), first[:, 0].long(), samples[:, 0])


def _pick(table: Tensor, regions: Tensor, rows: Tensor) -> Tensor:
    """(k, R, cells): rows of some regions' tables, the nearest where there is none.

    Args:
        table: (P, L, cells), regions: (k,) int, rows: (k, R) int.
    """
    size = table.shape[1]
    places = regions[:, None] * size + rows.clamp(0, size - 1)
    return table.flatten(0, 1)[places]
