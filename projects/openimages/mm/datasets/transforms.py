"""Packing items with what Open Images knows beyond COCO: image id, verified labels, group-of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import TRANSFORMS

from projects.openimages.mm.datasets.rle_transforms import is_group_of
from projects.openimages.mm.datasets.sending import send_small_tensors_by_value
from projects.openimages.mm.datasets.unreadable import take_handed_on
from projects.openimages.mm.structures.rle_masks import RleMasks

META_KEYS = ('img_id', 'image_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip',
             'flip_direction', 'verified_labels', 'boxed_labels', 'unreadable')


@TRANSFORMS.register_module()
class PackInstances(PackDetInputs):
    """``PackDetInputs`` whose data samples carry ``image_id`` and ``verified_labels``.

    ``gt_instances`` also get ``has_mask`` (N,) bool: where the mask has a pixel left.
    ``ignored_instances`` also get ``group_of`` (I,) bool: from ``RleMasks``, or as long as the
    instances are as they were loaded, for MMDetection's transforms do not know the flag.

    Args:
        meta_keys: what goes into the data sample's metainfo, where present.
    """

    def __init__(self, meta_keys: Sequence[str] = META_KEYS) -> None:
        super().__init__(meta_keys=meta_keys)

    def transform(self, results: dict) -> dict:
        """Pack one item.

        Raises:
            ValueError: a transform has changed the boxes and not the masks.
        """
        send_small_tensors_by_value()
        masks, flags = results.get('gt_masks'), results.get('gt_ignore_flags')
        if masks is not None and len(masks) != len(results['gt_bboxes']):
            raise ValueError(f'{results.get("img_path")}: {len(masks)} masks for '
                             f'{len(results["gt_bboxes"])} boxes: one of the transforms is for '
                             'boxes only, see docs/masks.md')
        packed = super().transform(results)
        if skipped := take_handed_on():
            packed['data_samples'].set_metainfo({'skipped_images': skipped})
        instances = packed['data_samples'].gt_instances
        if masks is not None:
            instances.has_mask = torch.from_numpy(instances.masks.areas > 0)
        ignored = packed['data_samples'].ignored_instances
        if flags is not None and isinstance(masks, RleMasks):
            ignored.group_of = torch.from_numpy(ignored.masks.group_of)
        elif flags is not None and np.array_equal(
                flags, [item['ignore_flag'] for item in results['instances']]):
            group_of = np.array([is_group_of(item) for item in results['instances']], bool)
            ignored.group_of = torch.from_numpy(group_of[np.asarray(flags, bool)])
        return packed
