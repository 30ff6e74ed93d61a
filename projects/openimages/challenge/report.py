"""What is known of the classes, put into a challenge score.

In: a :class:`metric.ChallengeScore` and a label space. Out: the same score with names and with
means over groups of classes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from projects.openimages.labels import LabelSpace
from projects.openimages.metric import ChallengeScore

FREQUENCY_BOUNDS = (500, 5000)


def describe(score: ChallengeScore, label_space: LabelSpace,
             train_images: np.ndarray | None = None,
             bounds: tuple[int, int] = FREQUENCY_BOUNDS) -> ChallengeScore:
    """The score with the names of its classes and the groups of :func:`class_groups`.

    Example:
        >>> space = LabelSpace(('/m/0animal', '/m/0cat'), ('Animal', 'Cat'),
        ...                    ancestor_matrix=np.array([[False, False], [True, False]]))
        >>> ones = np.ones(2, int)
        >>> result = ChallengeScore(np.array([0.5, 0.25]), ones, ones, ones, ones)
        >>> describe(result, space).means
        {'mAP': 0.375, 'mAP_leaves': 0.25, 'mAP_parents': 0.5}
    """
    return replace(score, mids=label_space.mids, names=label_space.names,
                   train_images=train_images,
                   groups=class_groups(label_space, train_images, bounds))


def class_groups(label_space: LabelSpace, train_images: np.ndarray | None = None,
                 bounds: tuple[int, int] = FREQUENCY_BOUNDS) -> dict[str, np.ndarray]:
    """Groups of classes that one wants to see apart, each a (C,) bool.

    Args:
        label_space: gives ``leaves`` and ``parents``.
        train_images: (C,) int, training images in which the class has an instance; gives
            ``frequent``, ``common`` and ``rare``.
        bounds: classes with fewer training images than the first are rare, with at least the
            second frequent.
    """
    groups = {'leaves': label_space.leaves, 'parents': label_space.parents}
    if train_images is not None:
        groups['frequent'] = train_images >= bounds[1]
        groups['common'] = (train_images >= bounds[0]) & (train_images < bounds[1])
        groups['rare'] = train_images < bounds[0]
    return groups
