"""Samplers whose order can be taken up again at any iteration.

They know ``skip``, MMEngine's convention for continuing an interrupted training at the same place.
Only item numbers are generated for that; no data is loaded.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import count, cycle, islice
from typing import Any

import numpy as np
from mmdet.datasets.samplers import AspectRatioBatchSampler, ClassAwareSampler
from mmdet.registry import DATA_SAMPLERS

from projects.openimages.common.errors import ConfigError
from projects.openimages.mm.datasets.wrappers import images_by_class, portrait_images


@DATA_SAMPLERS.register_module()
class InfiniteClassAwareSampler(ClassAwareSampler):
    """MMDetection's ``ClassAwareSampler``, epoch after epoch, for iteration-based training.

    Classes take turns, and in each turn one image of the class is drawn, so that a class of 20
    images is seen as often as one of 200,000. Each epoch's order depends on ``seed + epoch`` only.

    Args:
        dataset: see :func:`images_by_class`.
        seed: shared by all processes; the runner's where not given.
        num_sample_class: images drawn each time a class has its turn.
    """

    def __init__(self, dataset, seed: int | None = None, num_sample_class: int = 1) -> None:
        super().__init__(dataset, seed=seed, num_sample_class=num_sample_class)
        self.valid_cat_inds = [label for label, items in self.cat_dict.items() if len(items)]
        if not self.valid_cat_inds:
            raise ConfigError('no image of the dataset has an instance to learn from')
        self._skipped = 0

    def get_cat2imgs(self) -> dict[int, np.ndarray]:
        """Item numbers by label."""
        return images_by_class(self.dataset)

    def __iter__(self) -> Iterator[int]:
        skipped, self._skipped = self._skipped, 0
        first, offset = divmod(skipped, self.num_samples)
        for epoch in count(first):
            self.epoch = epoch
            yield from islice(super().__iter__(), offset, None)
            offset = 0

    def skip(self, num_samples: int) -> None:
        """Start the next iteration, and only that, after this process's first ``num_samples``."""
        self._skipped = num_samples

    def set_epoch(self, epoch: int) -> None:
        """Nothing: iteration-based training has one epoch, and the sampler counts its own."""


@DATA_SAMPLERS.register_module()
class ResumableAspectRatioBatchSampler(AspectRatioBatchSampler):
    """MMDetection's ``AspectRatioBatchSampler``, for several processes and from any batch on.

    Portrait images are batched with portrait ones, so that less of a batch is padding. Which
    orientation a step has is the same in all processes: the images that they draw together are
    gathered until a batch for each is there. One process alone has MMDetection's batches.

    Args:
        sampler: of whatever length; one of several processes must have MMEngine's attributes
            ``rank`` and ``world_size``.
        batch_size: images a process.
        drop_last: leave out what is left at the end of an epoch and is less than a batch.
    """

    def __init__(self, sampler: Any, batch_size: int, drop_last: bool = False) -> None:
        super().__init__(sampler, batch_size, drop_last)
        self._skipped = 0
        self._epochs_before = 0

    def __iter__(self) -> Iterator[list[int]]:
        left, self._skipped = self._skipped, 0
        batches = self._batches()
        while left:
            passed = sum(1 for _ in islice(batches, left))
            left -= passed
            if left and not passed:
                return
            if left:
                self._epochs_before += 1
                batches = self._batches()
        yield from batches

    def _batches(self) -> Iterator[list[int]]:
        """This process's batches of an epoch."""
        rank, world_size = (getattr(self.sampler, name, default)
                            for name, default in (('rank', 0), ('world_size', 1)))
        together = self.batch_size * world_size
        flags = portrait_images(self.sampler.dataset).tolist()
        buckets: tuple[list[int], list[int]] = ([], [])
        for item in self._all_items():
            bucket = buckets[not flags[item]]
            bucket.append(item)
            if len(bucket) == together:
                yield bucket[rank::world_size]
                bucket.clear()
        rest = buckets[0] + buckets[1]
        for start in range(0, len(rest), together):
            items = rest[start:start + together]
            if len(items) == together or not self.drop_last:
                missing = -len(items) % world_size
                yield [*items, *islice(cycle(items), missing)][rank::world_size]

    def _all_items(self) -> Iterator[int]:
        """An epoch's items of all processes, in the order in which they take them together."""
        sampler = copy.copy(self.sampler)
        if hasattr(sampler, 'world_size'):
            sampler.rank, sampler.world_size = 0, 1
        if hasattr(sampler, 'total_size'):
            sampler.num_samples = sampler.total_size
        if hasattr(sampler, 'skip'):
            sampler.skip(0)  # MMEngine's InfiniteSampler makes its order anew then
        if self._epochs_before and hasattr(sampler, 'set_epoch'):
            sampler.set_epoch(getattr(sampler, 'epoch', 0) + self._epochs_before)
        return iter(sampler)

    def skip_batches(self, num_batches: int) -> None:
        """Start the next iteration, and only that, after the first ``num_batches`` batches.

        Where that is more than an epoch has, the epochs go on from there.
        """
        self._skipped = num_batches
