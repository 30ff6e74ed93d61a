"""What the model sees: batches of the training's own loader, after all augmentation, drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmdet.structures.bbox import get_box_tensor
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed
from PIL import Image

from projects.openimages.masks import Rle, to_rles
from projects.openimages.visualization.drawing import Instances, draw_instances


def browse(cfg: Config, count: int, seed: int = 0, max_side: int = 480) -> Iterator[Image.Image]:
    """The first images of a training, in its sampler's order, with what is learnt from each.

    Ignored instances are marked; boxes without a mask are dashed, group-of boxes hatched.

    Args:
        cfg: of the training.
        count: how many images.
        seed: of sampler and augmentation.
        max_side: longer side of the pictures in pixels.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    set_random_seed(seed)
    options = {**cfg.train_dataloader, 'num_workers': 0, 'persistent_workers': False}
    options.pop('prefetch_factor', None)
    loader = Runner.build_dataloader(options, seed=seed)
    names = loader.dataset.metainfo['classes']
    for batch in loader:
        for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
            if count < 1:
                return
            yield draw_instances(as_picture(image), instances_of(sample), names,
                                 max_side=max_side, caption=describe(sample))
            count -= 1


def as_picture(image: torch.Tensor) -> np.ndarray:
    """(3, H, W) BGR, as MMDetection loads and packs it, to (H, W, 3) RGB."""
    return image.flip(0).permute(1, 2, 0).clamp(0, 255).byte().numpy()


def instances_of(sample: Any) -> Instances:
    """The instances of a packed sample, those that are ignored after the others and marked."""
    parts = [sample.gt_instances, sample.ignored_instances]
    labels, boxes, masks, group_of = [], [], [], []
    for part in parts:
        labels += part.labels.tolist()
        boxes += get_box_tensor(part.bboxes).tolist()
        masks += _masks(part)
        group_of += part.group_of.tolist() if 'group_of' in part else [False] * len(part)
    return Instances(labels, boxes, masks, group_of=group_of,
                     marked=range(len(parts[0]), len(labels)))


def _masks(part: Any) -> list[Rle | None]:
    """None for an instance of whose mask nothing is left, or that never had one."""
    if 'masks' not in part:
        return [None] * len(part)
    rles = to_rles(part.masks if hasattr(part.masks, 'rles') else part.masks.to_ndarray())
    return [rle if there else None for rle, there in zip(rles, part.masks.areas > 0, strict=True)]


def describe(sample: Any) -> str:
    """A line on what is learnt from an image and what is ignored."""
    learnt, ignored = sample.gt_instances, sample.ignored_instances
    groups = int(ignored.group_of.sum()) if 'group_of' in ignored else 0
    height, width = sample.img_shape[:2]
    flipped = ', flipped' if sample.metainfo.get('flip') else ''
    name = sample.metainfo.get('image_id', sample.metainfo.get('img_id'))
    return (f'{name}  {width}×{height}{flipped}: {len(learnt)} learnt, {len(ignored)} ignored '
            f'(!), {groups} group-of')
