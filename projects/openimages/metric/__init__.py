"""How the Open Images instance-segmentation challenge is scored.

In: per image, ground truth and detections as arrays and COCO RLEs. Out: what became of every
detection, and from all images together precision, recall and average precision per class.

The numbers are those of the TF Object Detection API's ``oid_challenge_evaluation.py``, ties and
rounding included, so array order, number types and sort calls here are part of the rule:

1. Ground truth is expanded over the hierarchy: each instance and positive label is repeated for
   every ancestor class, each negative label for every descendant (``labels.LabelSpace``), and
   boxes and masks are joined and ordered as the evaluator joins them (:func:`join_boxes_and_masks`
   in ``ordering``).
2. A detection counts only where its class is verified in the image, by an image label of either
   sign or by an instance; others are dropped (:func:`match_images`).
3. A detection's box is the tight box of its mask; an empty mask is dropped (:func:`measure`).
4. In descending score, each detection goes to the instance mask of its class with the largest
   IoU. From 0.5 on it takes it, true positive, if it is still free; it looks for no second best.
5. Group-of instances with a mask absorb what is left from an intersection of 0.5 of the
   detection's own area; all that one absorbs is one true positive with the highest score.
6. What is left goes to the boxes without masks in the same two ways, by box overlaps; what they
   take is ignored. (In box evaluation there are only boxes, and what they take counts.)
7. Average precision of a class is the area under precision, made non-increasing from the right,
   over recall; mAP is the mean over the classes that have instances with masks
   (:func:`precision_recall`, :func:`average_precision`, :func:`score`).

Class ids are 0-based. Boxes are ``XMin, XMax, YMin, YMax`` in 0..1 of the image.

Example:
    >>> import numpy as np
    >>> from projects.openimages.masks import rle_from_mask
    >>> cat = np.zeros((4, 8), bool)
    >>> cat[:, :4] = True
    >>> truth = GroundTruth(class_ids=np.array([0]), boxes=np.array([[0.0, 0.5, 0.0, 1.0]]),
    ...                     is_group_of=np.array([False]), verified=np.array([0, 1]),
    ...                     masks=[rle_from_mask(cat)])
    >>> found = Detections(class_ids=np.array([0, 1]), scores=np.array([0.9, 0.8]),
    ...                    masks=[rle_from_mask(cat), rle_from_mask(~cat)])
    >>> matches, = match_image(truth, found)
    >>> matches.outcome.tolist() == [TRUE, FALSE]
    True
    >>> score(matches, count_positives(truth, num_classes=2)).mean_average_precision
    1.0
"""

from projects.openimages.metric.matching import OFFICIAL_THRESHOLD, match_image, match_images
from projects.openimages.metric.ordering import join_boxes_and_masks
from projects.openimages.metric.overlaps import MeasuredMasks, measure
from projects.openimages.metric.records import (
    DROPPED,
    FALSE,
    IGNORED,
    TRUE,
    Detections,
    GroundTruth,
    Matches,
)
from projects.openimages.metric.results import SORT_KEYS, ChallengeScore, mean_over
from projects.openimages.metric.scoring import (
    average_precision,
    count_positives,
    per_class,
    precision_recall,
    score,
)

__all__ = [
    'DROPPED',
    'FALSE',
    'IGNORED',
    'OFFICIAL_THRESHOLD',
    'SORT_KEYS',
    'TRUE',
    'ChallengeScore',
    'Detections',
    'GroundTruth',
    'Matches',
    'MeasuredMasks',
    'average_precision',
    'count_positives',
    'join_boxes_and_masks',
    'match_image',
    'match_images',
    'mean_over',
    'measure',
    'per_class',
    'precision_recall',
    'score',
]
