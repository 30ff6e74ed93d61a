"""An image's instance masks as runs, wherever MMDetection takes its ``BitmapMasks``.

MMDetection's pipelines carry each mask as a bitmap of the whole image, scale, flip and crop those
bitmaps, and send them from a loader's process to the training process. :class:`RleMasks` has the
same methods and gives the same pixels, kept as :class:`.ColumnRuns`; mask targets are sampled from
the runs by :func:`batch_targets`. Pixels are made where somebody asks for them, and not kept.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mmcv
import numpy as np
import torch
from mmdet.structures.bbox import BaseBoxes, HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmdet.structures.mask.structures import get_offsets_hv
from torch import Tensor

from projects.openimages.masks import Rle
from projects.openimages.mm.structures.column_runs import ColumnRuns
from projects.openimages.mm.structures.mask_targets import sample_targets

_FLAGS = {'group_of': False, 'has_mask': True, 'ignore': False}


class RleMasks(BitmapMasks):
    """The masks of N instances of one image, and what is known of each instance.

    Flips, crops, padding, shifts by whole pixels and nearest-neighbour scaling give the very
    pixels of ``BitmapMasks``, after one another in any order. What mixes pixels (shear, rotation,
    other interpolation) or fills with ones is left to ``BitmapMasks``, an instance at a time;
    several at once OpenCV rounds otherwise, which changes a thousandth of the pixels, at borders.

    An instance may have a box and no mask. Its mask is empty wherever masks are asked for; the
    pixels that its box touches go along unseen, so that ``get_bboxes`` still knows where it is.

    Args:
        masks: (N, H, W) pixels, or a list of (H, W); what is not zero is set.
        height, width: of the image.
        flags: ``group_of``, ``has_mask``, ``ignore``: N bools each; False, True, False where not
            given.

    Attributes:
        group_of, has_mask, ignore: (N,) bool, which stay with their instances in every operation.
    """

    group_of: np.ndarray
    has_mask: np.ndarray
    ignore: np.ndarray

    def __init__(self, masks: np.ndarray | Sequence[np.ndarray], height: int, width: int,
                 **flags: Any) -> None:
        pixels = np.asarray(masks).reshape(len(masks), height, width)
        self._set(ColumnRuns.from_pixels(pixels), height, width, flags)

    @classmethod
    def from_rles(cls, rles: Sequence[Rle], height: int, width: int,
                  boxes: np.ndarray | None = None, **flags: Any) -> RleMasks:
        """From COCO RLE.

        Args:
            rles: N compressed RLE dicts of the image's size; ``counts`` may be text.
            boxes: (N, 4) x1, y1, x2, y2. Where they are given, an instance whose mask has no pixel
                counts as one without a mask, and its box is kept. Where not, the RLE is not looked
                into before something other than ``rles`` is asked for.
            flags: as of the class.

        Raises:
            MaskError: malformed RLE, or one of another size; where it is decoded.
        """
        masks = cls.__new__(cls)
        masks._set(list(rles), height, width, flags)
        if boxes is not None:
            masks.has_mask = masks.has_mask & (masks.areas > 0)
            if not masks.has_mask.all():
                touched = cls.from_boxes(boxes, height, width)
                masks._source = masks._runs.where(masks.has_mask, touched._runs)
        return masks

    @classmethod
    def from_boxes(cls, boxes: np.ndarray, height: int, width: int) -> RleMasks:
        """Masks of all pixels that (N, 4) boxes x1, y1, x2, y2 touch."""
        masks = cls.__new__(cls)
        runs = ColumnRuns.from_boxes(np.reshape(boxes, (-1, 4)), height, width)
        masks._set(runs, height, width, {})
        return masks

    @classmethod
    def cat(cls, masks: Sequence[RleMasks]) -> RleMasks:
        """The instances of several, all of one image size."""
        if len({(item.height, item.width) for item in masks}) != 1:
            raise ValueError('expected one or more masks of one image size, got '
                             f'{[(item.height, item.width) for item in masks]}')
        whole = cls.__new__(cls)
        source: list[Rle] | ColumnRuns
        if all(isinstance(item._source, list) for item in masks):
            source = [rle for item in masks for rle in item._source]
        else:
            source = ColumnRuns.cat([item._runs for item in masks])
        whole._set(source, masks[0].height, masks[0].width, {
            name: np.concatenate([getattr(item, name) for item in masks]) for name in _FLAGS})
        return whole

    def _set(self, source: list[Rle] | ColumnRuns, height: int, width: int,
             flags: dict[str, Any]) -> None:
        if unknown := set(flags) - set(_FLAGS):
            raise TypeError(f'unknown flags {sorted(unknown)}, expected some of {list(_FLAGS)}')
        self.height, self.width = int(height), int(width)
        self._source = source
        for name, default in _FLAGS.items():
            given = flags.get(name)
            values = np.full(len(source), default) if given is None else np.asarray(given, bool)
            if values.shape != (len(source),):
                raise ValueError(f'{name} of shape {values.shape} for {len(source)} masks')
            setattr(self, name, values)

    @property
    def _runs(self) -> ColumnRuns:
        """All instances' runs, with those of boxes without a mask."""
        if isinstance(self._source, list):
            self._source = ColumnRuns.from_rles(self._source, self.height, self.width)
        return self._source

    @property
    def _visible(self) -> ColumnRuns:
        """All masks' runs."""
        return self._runs.where(self.has_mask)

    def _changed(self, runs: ColumnRuns, height: int, width: int) -> RleMasks:
        """The same instances with other runs."""
        changed = copy.copy(self)
        changed._source, changed.height, changed.width = runs, height, width
        return changed

    def _by_pixels(self, change: Callable[[BitmapMasks], BitmapMasks], height: int,
                   width: int) -> RleMasks:
        """What ``BitmapMasks`` makes of each instance, an image of ``height`` x ``width``."""
        parts = [ColumnRuns.none(0)]
        for n in range(len(self)):
            pixels = self._runs.take(np.array([n])).to_pixels(self.height, self.width)
            changed = change(BitmapMasks(pixels, self.height, self.width))
            parts.append(ColumnRuns.from_pixels(changed.masks))
        return self._changed(ColumnRuns.cat(parts), height, width)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int | slice | Sequence | np.ndarray | Tensor) -> RleMasks:
        """Some instances; one where the index is a number."""
        if isinstance(index, Tensor):
            index = index.cpu().numpy()
        chosen = np.arange(len(self))[index].reshape(-1)
        some = copy.copy(self)
        some._source = ([self._source[n] for n in chosen] if isinstance(self._source, list)
                        else self._source.take(chosen))
        for name in _FLAGS:
            setattr(some, name, getattr(self, name)[chosen])
        return some

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each instance's pixels, (H, W) uint8."""
        return (self[n].to_ndarray()[0] for n in range(len(self)))

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(num_masks={len(self)}, height={self.height}, '
                f'width={self.width})')

    def rescale(self, scale: float | tuple[int, int], interpolation: str = 'nearest') -> RleMasks:
        """By a factor, or to the largest size within (h, w) that keeps the ratio."""
        width, height = mmcv.rescale_size((self.width, self.height), scale)
        return self.resize((height, width), interpolation)

    def resize(self, out_shape: tuple[int, int], interpolation: str = 'nearest') -> RleMasks:
        """To (h, w)."""
        height, width = out_shape
        if interpolation != 'nearest':
            return self._by_pixels(lambda masks: masks.resize(out_shape, interpolation), height,
                                   width)
        runs = self._runs.resampled(_nearest(self.height, height), _nearest(self.width, width),
                                    self.height, self.width)
        return self._changed(runs, height, width)

    def flip(self, flip_direction: str = 'horizontal') -> RleMasks:
        """``horizontal``, ``vertical`` or ``diagonal``, which is both."""
        sides = {'horizontal': (None, self.width), 'vertical': (self.height, None),
                 'diagonal': (self.height, self.width)}[flip_direction]
        return self._changed(self._runs.flipped(*sides), self.height, self.width)

    def pad(self, out_shape: tuple[int, int], pad_val: int = 0) -> RleMasks:
        """To (h, w), at the right and below."""
        height, width = out_shape
        if height < self.height or width < self.width:
            raise ValueError(f'cannot pad {self.height}x{self.width} to {height}x{width}')
        if pad_val:
            return self._by_pixels(lambda masks: masks.pad(out_shape, pad_val), height, width)
        return self._changed(self._source, height, width)

    def crop(self, bbox: np.ndarray) -> RleMasks:
        """To (4,) int x1, y1, x2, y2, cut to the image, at least a pixel wide and high."""
        limits = np.array([self.width, self.height, self.width, self.height])
        left, top, right, bottom = map(operator.index, np.clip(bbox, 0, limits).tolist())
        width, height = max(right - left, 1), max(bottom - top, 1)
        return self._changed(self._runs.window(left, top, height, width), height, width)

    def crop_and_resize(self, bboxes: np.ndarray | Tensor, out_shape: tuple[int, int],
                        inds: np.ndarray | Tensor, device: torch.device | str = 'cpu',
                        interpolation: str = 'bilinear', binarize: bool = True) -> BitmapMasks:
        """Mask targets of boxes; computed on ``device``, see :func:`batch_targets`.

        Args:
            bboxes: (P, 4) x1, y1, x2, y2.
            out_shape: rows and columns of a target.
            inds: (P,) the instance that belongs to each box.
            interpolation: not used, as in ``BitmapMasks``.
            binarize: give bools, True where a mask covers at least half of a cell.

        Returns:
            P small bitmaps, or the covered parts as float32. They differ from those of
            ``BitmapMasks`` by ``roi_align``'s rounding: less than 1e-5 of a cell on a CPU, on a
            GPU, which rounds a sample's place otherwise, as much as the last bit of a coordinate;
            so a bool only where half of the cell is covered to within as much.
        """
        if not len(self):
            return BitmapMasks(np.empty((0, *out_shape), np.uint8), *out_shape)
        targets = batch_targets([self], [torch.as_tensor(bboxes, device=device)],
                                [torch.as_tensor(inds)], out_shape)
        if binarize:
            targets = targets >= 0.5
        return BitmapMasks(targets.cpu().numpy(), *out_shape)

    def expand(self, expanded_h: int, expanded_w: int, top: int, left: int) -> RleMasks:
        """Into a larger image, this one's corner at ``left``, ``top``."""
        return self._changed(self._runs.window(-left, -top, expanded_h, expanded_w), expanded_h,
                             expanded_w)

    def translate(self, out_shape: tuple[int, int], offset: float | tuple[float, float],
                  direction: str = 'horizontal', border_value: int = 0,
                  interpolation: str = 'bilinear') -> RleMasks:
        """Shift in an image of (h, w), cut to that size before and after."""
        height, width = out_shape
        right, down = get_offsets_hv(offset, direction)
        if border_value or int(right) != right or int(down) != down:
            return self._by_pixels(lambda masks: masks.translate(
                out_shape, offset, direction, border_value, interpolation), height, width)
        runs = self._runs.window(0, 0, height, width)
        return self._changed(runs.window(-int(right), -int(down), height, width), height, width)

    def shear(self, out_shape: tuple[int, int], magnitude: float, direction: str = 'horizontal',
              border_value: int = 0, interpolation: str = 'bilinear') -> RleMasks:
        """As ``BitmapMasks``, an instance at a time."""
        return self._by_pixels(lambda masks: masks.shear(
            out_shape, magnitude, direction, border_value, interpolation), *out_shape)

    def rotate(self, out_shape: tuple[int, int], angle: float,
               center: tuple[float, float] | None = None, scale: float = 1.0,
               border_value: int = 0, interpolation: str = 'bilinear') -> RleMasks:
        """As ``BitmapMasks``, an instance at a time."""
        return self._by_pixels(lambda masks: masks.rotate(
            out_shape, angle, center, scale, border_value, interpolation), *out_shape)

    def without(self, others: RleMasks) -> RleMasks:
        """The masks without what the masks of ``others`` cover; a box without a mask stays."""
        if (self.height, self.width) != (others.height, others.width):
            raise ValueError(f'{self} and {others} are not of one image size')
        free = self._runs.without(others._visible, self.height, self.width)
        return self._changed(free.where(self.has_mask, self._runs), self.height, self.width)

    def get_bboxes(self, dst_type: str | type[BaseBoxes] = 'hbox') -> BaseBoxes:
        """Tight boxes of the masks, and the boxes of instances without one."""
        boxes = HorizontalBoxes(self._runs.boxes().astype(np.float32))
        return boxes.convert_to(dst_type)

    @property
    def areas(self) -> np.ndarray:
        """Pixels of each mask, (N,) int64."""
        return self._visible.areas()

    @property
    def rles(self) -> list[Rle]:
        """COCO compressed RLE at the current size."""
        if isinstance(self._source, list) and self.has_mask.all():
            return list(self._source)
        return self._visible.to_rles(self.height, self.width)

    @property
    def masks(self) -> np.ndarray:
        """(N, H, W) uint8, made anew each time, so not to be written into."""
        pixels = self.to_ndarray()
        pixels.flags.writeable = False
        return pixels

    @masks.setter
    def masks(self, pixels: np.ndarray) -> None:
        if pixels.shape != (len(self), self.height, self.width):
            raise ValueError(f'pixels of shape {pixels.shape} for {self}')
        self._source = ColumnRuns.from_pixels(pixels).where(self.has_mask, self._runs)

    def to_ndarray(self) -> np.ndarray:
        """(N, H, W) uint8."""
        return self._visible.to_pixels(self.height, self.width)

    def to_tensor(self, dtype: torch.dtype, device: torch.device | str) -> Tensor:
        """(N, H, W)."""
        return torch.from_numpy(self.to_ndarray()).to(device, dtype)

    def cpu(self) -> Tensor:
        """(N, H, W) bool: what ``DetInferencer`` asks of the masks where boxes are all zero."""
        return self.to_tensor(torch.bool, 'cpu')


