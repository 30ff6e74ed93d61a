"""A mask head whose masks are run lengths, pasted inside their boxes only.

MMDetection's ``FCNMaskHead`` pastes every mask into a full image, stacks the images, and leaves it
to the evaluator to copy and encode them. :class:`BoxMaskHead` takes the same features, weights and
settings and gives the same masks bit for bit, but as full-image RLE: interpolated where the box is,
thresholded, and reduced to the positions at which runs begin and end before anything leaves the
device.

Same bits, fewer steps. The stock head samples each pixel with ``grid_sample``: bilinear weights
over a zero-padded m x m map. Bilinear weights are separable, so the values of a whole box are a
product of three small matrices, equal to ``grid_sample``'s up to rounding. Only the few pixels
whose value is within rounding of the threshold are sampled again by ``grid_sample`` itself, at the
very coordinates the stock head uses, so each pixel falls on the side of the threshold on which the
stock head puts it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.registry import MODELS
from mmdet.utils import ConfigType, InstanceList
from torch import Tensor
from torch.nn.modules.utils import _pair

from projects.openimages.masks import Rle, rles_from_edges
from projects.openimages.mm.models.own_class import ClassLogits, OwnClassConv2d
from projects.openimages.mm.structures.rle_masks import RleMasks, batch_targets

# A sample coordinate has at most three roundings of 2**-20 (numbers up to 32) after the grid value
# that both ways share; a map in [0, 1] changes by at most 1 a step along each axis; the weights'
# and sums' own roundings are a tenth of that. So both ways differ by less than 7e-6.
_ROUNDING_FLOAT32 = 2e-5
# Where torch may multiply matrices with fewer bits (TF32 and bfloat16 keep 10 and 7 of them), the
# weights along both axes, the map and the product in between are cut: four errors of 2**-10 or
# 2**-7. Those settings are the whole process's, so they are asked for here and not changed.
_ROUNDING = {'tf32': 5e-3, 'bf16': 4e-2}
_OUTSIDE = 4.  # a coordinate at which every map is zero
_NO_LENGTH = 1e-30  # pixels; from here on a coordinate divided by it stays finite
_GROUP_PIXELS = 1 << 21  # of boxes pasted together: few large steps, at most some 50 MB


@MODELS.register_module()
class BoxMaskHead(FCNMaskHead):
    """``FCNMaskHead`` with ``results.masks`` as ``RleMasks`` at full image size.

    Takes the same arguments and loads the same weights. With a ``mask_thr_binary`` of 0 or less,
    for which pixels outside the box count or grey maps are asked for, the stock masks are given.
    In training only the maps of the objects' own classes are computed, unless the config names a
    predictor.
    """

    def __init__(self, *args: Any, predictor_cfg: ConfigType | None = None, **options: Any) -> None:
        super().__init__(*args, predictor_cfg=predictor_cfg or {'type': OwnClassConv2d}, **options)

    def predict_by_feat(self, mask_preds: tuple[Tensor], results_list: InstanceList,
                        batch_img_metas: list[dict], rcnn_test_cfg: ConfigType,
                        rescale: bool = False, activate_map: bool = False) -> InstanceList:
        """As the stock head; ``rescale`` changes the boxes in place, for the head hands them on."""
        threshold = rcnn_test_cfg.mask_thr_binary
        if threshold <= 0:
            return super().predict_by_feat(mask_preds, results_list, batch_img_metas,
                                           rcnn_test_cfg, rescale, activate_map)
        for maps, results, meta in zip(mask_preds, results_list, batch_img_metas, strict=True):
            scale = results.bboxes.new_tensor(meta['scale_factor'])
            height, width = meta['ori_shape'][:2]
            if rescale:
                results.bboxes /= scale.repeat(2)
            else:
                height = int(np.round(height * scale[1].item()))
                width = int(np.round(width * scale[0].item()))
            maps = self._own_class(maps, results.labels)
            rles = paste_to_rles(maps if activate_map else maps.sigmoid(), results.bboxes, height,
                                 width, threshold)
            results.masks = RleMasks.from_rles(rles, height, width)
        return results_list

    def loss_and_target(self, mask_preds: Tensor | ClassLogits,
                        sampling_results: list[SamplingResult], batch_gt_instances: InstanceList,
                        rcnn_train_cfg: ConfigType) -> dict:
        """As the stock head's."""
        if not isinstance(mask_preds, ClassLogits):
            return super().loss_and_target(mask_preds, sampling_results, batch_gt_instances,
                                           rcnn_train_cfg)
        targets = self.get_targets(sampling_results, batch_gt_instances, rcnn_train_cfg)
        labels = torch.cat([result.pos_gt_labels for result in sampling_results])
        own = mask_preds.of(labels)[:, None]
        loss = self.loss_mask(own, targets, torch.zeros_like(labels)) if len(own) else own.sum()
        return {'loss_mask': {'loss_mask': loss}, 'mask_targets': targets}

    def get_targets(self, sampling_results: list[SamplingResult],
                    batch_gt_instances: InstanceList, rcnn_train_cfg: ConfigType) -> Tensor:
        """As the stock head's, (P, m, m), from runs of a whole batch at once."""
        masks = [instances.masks for instances in batch_gt_instances]
        if not all(isinstance(one, RleMasks) for one in masks):
            return super().get_targets(sampling_results, batch_gt_instances, rcnn_train_cfg)
        counts = [len(result.pos_priors) for result in sampling_results]
        boxes = torch.cat([result.pos_priors for result in sampling_results])
        limits = np.repeat([(one.width, one.height) * 2 for one in masks], counts, axis=0)
        boxes = torch.minimum(boxes.clamp(min=0), torch.from_numpy(limits).to(boxes))
        owners = [result.pos_assigned_gt_inds for result in sampling_results]
        targets = batch_targets(masks, boxes.split(counts), owners, _pair(rcnn_train_cfg.mask_size))
        if not rcnn_train_cfg.get('soft_mask_target', False):
            targets = (targets >= 0.5).float()
        return targets

    def _own_class(self, maps: Tensor | ClassLogits, labels: Tensor) -> Tensor:
        """(N, C, m, m) maps to (N, m, m) of each detection's class."""
        if isinstance(maps, ClassLogits):
            return maps.of(labels)
        chosen = torch.zeros_like(labels) if self.class_agnostic else labels
        return maps[torch.arange(len(labels), device=labels.device), chosen]


