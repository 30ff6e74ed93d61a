"""One image's detections from several views of it, merged after the detector has decided.

For detectors whose views cannot share proposals (cascades, one-stage and query detectors). Flipped
views are turned back; then masks of one class are fused as those of several models are, by
weighted boxes fusion on masks (:mod:`projects.openimages.submissions.merge_masks`): a detection's
score is the mean over the views, a view that lacks it counting 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from projects.openimages.masks import Rle, area, to_rles
from projects.openimages.mm.structures.predicted import instances_of
from projects.openimages.mm.structures.rle_masks import RleMasks
from projects.openimages.submissions.merge_masks import MergeOptions, merge_class


def merge_views(views: Sequence[DetDataSample], max_per_img: int | None = None) -> DetDataSample:
    """The first view's sample with the detections of all.

    Boxes are those of the masks; a detection whose mask is empty is left out, as in the score.

    Args:
        views: of one image, each with ``pred_instances`` at the image's own size: ``labels``,
            ``scores`` and ``masks`` of any kind; and ``flip``, ``flip_direction`` in the metainfo.
        max_per_img: detections at most, the best ones.
    """
    height, width = views[0].ori_shape[:2]
    rles: list[Rle] = []
    for view in views:
        rles += turned_back(view, height, width)
    found = [view.pred_instances for view in views]
    labels, scores = (torch.cat([one[name] for one in found]).cpu()
                      for name in ('labels', 'scores'))
    of_view = np.repeat(np.arange(len(views)), [len(one.labels) for one in found])
    there = area(rles) > 0 if rles else np.zeros(0, bool)
    options = MergeOptions('wbf', (1.0,) * len(views))
    masks: list[Rle] = []
    parts: list[tuple[np.ndarray, int]] = []
    for label in np.unique(labels.numpy()[there]).tolist():
        rows = np.flatnonzero(there & (labels.numpy() == label))
        merged = merge_class([rles[row] for row in rows], scores.double().numpy()[rows],
                             of_view[rows], options)
        masks += merged.masks
        parts.append((merged.scores, label))
    merged_scores = np.concatenate([part for part, _ in parts]) if parts else np.zeros(0)
    best = np.argsort(-merged_scores, kind='stable')[:max_per_img]
    merged_labels = np.repeat([label for _, label in parts], [len(part) for part, _ in parts])
    kept = RleMasks.from_rles([masks[row] for row in best], height, width)
    device = found[0].labels.device
    views[0].pred_instances = InstanceData(
        bboxes=kept.get_bboxes().tensor.to(device), masks=kept,
        scores=torch.from_numpy(merged_scores[best]).float().to(device),
        labels=torch.from_numpy(merged_labels[best].astype(np.int64)).to(device))
    return views[0]


def turned_back(view: DetDataSample, height: int, width: int) -> list[Rle]:
    """A view's masks as they lie in the image."""
    masks = RleMasks.from_rles(to_rles(instances_of(view)['masks']), height, width)
    if view.metainfo.get('flip', False):
        masks = masks.flip(view.flip_direction)
    return masks.rles
