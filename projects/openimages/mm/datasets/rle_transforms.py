"""Loading masks as ``RleMasks``, and MMDetection's transforms that would not take or keep them.

The other transforms of MMDetection need no help; docs/masks.md lists what each does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mmdet.datasets.transforms import CopyPaste, FilterAnnotations, LoadAnnotations, RandomErasing
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import autocast_box_type
from pycocotools import mask as coco_mask

from projects.openimages.common.errors import ConfigError
from projects.openimages.masks import MaskError, Rle
from projects.openimages.mm.structures.rle_masks import RleMasks

_KEYS = ('gt_bboxes', 'gt_bboxes_labels', 'gt_masks', 'gt_ignore_flags')


@TRANSFORMS.register_module()
class LoadRleAnnotations(LoadAnnotations):
    """``LoadAnnotations`` that makes no bitmaps: ``gt_masks`` are ``RleMasks``.

    An instance whose mask has no pixel has a box only, ``has_mask`` False.

    Args:
        with_mask: load masks.
        options: the other arguments of ``LoadAnnotations``, but for ``poly2mask``.
    """

    def __init__(self, with_mask: bool = True, **options: Any) -> None:
        if 'poly2mask' in options:
            raise ConfigError('LoadRleAnnotations has no poly2mask: masks are run lengths')
        super().__init__(with_mask=with_mask, **options)

    def _load_masks(self, results: dict) -> None:
        height, width = results['ori_shape']
        rles = [_to_rle(mask, height, width) for mask in self._process_masks(results)]
        instances = results.get('instances', [])
        try:
            results['gt_masks'] = RleMasks.from_rles(
                rles, height, width, boxes=[item['bbox'] for item in instances],
                group_of=[is_group_of(item) for item in instances],
                ignore=results['gt_ignore_flags'])
        except MaskError as error:
            raise MaskError(f'{results["img_path"]}: {error}') from None


def is_group_of(instance: dict) -> bool:
    """Whether an item's instance stands for several objects; COCO's ignored ones, crowds, do."""
    return bool(instance.get('group_of', instance['ignore_flag']))


def _to_rle(mask: list | dict, height: int, width: int) -> Rle:
    """COCO's three ways to write a mask: polygons, run lengths, compressed run lengths."""
    if isinstance(mask, list):
        return coco_mask.merge(coco_mask.frPyObjects(mask, height, width))
    if isinstance(mask['counts'], list):
        return coco_mask.frPyObjects(mask, height, width)
    return mask


@TRANSFORMS.register_module()
class RleFilterAnnotations(FilterAnnotations):
    """``FilterAnnotations`` that filters instances without a mask by their box only."""

    @autocast_box_type()
    def transform(self, results: dict) -> dict | None:
        """Filter one item; None if nothing is left and ``keep_empty``."""
        boxes, masks = results['gt_bboxes'], results['gt_masks']
        keep = np.ones(len(masks), bool)
        if self.by_box:
            width, height = self.min_gt_bbox_wh
            keep &= ((boxes.widths > width) & (boxes.heights > height)).numpy()
        if self.by_mask:
            keep &= (masks.areas >= self.min_gt_mask_area) | ~masks.has_mask
        if self.keep_empty and len(keep) and not keep.any():
            return None
        results.update(_take(results, keep))
        return results


@TRANSFORMS.register_module()
class RleCopyPaste(CopyPaste):
    """``CopyPaste`` that keeps ``RleMasks``, and the boxes without a mask.

    MMDetection's own gives bitmaps, and an image of int64. It drops an image's boxes without a mask
    and appends those of the image it pastes from, though there is nothing to paste.

    Args:
        max_num_pasted, bbox_occluded_thr, mask_occluded_thr, selected: as of ``CopyPaste``.
    """

    def __init__(self, max_num_pasted: int = 100, bbox_occluded_thr: int = 10,
                 mask_occluded_thr: int = 300, selected: bool = True) -> None:
        super().__init__(max_num_pasted, bbox_occluded_thr, mask_occluded_thr, selected)

    def _copy_paste(self, dst_results: dict, src_results: dict) -> dict:
        source = _take(src_results, src_results['gt_masks'].has_mask)
        pasted = source['gt_masks']
        if not len(pasted):
            return dst_results
        old_boxes = dst_results['gt_bboxes']
        masks = dst_results['gt_masks'].without(pasted)
        boxes = masks.get_bboxes(type(old_boxes))
        boxes.tensor[~masks.has_mask] = old_boxes.tensor[~masks.has_mask]
        moved = (boxes.tensor - old_boxes.tensor).abs().amax(1).numpy()
        dst_results.update(gt_bboxes=boxes, gt_masks=masks)
        kept = _take(dst_results, (moved <= self.bbox_occluded_thr)
                     | (masks.areas > self.mask_occluded_thr))
        image = RleMasks.from_boxes([[0, 0, masks.width, masks.height]], masks.height, masks.width)
        [free] = image.without(pasted)
        dst_results['img'] = np.where(free[:, :, None], dst_results['img'], src_results['img'])
        dst_results['gt_bboxes'] = boxes.cat([kept['gt_bboxes'], source['gt_bboxes']])
        dst_results['gt_masks'] = masks.cat([kept['gt_masks'], pasted])
        for key in ('gt_bboxes_labels', 'gt_ignore_flags'):
            dst_results[key] = np.concatenate([kept[key], source[key]])
        return dst_results


@TRANSFORMS.register_module()
class RleRandomErasing(RandomErasing):
    """``RandomErasing`` on ``RleMasks``; MMDetection's own writes into bitmaps.

    Args:
        options: the arguments of ``RandomErasing``; ``mask_border_value`` must be 0.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.mask_border_value != 0:
            raise ConfigError(f'mask_border_value must be 0, got {self.mask_border_value}')

    def _transform_masks(self, results: dict, patches: np.ndarray) -> None:
        masks = results['gt_masks']
        erased = RleMasks.from_boxes(patches, masks.height, masks.width)
        results['gt_masks'] = masks.without(erased)


def _take(results: dict, keep: np.ndarray) -> dict:
    """What an item says of its instances, of those where (N,) bool is True."""
    return {key: results[key][keep] for key in _KEYS if key in results}