def paste_to_rles(maps: Tensor, boxes: Tensor, height: int, width: int,
                  threshold: float = 0.5) -> list[Rle]:
    """Masks of detections as full-image RLE, equal to pasting and encoding the full image.

    Args:
        maps: (N, m, m) mask probabilities of the detections' own classes, in [0, 1].
        boxes: (N, 4) x1, y1, x2, y2 in pixels of the image.
        height, width: the image's size in pixels.
        threshold: of the probability, above 0.

    Returns:
        N RLE dicts, the same bytes as ``FCNMaskHead`` and ``pycocotools.mask.encode`` give.
    """
    maps, boxes = maps.float(), boxes.float()
    areas = _areas(boxes, height, width, maps.shape[-1])
    edges = [np.zeros(0, np.int64)] * len(boxes)
    with torch.autocast(boxes.device.type, enabled=False):  # it would multiply in half precision
        for group in _groups(areas):
            rows = torch.as_tensor(group, device=boxes.device)
            found = _paste_edges(maps[rows], boxes[rows], areas[group], height, threshold)
            for row, item in zip(group.tolist(), found, strict=True):
                edges[row] = item
    return rles_from_edges(edges, height, width)


def _areas(boxes: Tensor, height: int, width: int, size: int) -> np.ndarray:
    """(N, 4) int64 x1, y1, x2, y2: the pixels among which the stock head looks for the mask.

    On a CPU it takes the box and a pixel around it. Elsewhere it takes the image, in which a map
    of ``size`` cells a side reaches half a cell beyond the box, and without end along a side so
    short that dividing by it overflows.
    """
    lower, upper = boxes[:, :2], boxes[:, 2:]
    if boxes.device.type != 'cpu':
        reach = (upper - lower) * (0.5 / size)
        reach = torch.where(reach < _NO_LENGTH, float(max(height, width)), reach)
        lower, upper = lower - reach, upper + reach
    limit = boxes.new_tensor([width, height])
    lower = torch.minimum((lower.floor() - 1).clamp(min=0), limit)
    upper = torch.minimum(upper.ceil() + 1, limit).clamp(min=0)
    return torch.cat([lower, upper], 1).long().cpu().numpy()


def _groups(areas: np.ndarray) -> list[np.ndarray]:
    """Rows to paste together; boxes without pixels are in no group."""
    sizes = areas[:, 2:] - areas[:, :2]
    rows = np.flatnonzero((sizes > 0).all(1))
    total = np.cumsum(sizes[rows].prod(1))
    number = total // _GROUP_PIXELS
    return np.split(rows, np.flatnonzero(np.diff(number)) + 1) if len(rows) else []


def _paste_edges(maps: Tensor, boxes: Tensor, areas: np.ndarray, height: int,
                 threshold: float) -> list[np.ndarray]:
    """Where runs begin and end, by turns, in the column-major image; one (K,) int64 a box.

    Each box's pixels stand column after column in one flat tensor, with a zero below each column,
    so that a run is a change from one neighbour to the next. Only the changes leave the device.

    Args:
        maps: (n, m, m), boxes: (n, 4), areas: (n, 4) not empty.
        height: of the image.
        threshold: above 0.
    """
    columns, rows = (areas[:, 2:] - areas[:, :2]).T
    grid_x = _grid(areas[:, 0], columns, boxes[:, 0], boxes[:, 2])
    grid_y = _grid(areas[:, 1], rows + 1, boxes[:, 1], boxes[:, 3])
    grid_y[torch.as_tensor(np.cumsum(rows + 1) - 1, device=boxes.device)] = _OUTSIDE
    weights_x, weights_y = _weights(grid_x, maps.shape[2]), _weights(grid_y, maps.shape[1])
    pieces = [torch.mm(torch.mm(x, one.t()), y.t()).view(-1) for x, one, y in zip(
        weights_x.split(columns.tolist()), maps, weights_y.split((rows + 1).tolist()),
        strict=True)]
    places = _Places(columns, rows + 1, boxes.device)
    inside = _at_least(threshold, torch.cat(pieces), maps, grid_x, grid_y, places)
    padded = torch.cat([inside.new_zeros(1), inside])
    found = _nonzero(padded[1:] != padded[:-1])
    box, x, y = places.of(found)
    corner = torch.as_tensor(areas[:, :2], device=boxes.device)[box]
    positions = ((corner[:, 0] + x) * height + corner[:, 1] + y).cpu().numpy()
    return np.split(positions, torch.bincount(box, minlength=len(boxes)).cumsum(0)[:-1].cpu())


