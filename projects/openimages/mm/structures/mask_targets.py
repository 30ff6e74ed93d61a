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

_GROUP = 1 << 17  # rows of tables, or runs, worked on together: a few arrays of some 30 MB


def sample_targets(runs: ColumnRuns, sizes: np.ndarray, boxes: Tensor, owners: np.ndarray,
                   shape: tuple[int, int]) -> Tensor:
    """How much of each cell of a grid over each box a mask covers.

    The masks may be of several images: a batch takes few large steps, and a device is asked for
    the boxes only.

    Args:
        runs: the masks.
        sizes: (N, 2) int height and width of the image of each mask.
        boxes: (P, 4) x1, y1, x2, y2 in pixels.
        owners: (P,) int, the mask that belongs to each box.
        shape: rows and columns of a target.

    Returns:
        (P, rows, columns) float32 on the boxes' device: what ``roi_align`` gives for the masks
        with ``sampling_ratio=0`` and ``aligned=True``, up to its rounding.
    """
    boxes = boxes.float()
    targets = boxes.new_zeros(len(boxes), *shape)
    places = np.stack([runs.columns, runs.tops, runs.bottoms])
    places = torch.from_numpy(places).to(boxes.device).long()
    for group in _groups(boxes.cpu().numpy(), np.diff(runs.offsets)[owners]):
        chosen = torch.from_numpy(group).to(boxes.device)
        targets[chosen] = _sample(places, runs.offsets, sizes[owners[group]], boxes[chosen],
                                  owners[group], shape)
    return targets


def _groups(boxes: np.ndarray, runs: np.ndarray) -> list[np.ndarray]:
    """Regions to work on together, of about the same size.

    Args:
        boxes: (P, 4).
        runs: (P,) of the mask that belongs to each.
    """
    # Every region of a group gets tables as long as the longest one's.
    sides = np.nan_to_num((boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)) + 3
    order = np.argsort(-sides, kind='stable')
    groups, start = [], 0
    while start < len(order):
        most = max(int(_GROUP / sides[order[start]]), 1)
        work = np.cumsum(runs[order[start:start + most]])
        count = max(int(np.searchsorted(work, _GROUP, side='right')), 1)
        groups.append(order[start:start + count])
        start += count
    return groups


def _sample(places: Tensor, offsets: np.ndarray, sizes: np.ndarray, boxes: Tensor,
            owners: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """(P, rows, columns) float32 targets of a group of regions.

    Args:
        places: (3, R) int64 columns, tops and bottoms of all masks' runs.
        offsets: (N + 1,) where each mask's begin and end.
        sizes: (P, 2) height and width of each region's image.
        boxes, owners, shape: as in :func:`sample_targets`.
    """
    limits = torch.from_numpy(sizes).to(boxes.device)
    rows = _axis(boxes[:, 1], boxes[:, 3], shape[0], limits[:, 0])
    columns = _axis(boxes[:, 0], boxes[:, 2], shape[1], limits[:, 1])
    above = F.pad(rows.weights.cumsum(1), (0, 0, 1, 0))  # the weights of all rows above a row
    region, run = _pairs(offsets[owners], offsets[owners + 1], boxes.device)
    column, top, bottom = places[:, run]
    local = column - columns.first[region, 0]
    length = columns.weights.shape[1]
    on_rows = (_pick(above, region, bottom - rows.first[region, 0])
               - _pick(above, region, top - rows.first[region, 0]))
    on_rows *= ((local >= 0) & (local < length))[:, None]
    covered = above.new_zeros(len(boxes) * length, shape[0])
    covered.index_add_(0, region * length + local.clamp(0, length - 1), on_rows)
    targets = covered.view(len(boxes), length, -1).transpose(1, 2) @ columns.weights
    samples = (rows.samples * columns.samples).clamp(min=1)
    return (targets / samples[:, :, None]).float()


def _pairs(starts: np.ndarray, ends: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """(K,) region and run of all pairs, region ``p`` having the runs ``starts[p]:ends[p]``."""
    counts = ends - starts
    before = np.cumsum(counts) - counts
    shift, count = torch.from_numpy(np.stack([starts - before, counts])).to(device)
    total = int(counts.sum())
    region = torch.repeat_interleave(torch.arange(len(counts), device=device), count,
                                     output_size=total)
    return region, torch.arange(total, device=device) + shift[region]


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


def _axis(lower: Tensor, upper: Tensor, cells: int, length: Tensor) -> _Axis:
    """Sample as ``roi_align`` does: its operations in its order, on float32.

    Args:
        lower, upper: (P,) the boxes' sides along the axis.
        cells: of a target along the axis.
        length: (P,) of the image along the axis, in pixels.
    """
    length = length[:, None, None]
    start = (lower - 0.5)[:, None, None]
    # By a tensor: by a number, a GPU multiplies with the rounded reciprocal.
    cell_size = ((upper - 0.5)[:, None, None] - start) / lower.new_full((1,), cells)
    samples = cell_size.ceil()
    cell = torch.arange(cells, device=lower.device)[:, None]
    number = torch.arange(max(int(samples.max()), 1), device=lower.device)
    # All boxes get as many samples as the largest; those too many stay on the last, weightless.
    within = (torch.minimum(number, samples - 1).clamp(min=0) + 0.5) * cell_size
    place = start + cell * cell_size + within / samples.clamp(min=1)
    counts = (number < samples) & (place >= -1) & (place <= length)
    place = torch.minimum(place.clamp(min=0), (length - 1).to(place.dtype))
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
    """(K, cells): rows of regions' tables, the nearest where there is none.

    Args:
        table: (P, L, cells), regions, rows: (K,) int.
    """
    size = table.shape[1]
    return table.flatten(0, 1)[regions * size + rows.clamp(0, size - 1)]
