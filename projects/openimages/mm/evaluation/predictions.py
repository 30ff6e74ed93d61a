"""A model's predictions for one image: as the metric scores and the submission has them, as drawn.

The one place that knows how a model gives labels, scores, boxes and masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.structures import InstanceData

from projects.openimages.labels import LabelSpace
from projects.openimages.masks import Rle, to_rles
from projects.openimages.submissions.selection import Selection, select_detections
from projects.openimages.visualization.drawing import Instances


def classes_of_labels(label_space: LabelSpace, metainfo: Mapping[str, Any] | None) -> np.ndarray:
    """(L,) int64 class id of each of the model's labels: a dataset may leave out classes.

    Args:
        label_space: all classes of the index.
        metainfo: the dataset's; without ``mids`` it has all classes.
    """
    mids = (metainfo or {}).get('mids', label_space.mids)
    return np.array([label_space.class_id(mid) for mid in mids], np.int64)


def select_predictions(predictions: InstanceData | Mapping[str, Any], class_of_label: np.ndarray,
                       label_space: LabelSpace, *, score_thr: float, max_per_img: int | None,
                       expand_hierarchy: bool) -> tuple[Selection, list[Rle]]:
    """Threshold, cap and expansion, the same for the metric as for the submission.

    Args:
        predictions: ``labels`` (N,), ``scores`` (N,), and ``masks``: N RLEs or (N, H, W) pixels.
        class_of_label: from :func:`classes_of_labels`.
        label_space: whose hierarchy to expand over.
        score_thr, max_per_img, expand_hierarchy: as in ``OpenImagesChallengeMetric``.

    Returns:
        The detections that stand, and the masks of all N predictions.
    """
    masks = to_rles(predictions['masks'])
    labels = predictions['labels'].cpu().numpy()
    scores = predictions['scores'].float().cpu().numpy()  # mixed precision may give half
    chosen = select_detections(
        class_of_label[labels], scores, [mask['counts'] for mask in masks], score_thr=score_thr,
        max_per_img=max_per_img, label_space=label_space if expand_hierarchy else None)
    return chosen, masks


def to_instances(predictions: InstanceData,
                 class_of_label: np.ndarray | None = None) -> Instances:
    """The predictions for drawing; labels stay the model's where ``class_of_label`` is None."""
    found = predictions.cpu()
    labels = found.labels.numpy()
    masks = to_rles(found.masks) if 'masks' in found else None
    return Instances(labels if class_of_label is None else class_of_label[labels],
                     found.bboxes.float().numpy(), masks, found.scores.float().numpy())