def _nearest(old: int, new: int) -> np.ndarray:
    """(new,) int64: the pixel of ``old`` that OpenCV takes for each of ``new``.

    It is asked itself, with the pixels' numbers as an image, a byte at a time: its arithmetic may
    change, and an image has at most 65535 pixels a side (in JPEG).
    """
    numbers = np.arange(old, dtype=np.uint16)
    low, high = (mmcv.imresize(part.astype(np.uint8)[None], (new, 1), interpolation='nearest')[0]
                 for part in (numbers & 255, numbers >> 8))
    return low + 256 * high.astype(np.int64)


def batch_targets(masks: Sequence[RleMasks], boxes: Sequence[Tensor], owners: Sequence[Tensor],
                  shape: tuple[int, int]) -> Tensor:
    """Mask targets of a batch, without an image-sized array; see :func:`.sample_targets`.

    Args:
        masks: of B images.
        boxes: B tensors (P, 4) x1, y1, x2, y2 in pixels, on one device.
        owners: B tensors (P,) int, the image's instance that belongs to each box.
        shape: rows and columns of a target.

    Returns:
        (sum of P, rows, columns) float32 on the boxes' device.
    """
    counts = [len(one) for one in masks]
    first = np.repeat(np.cumsum(counts) - counts, [len(one) for one in boxes])
    sizes = np.repeat([(one.height, one.width) for one in masks], counts, axis=0)
    return sample_targets(ColumnRuns.cat([one._visible for one in masks]), sizes,
                          torch.cat(list(boxes)), torch.cat(list(owners)).cpu().numpy() + first,
                          shape)