class _Places:
    """Which box, column and row a place in the flat tensor is.

    Args:
        columns, rows: (n,) int, the size of each box's piece.
    """

    def __init__(self, columns: np.ndarray, rows: np.ndarray, device: torch.device) -> None:
        starts = [np.cumsum(sizes) - sizes for sizes in (columns * rows, columns, rows)]
        self._starts = torch.as_tensor(np.stack(starts), device=device)
        self._rows = torch.as_tensor(rows, device=device)

    def of(self, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(K,) box, column and row of (K,) places."""
        box = torch.bucketize(places, self._starts[0], right=True) - 1
        within = places - self._starts[0][box]
        column = torch.div(within, self._rows[box], rounding_mode='floor')
        return box, column, within - column * self._rows[box]

    def grid_rows(self, box: Tensor, column: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """Where their coordinates stand among all boxes' columns and rows."""
        return self._starts[1][box] + column, self._starts[2][box] + row


def _grid(first: np.ndarray, sizes: np.ndarray, lower: Tensor, upper: Tensor) -> Tensor:
    """Sample coordinates of all boxes' pixels along one axis, -1 to 1 over each box.

    The stock head's operations in its order, on float32.

    Args:
        first, sizes: (n,) int, each box's first pixel and number of pixels.
        lower, upper: (n,) the boxes' sides.
    """
    box = np.repeat(np.arange(len(sizes)), sizes)
    pixels = np.arange(len(box)) - (np.cumsum(sizes) - sizes - first)[box]
    box = torch.as_tensor(box, device=lower.device)
    lower, upper = lower[box], upper[box]
    pixels = torch.as_tensor(pixels, device=lower.device).to(torch.float32) + 0.5
    grid = (pixels - lower) / (upper - lower) * 2 - 1
    return torch.where(torch.isinf(grid), 0., grid)


def _weights(grid: Tensor, size: int) -> Tensor:
    """(P, size) bilinear weights of a map's cells at (P,) coordinates."""
    place = (grid + 1) * (size / 2) - 0.5
    cells = torch.arange(size, device=grid.device, dtype=grid.dtype)
    return (1 - (place[:, None] - cells).abs_()).clamp_(min=0)


def _at_least(threshold: float, values: Tensor, maps: Tensor, grid_x: Tensor, grid_y: Tensor,
              places: _Places) -> Tensor:
    """(P,) bool: where ``grid_sample`` of the maps is at least the threshold.

    Args:
        values: (P,) those of ``grid_sample`` up to rounding.
    """
    values -= threshold
    inside = values >= 0
    found = _nonzero(values.abs_() < _rounding(values.device))
    if len(found):
        box, column, row = places.of(found)
        at_x, at_y = places.grid_rows(box, column, row)
        inside[found] = _sample(maps, box, grid_x[at_x], grid_y[at_y]) >= threshold
    return inside


def _rounding(device: torch.device) -> float:
    """How far products of matrices and ``grid_sample`` may be apart on a device."""
    backend = torch.backends.cuda if device.type == 'cuda' else torch.backends.mkldnn
    return _ROUNDING.get(backend.matmul.fp32_precision, _ROUNDING_FLOAT32)


def _nonzero(flags: Tensor) -> Tensor:
    """(K,) where a (P,) bool is True. NumPy's search is several times faster on a CPU."""
    if flags.device.type == 'cpu':
        return torch.from_numpy(np.flatnonzero(flags.numpy()))
    return torch.nonzero(flags).squeeze(1)


def _sample(maps: Tensor, box: Tensor, grid_x: Tensor, grid_y: Tensor) -> Tensor:
    """(K,) values at single points as ``grid_sample`` gives them; ``box`` (K,) is ascending.

    A box's points stand in as many rows as they need, each as long as a box has points on average:
    one box with many does not make the others' rows long.
    """
    counts = torch.bincount(box, minlength=len(maps))
    length = -(-len(box) // len(maps))
    needed = (counts + length - 1) // length
    within = torch.arange(len(box), device=box.device) - (counts.cumsum(0) - counts)[box]
    row = (needed.cumsum(0) - needed)[box] + within // length
    owner = torch.arange(len(maps), device=box.device).repeat_interleave(needed)
    grid = maps.new_zeros(len(owner), 1, length, 2)
    grid[row, 0, within % length] = torch.stack([grid_x, grid_y], 1)
    return F.grid_sample(maps[owner, None], grid, align_corners=False)[row, 0, 0, within % length]
