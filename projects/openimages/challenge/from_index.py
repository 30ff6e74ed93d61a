"""Ground truth for the metric from a prepared index.

In: a :class:`PreparedIndex`. Out: per image a :class:`metric.GroundTruth`, hierarchically expanded
and in the official evaluator's order, equal bit for bit to what ``csv_tables`` reads from the
TF ground-truth CSVs that belong to the index.
"""

from __future__ import annotations

import io

import numpy as np
import pandas as pd

from projects.openimages.data.index import PreparedIndex
from projects.openimages.metric import GroundTruth, join_boxes_and_masks


class IndexGroundTruth:
    """A split's ground truth, image by image; masks are read when asked for.

    Args:
        index: the split's prepared index; its label space is what the ground truth is expanded
            over.
    """

    def __init__(self, index: PreparedIndex) -> None:
        self.index = index
        self._boxes = as_the_evaluator_reads(index.boxes)

    @property
    def num_classes(self) -> int:
        return self.index.label_space.num_classes

    def image(self, row: int) -> GroundTruth:
        """The expanded ground truth of the image in a row of the index."""
        return self.image_and_sources(row)[0]

    def image_and_sources(self, row: int) -> tuple[GroundTruth, np.ndarray]:
        """The same, and of which of the image's instances each one is a repetition, (M,) int64."""
        index, space = self.index, self.index.label_space
        instances, labels = index.instance_rows(row), index.label_rows(row)
        rows, class_ids = space.expand_instances(index.class_ids[instances])
        boxes = self._boxes[instances][rows]
        group_of = index.is_group_of[instances][rows]
        masked = np.flatnonzero(index.has_mask[instances][rows])
        keys = np.column_stack((class_ids, boxes, group_of))
        box_rows, mask_rows = join_boxes_and_masks(keys, keys[masked])
        mask_of = np.append(masked, -1)[mask_rows]  # -1 stays -1
        all_masks = [*index.masks(row), None]
        _, verified = space.expand_labels(index.label_class_ids[labels],
                                          index.label_present[labels])
        truth = GroundTruth(class_ids[box_rows], boxes[box_rows], group_of[box_rows], verified,
                            [all_masks[rows[n]] if n >= 0 else None for n in mask_of.tolist()])
        return truth, rows[box_rows]


def as_the_evaluator_reads(values: np.ndarray) -> np.ndarray:
    """float64 values as they come out of a CSV, written by ``repr`` and read by pandas.

    pandas' default parser may be off by one unit in the last place; an overlap of exactly 0.5
    depends on that unit.
    """
    if not values.size:
        return np.zeros(values.shape)
    text = io.StringIO('\n'.join(map(repr, values.reshape(-1).tolist())))
    return pd.read_csv(text, header=None)[0].to_numpy(np.float64).reshape(values.shape)


def train_image_counts(index: PreparedIndex) -> np.ndarray:
    """In how many images each class has an instance with a mask, ancestors included, (C,) int64."""
    image_rows = np.repeat(np.arange(index.num_images), np.diff(index.instance_offsets))
    masked = np.flatnonzero(index.has_mask)
    rows, class_ids = index.label_space.expand_instances(index.class_ids[masked])
    num_classes = index.label_space.num_classes
    pairs = np.unique(image_rows[masked][rows] * num_classes + class_ids)
    return np.bincount(pairs % num_classes, minlength=num_classes)
