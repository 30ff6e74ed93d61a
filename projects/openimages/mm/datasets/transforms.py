"""Packing items with what Open Images knows beyond COCO: image id, verified labels, group-of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import TRANSFORMS

META_KEYS = ('img_id', 'image_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip',
             'flip_direction', 'verified_labels', 'unreadable')


@TRANSFORMS.register_module()
class PackInstances(PackDetInputs):
    """``PackDetInputs`` whose data samples carry ``image_id`` and ``verified_labels``.

    ``ignored_instances`` also get ``group_of`` (I,) bool, as long as no transform has removed
    instances: MMDetection's transforms do not know the flag and cannot keep it in step.

    Args:
        meta_keys: what goes into the data sample's metainfo, where present.
    """

    def __init__(self, meta_keys: Sequence[str] = META_KEYS) -> None:
        super().__init__(meta_keys=meta_keys)

    def transform(self, results: dict) -> dict:
        """Pack one item."""
        packed = super().transform(results)
        flags = results.get('gt_ignore_flags')
        if flags is not None and len(flags) == len(results['instances']):
            group_of = np.array([item['group_of'] for item in results['instances']], bool)
            ignored = packed['data_samples'].ignored_instances
            ignored.group_of = torch.from_numpy(group_of[np.asarray(flags, bool)])
        return packed
