"""Counting and naming the images that a training could not read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook

from projects.openimages.common.errors import UserError, check_number
from projects.openimages.mm.structures.samples import each_sample


@HOOKS.register_module()
class UnreadableImagesHook(Hook):
    """Names each image that cannot be read, and ends the run where there are too many.

    ``OpenImagesInstanceDataset`` puts another image in its place in training; in validation it
    counts as one without detections. What a submission does with such images is the dump's.

    Args:
        max_share: of the images so far, 0 to 1; a greater part of unreadable ones ends the run.
        allowed: so many are not too many, whatever their share: a run begins with few images.
    """

    def __init__(self, max_share: float = 0.001, allowed: int = 10) -> None:
        check_number('max_share', max_share, 0, 1)
        self.max_share = max_share
        self.allowed = allowed
        self._named: set[str] = set()
        self._counts = {'train': _Count(), 'val': _Count()}

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None,
                         outputs: Any = None) -> None:
        """Count an update's images and what was left out for them."""
        for sample in each_sample(data_batch['data_samples']):
            skipped = sample.metainfo.get('skipped_images', [])
            self._add(runner, 'train', skipped, 'another image is taken')
            if reason := sample.metainfo.get('unreadable'):
                raise UserError(f'{reason}, and so are the {len(skipped)} images that were taken '
                                'in its place', path=sample.img_path)

    def after_train(self, runner: Any) -> None:
        """Say how many they were."""
        count = self._counts['train']
        if count.unreadable:
            runner.logger.warning(f'{count.unreadable} of {count.images} training images could not '
                                  'be read')

    def before_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Count a batch."""
        for sample in each_sample(data_batch['data_samples']):
            reason = sample.metainfo.get('unreadable')
            self._add(runner, 'val', [(sample.img_path, reason)] if reason else [],
                      'it counts as one without detections')

    def before_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Count a batch, unless a submission is written of it."""
        if 'SubmissionDumpHook' not in {type(hook).__name__ for hook in runner.hooks}:
            self.before_val_iter(runner, batch_idx, data_batch)

    def _add(self, runner: Any, mode: str, found: Sequence[tuple[str, str]], what: str) -> None:
        """One image, and those that could not be read before it was found or are it."""
        count = self._counts[mode]
        count.images += max(1, len(found) + (mode == 'train'))
        count.unreadable += len(found)
        for path, reason in found:
            if path not in self._named:
                self._named.add(path)
                runner.logger.warning(f'{path}: {reason}: {what}')
        if found and count.unreadable > max(self.allowed, self.max_share * count.images):
            path, reason = found[-1]
            raise UserError(
                f'{reason}; {count.unreadable} of {count.images} images could not be read, '
                f'allowed are {self.allowed} and a share of {self.max_share} '
                '(default_hooks.unreadable_images)', path=path)


_waiting: list[tuple[str, str]] = []


def hand_on(skipped: Sequence[tuple[str, str]]) -> None:
    """Keep (path, reason) of left out images until an item of this process is packed.

    An item that is mixed from several images bears no trace of those that it was mixed with.
    """
    _waiting.extend(skipped)


def take_handed_on() -> list[tuple[str, str]]:
    """What was handed on since the last call."""
    taken = list(_waiting)
    _waiting.clear()
    return taken


@dataclass
class _Count:
    images: int = 0
    unreadable: int = 0
