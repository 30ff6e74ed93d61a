"""Hooks of a training run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from projects.openimages.common.errors import UserError


@HOOKS.register_module()
class TrainingClassesHook(Hook):
    """Tells the model's losses the hierarchy and the frequencies of the training classes.

    Every part of the model with ``set_training_classes(ancestors, counts)`` gets them before the
    first iteration; they are buffers there, so a checkpoint needs no data to be tested.
    """

    priority = 'VERY_LOW'

    def before_train(self, runner: Any) -> None:
        """Hand them over."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        parts = [part for part in model.modules() if hasattr(part, 'set_training_classes')]
        if not parts:
            raise UserError('TrainingClassesHook: no part of the model asks for the classes')
        ancestors, counts = training_classes(runner.train_dataloader.dataset)
        for part in parts:
            part.set_training_classes(torch.from_numpy(ancestors), torch.from_numpy(counts))


def training_classes(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """What a training set says of its classes.

    Args:
        dataset: an ``OpenImagesInstanceDataset``, or wrappers around some with the same classes.

    Returns:
        ``ancestors`` (C, C) bool by label, ``[c, a]`` True where ``a`` is a proper ancestor of
        ``c``; ``counts`` (C,) int64 instances to learn from, those of descendants included.
    """
    inner = list(_open_images(dataset))
    if not inner:
        raise UserError('the training data have no OpenImagesInstanceDataset, whose index holds '
                        'the class hierarchy')
    ancestors = inner[0].ancestor_matrix
    own = sum(one.label_counts() for one in inner)
    return ancestors, own + ancestors.T.astype(np.int64) @ own


def _open_images(dataset: Any) -> Iterator[Any]:
    if hasattr(dataset, 'ancestor_matrix'):
        yield dataset
    else:
        for child in getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]:
            if child is not None:
                yield from _open_images(child)
