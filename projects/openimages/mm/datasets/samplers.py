"""Samplers without end whose order can be taken up again at any iteration.

Both know ``skip``: MMEngine's convention for continuing an interrupted training at the same place.
Only item numbers are generated for that; no data is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice

import numpy as np
from mmdet.datasets.samplers import AspectRatioBatchSampler, ClassAwareSampler
from mmdet.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class InfiniteClassAwareSampler(ClassAwareSampler):
    """MMDetection's ``ClassAwareSampler``, epoch after epoch, for iteration-based training.

    Classes take turns, and in each turn one image of the class is drawn, so that a class of 20
    images is seen as often as one of 200,000. Each epoch's order depends on ``seed + epoch`` only.

    Args:
        dataset: where it has ``get_cat2imgs()``, that is used instead of a loop over all items.
        seed: shared by all processes; the runner's where not given.
        num_sample_class: images drawn each time a class has its turn.
    """

    def __init__(self, dataset, seed: int | None = None, num_sample_class: int = 1) -> None:
        super().__init__(dataset, seed=seed, num_sample_class=num_sample_class)
        if not self.valid_cat_inds:
            raise ValueError('no image of the dataset has an instance to learn from')
        self._skipped = 0

    def get_cat2imgs(self) -> dict[int, np.ndarray]:
        """Item numbers by label."""
        by_column = getattr(self.dataset, 'get_cat2imgs', None)
        return by_column() if by_column else super().get_cat2imgs()

    def __iter__(self) -> Iterator[int]:
        first, offset = divmod(self._skipped, self.num_samples)
        for epoch in count(first):
            self.epoch = epoch
            yield from islice(super().__iter__(), offset, None)
            offset = 0

    def skip(self, num_samples: int) -> None:
        """Start the next iteration after this process's first ``num_samples`` items."""
        self._skipped = num_samples

    def set_epoch(self, epoch: int) -> None:
        """Nothing: iteration-based training has one epoch, and the sampler counts its own."""


@DATA_SAMPLERS.register_module()
class ResumableAspectRatioBatchSampler(AspectRatioBatchSampler):
    """MMDetection's ``AspectRatioBatchSampler`` that can start after any number of batches.

    Portrait images are batched with portrait ones, so that less of a batch is padding. Where the
    dataset has ``is_portrait()``, no item is read to find out which is which.
    """

    _skipped = 0

    def __iter__(self) -> Iterator[list[int]]:
        return islice(self._batches(), self._skipped, None)

    def _batches(self) -> Iterator[list[int]]:
        portrait = getattr(self.sampler.dataset, 'is_portrait', None)
        if portrait is None:
            yield from super().__iter__()
            return
        flags = portrait().tolist()
        buckets: tuple[list[int], list[int]] = ([], [])
        for item in self.sampler:
            bucket = buckets[not flags[item]]
            bucket.append(item)
            if len(bucket) == self.batch_size:
                yield bucket[:]
                bucket.clear()
        rest = buckets[0] + buckets[1]
        for start in range(0, len(rest), self.batch_size):
            batch = rest[start:start + self.batch_size]
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def skip_batches(self, num_batches: int) -> None:
        """Start the next iteration after the first ``num_batches`` batches."""
        self._skipped = num_batches
