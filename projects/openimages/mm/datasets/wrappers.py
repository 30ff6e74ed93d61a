"""What samplers ask of a data set, also where it is wrapped: classes by image, and orientation.

``ConcatDataset``, ``RepeatDataset`` and MMDetection's other wrappers hand on single items only. In:
any nesting of them around ``OpenImagesInstanceDataset``, which answers by column, and others such
as ``CocoDataset``, whose items are read one by one. Labels of all must mean the same classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def images_by_class(dataset: Any) -> dict[int, np.ndarray]:
    """Item numbers by label, ascending: the images with an instance of that class to learn."""
    if hasattr(dataset, 'get_cat2imgs'):
        return dataset.get_cat2imgs()
    if (inner := _inner_items(dataset)) is None:
        found: dict[int, list[int]] = {}
        for item in range(len(dataset)):
            for label in set(dataset.get_cat_ids(item)):
                found.setdefault(label, []).append(item)
        return {label: np.array(found[label]) for label in sorted(found)}
    parts: dict[int, list[np.ndarray]] = {}
    start = 0
    for child, items in inner:
        for label, chosen in images_by_class(child).items():
            there = np.zeros(len(child), bool)
            there[chosen] = True
            parts.setdefault(label, []).append(start + np.flatnonzero(there[items]))
        start += len(items)
    return {label: np.concatenate(parts[label]) for label in sorted(parts)}


def portrait_images(dataset: Any) -> np.ndarray:
    """(len,) bool: images that are higher than wide."""
    if hasattr(dataset, 'is_portrait'):
        return dataset.is_portrait()
    if (inner := _inner_items(dataset)) is None:
        infos = (dataset.get_data_info(item) for item in range(len(dataset)))
        return np.array([info['width'] < info['height'] for info in infos], bool)
    return np.concatenate([portrait_images(child)[items] for child, items in inner])


def _inner_items(dataset: Any) -> list[tuple[Any, np.ndarray]] | None:
    """The wrapped data sets, each with its items in the wrapper's order; None if it is none."""
    if hasattr(dataset, 'datasets'):
        return [(child, np.arange(len(child))) for child in dataset.datasets]
    if not hasattr(dataset, 'dataset'):
        return None
    child = dataset.dataset
    if hasattr(dataset, 'repeat_indices'):  # ClassBalancedDataset
        return [(child, np.asarray(dataset.repeat_indices, np.int64))]
    return [(child, np.arange(len(dataset)) % max(len(child), 1))]
