"""What the annotations of all classes say of those that a dataset keeps.

A class that is left out is not forgotten: by rule 1 of the challenge a box of it is one of its
ancestors', and where it is verified absent, so are its descendants.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from projects.openimages.labels import LabelSpace


class KeptClasses:
    """Labels of the K kept ones of C classes.

    Args:
        label_space: all classes.
        chosen: (K,) their class ids, in the order of the labels.

    Attributes:
        label_of_class: (C,) int64, -1 for a class left out.
        is_kept: C bools.
        nearest: of each of the C classes its own label or, where it is left out, those of its kept
            ancestors that are above no other one of them.
    """

    def __init__(self, label_space: LabelSpace, chosen: Sequence[int]) -> None:
        chosen, total = np.asarray(chosen, np.int64), label_space.num_classes
        up = label_space.ancestor_matrix | np.eye(total, dtype=bool)
        self.label_of_class = np.full(total, -1, np.int64)
        self.label_of_class[chosen] = np.arange(len(chosen))
        self.is_kept = (self.label_of_class >= 0).tolist()
        self._is_all = all(self.is_kept)
        self._above = up[:, chosen]  # (C, K): itself and its ancestors
        self._below = up.T[:, chosen]
        above_another = self._above @ label_space.ancestor_matrix[np.ix_(chosen, chosen)]
        self.nearest = [tuple(np.flatnonzero(row).tolist())
                        for row in self._above & ~above_another]

    def boxed(self, class_ids: np.ndarray) -> np.ndarray:
        """(B,) int64, ascending: labels of classes with a box, and of ancestors of one left out."""
        labels = self.label_of_class[class_ids]
        if self._is_all:
            return np.unique(labels)
        return np.union1d(labels[labels >= 0], self._reached(self._above, class_ids[labels < 0]))

    def verified(self, class_ids: np.ndarray, present: np.ndarray) -> np.ndarray:
        """(L, 2) int64 labels and whether they are present.

        Args:
            class_ids: (M,) verified in an image.
            present: (M,) 1 where present, 0 where absent.
        """
        pairs = np.stack([self.label_of_class[class_ids], present], axis=1).astype(np.int64)
        if self._is_all:
            return pairs
        left_out = pairs[:, 0] < 0
        there = self._reached(self._above, class_ids[left_out & (present == 1)])
        gone = self._reached(self._below, class_ids[left_out & (present == 0)])
        said = np.concatenate([there, gone]), np.repeat([1, 0], [len(there), len(gone)])
        return np.unique(np.concatenate([pairs[~left_out], np.stack(said, axis=1)]), axis=0)

    @staticmethod
    def _reached(reach: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
        return np.flatnonzero(reach[class_ids].any(axis=0))
