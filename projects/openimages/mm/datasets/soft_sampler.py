"""Drawing training images by class, between the data's own frequencies and all classes alike.

In: which images have which classes. Out: item numbers without end, the same for any number of
processes, from any place on.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
from mmdet.registry import DATA_SAMPLERS
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from projects.openimages.common.errors import ConfigError, check_number
from projects.openimages.mm.datasets.wrappers import images_by_class

_BLOCK = 4096  # draws made at once


@DATA_SAMPLERS.register_module()
class SoftClassAwareSampler(Sampler):
    """First a class, then one of its images; with a limit on how often an image comes again.

    A class of ``n`` images is drawn with a chance in proportion to ``n ** power``: 1 is the data's
    own frequency, 0 all classes alike (``ClassAwareSampler``). Alike, a class of 13 images in a
    schedule of 4.3M draws and 300 classes has each of its images drawn 1,100 times, and is learnt
    by heart; so no class is drawn more often than ``max_repeats`` times its images over the whole
    schedule, and what it does not take goes to the others.

    Draws are numbered over all processes: process ``r`` of ``w`` takes draws ``r``, ``r + w`` …, so
    their union does not depend on ``w``. A class's images come in a random order, each once before
    any comes again.

    ``ResumableTrainLoop`` tells the length of the schedule, so that it has one place in a config.

    Args:
        dataset: see :func:`images_by_class`.
        power: of the class frequencies, 0 to 1, until ``switch_at``.
        power_after: from then on.
        switch_at: the share of the schedule after which it is ``power_after``; 1 never switches.
        max_repeats: how often an image may come in the schedule because of one class; None is no
            limit.
        seed: shared by all processes; drawn where not given.

    Source: repeated sampling of rare classes as in https://arxiv.org/abs/1908.03195 and
    class-aware sampling as in https://arxiv.org/abs/1512.05830.
    """

    def __init__(self, dataset: Any, *, power: float = 0.5, power_after: float = 0.0,
                 switch_at: float = 2 / 3, max_repeats: float | None = 100,
                 seed: int | None = None) -> None:
        for name, value in (('power', power), ('power_after', power_after),
                            ('switch_at', switch_at)):
            check_number(name, value, 0, 1)
        if max_repeats is not None and max_repeats <= 0:
            raise ConfigError(f'max_repeats must be more than 0, got {max_repeats}')
        self.dataset = dataset
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        images = images_by_class(dataset)
        self._images = [np.asarray(items) for items in images.values() if len(items)]
        if not self._images:
            raise ConfigError('no image of the dataset has an instance to learn from')
        self._powers = (power, power_after)
        self._switch_at = switch_at
        self._max_repeats = np.inf if max_repeats is None else max_repeats
        self._schedule: tuple[float, list[np.ndarray]] | None = None
        self._skipped = 0

    def set_schedule(self, draws: int) -> None:
        """Say how many images are drawn in the whole schedule, by all processes."""
        counts = np.array([len(items) for items in self._images])
        self._schedule = (self._switch_at * draws, [
            np.cumsum(class_chances(counts, power, self._max_repeats / draws))[:-1]
            for power in self._powers])

    def __iter__(self) -> Iterator[int]:
        skipped, self._skipped = self._skipped, 0
        begin = skipped * self.world_size
        drawn = np.zeros(len(self._images), np.int64)
        for block in range(begin // _BLOCK):
            drawn += np.bincount(self._classes(block), minlength=len(drawn))
        orders: dict[int, tuple[int, np.ndarray]] = {}
        for block in count(begin // _BLOCK):
            for draw, label in enumerate(self._classes(block).tolist(), block * _BLOCK):
                if draw >= begin and draw % self.world_size == self.rank:
                    yield self._image(label, int(drawn[label]), orders)
                drawn[label] += 1

    def _classes(self, block: int) -> np.ndarray:
        """The classes of a block of draws, (_BLOCK,) int64."""
        if self._schedule is None:
            raise ConfigError('SoftClassAwareSampler does not know the length of the schedule; '
                              "train with train_cfg.type='ResumableTrainLoop'")
        switch, (before, after) = self._schedule
        values = np.random.default_rng((self.seed, block)).random(_BLOCK)
        draws = block * _BLOCK + np.arange(_BLOCK)
        return np.where(draws < switch, np.searchsorted(before, values, side='right'),
                        np.searchsorted(after, values, side='right'))

    def _image(self, label: int, number: int, orders: dict[int, tuple[int, np.ndarray]]) -> int:
        """The image of a class's ``number``-th draw; ``orders`` keeps each class's last order."""
        items = self._images[label]
        turn, place = divmod(number, len(items))
        if label not in orders or orders[label][0] != turn:
            rng = np.random.default_rng((self.seed, 1, label, turn))
            orders[label] = (turn, rng.permutation(items))
        return int(orders[label][1][place])

    def __len__(self) -> int:
        return len(self.dataset)

    def skip(self, num_samples: int) -> None:
        """Start the next iteration, and only that, after this process's first ``num_samples``."""
        self._skipped = num_samples

    def set_epoch(self, epoch: int) -> None:
        """Nothing: iteration-based training has one epoch, and the draws are numbered."""


def class_chances(counts: np.ndarray, power: float, repeats_a_draw: float) -> np.ndarray:
    """Chances in proportion to ``counts ** power``, none above ``counts * repeats_a_draw``.

    What the capped classes do not take is dealt out to the others in their proportion. Where not
    even all classes at their limit make up one, the limits' own proportion is taken: the data's
    frequencies.

    Args:
        counts: (C,) images of each class, more than 0.
        power: 0 to 1.
        repeats_a_draw: how much of a draw an image may get.

    Returns:
        (C,) float64 that sum to 1.
    """
    limits = counts * repeats_a_draw
    if limits.sum() <= 1:
        return counts / counts.sum()
    wanted = counts.astype(float) ** power
    capped = np.zeros(len(counts), bool)
    while True:
        left = 1 - limits[capped].sum()
        chances = np.where(capped, limits, left * wanted / wanted[~capped].sum())
        over = ~capped & (chances > limits)
        if not over.any():
            return chances / chances.sum()
        capped |= over
