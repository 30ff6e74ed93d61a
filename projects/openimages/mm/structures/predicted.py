"""What a detector gives for an image, with masks whatever the detector."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.structures import InstanceData

from projects.openimages.common.errors import UserError
from projects.openimages.mm.structures.rle_masks import RleMasks


def instances_of(sample: Mapping[str, Any] | Any) -> Mapping[str, Any] | InstanceData:
    """A tested sample's ``pred_instances``, with masks: its boxes where the detector gives none.

    Args:
        sample: a ``DetDataSample``, or a dict of one, with ``ori_shape``.

    Raises:
        UserError: it has none, such as a panoptic segmentation.
    """
    found = sample.get('pred_instances')
    if found is None:
        raise UserError('the detector gives no pred_instances; if it is a panoptic one, set '
                        'model.test_cfg.instance_on=True')
    if 'masks' in found:
        return found
    _say_once('the detector gives no masks: its boxes are taken for them')
    boxes = torch.as_tensor(found['bboxes']).detach().float().cpu().numpy()
    shape = sample.ori_shape if hasattr(sample, 'ori_shape') else sample['ori_shape']
    names = found.keys()
    return {**{name: found[name] for name in names},
            'masks': RleMasks.from_boxes(boxes, *shape[:2])}


@functools.cache
def _say_once(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)
