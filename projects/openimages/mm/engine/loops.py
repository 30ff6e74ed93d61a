"""An iteration-based training loop whose iterations are updates, and that resumes exactly."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.registry import LOOPS
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.runner import IterBasedTrainLoop
from torch import Tensor

from projects.openimages.mm.engine.mmengine_internals import (
    accumulate_gradients,
    skip_batches_of_updates,
    start_where_the_sampler_is,
)
from projects.openimages.mm.engine.recipe_size import batches_per_update


@LOOPS.register_module()
class ResumableTrainLoop(IterBasedTrainLoop):
    """MMEngine's loop, with iterations of a given number of images, on whatever GPUs.

    An iteration takes as many batches as it needs to see ``images_per_update`` images, accumulates
    their gradients and ends with the one update. So all that is counted in iterations (the length
    of the training, milestones, warm-up, intervals of validation and checkpoints) is the same on
    one GPU as on eight. MMEngine's own accumulation counts batches instead, and moves the learning
    rate with each.

    After ``--resume`` the sampler goes on in the order of an uninterrupted run. MMEngine builds the
    sampler before it reads the checkpoint's random seed, so a run with a drawn seed would go on in
    another order; and it can skip only through a plain batch sampler. A seed that the config gives
    to the sampler stays.

    Args:
        runner, dataloader, options: as in ``IterBasedTrainLoop``.
        images_per_update: over all processes; None takes one batch of each.

    Raises:
        UserError: batches of all processes do not make up ``images_per_update``.
    """

    def __init__(self, runner: Any, dataloader: Any, *args: Any,
                 images_per_update: int | None = None, **options: Any) -> None:
        sampler = dataloader.get('sampler') if isinstance(dataloader, Mapping) else None
        self._own_seed = isinstance(sampler, Mapping) and sampler.get('seed') is not None
        super().__init__(runner, dataloader, *args, **options)
        loader = self.dataloader
        self._batch_size = loader.batch_size or loader.batch_sampler.batch_size
        self._batches = batches_per_update(images_per_update, self._batch_size, get_world_size())

    def run(self) -> torch.nn.Module:
        """Train, after moving the samplers to the checkpoint's seed and iteration."""
        if self._batches > 1:
            accumulate_gradients(self, self._batches)
            print_log(f'an iteration takes {self._batches} batches of {self._batch_size} images '
                      'from each process and makes one update', logger='current')
        sampler = self.dataloader.batch_sampler.sampler
        if hasattr(sampler, 'set_schedule'):
            sampler.set_schedule(
                self.max_iters * self._batches * self._batch_size * get_world_size())
        if self.iter:
            self._move_samplers()
        return super().run()

    def run_iter(self, data_batch: Any) -> None:
        """One update, from its first batch on.

        Hooks see the first batch before it, and all its images and the mean of its losses after.
        """
        self.runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=data_batch)
        batches, outputs = [data_batch], []
        for number in range(self._batches):
            if number:  # one by one, so that loading goes on beside training
                batches.append(next(self.dataloader_iterator))
            outputs.append(self.runner.model.train_step(
                batches[-1], optim_wrapper=self.runner.optim_wrapper))
        self.runner.call_hook('after_train_iter', batch_idx=self._iter,
                              data_batch=_together(batches), outputs=_mean(outputs))
        self._iter += 1

    def _move_samplers(self) -> None:
        batch_sampler = self.dataloader.batch_sampler
        sampler = batch_sampler.sampler
        if hasattr(sampler, 'seed') and not self._own_seed:
            sampler.seed = self.runner.seed
        done = self.iter * self._batches
        if hasattr(batch_sampler, 'skip_batches'):
            batch_sampler.skip_batches(done)
            start_where_the_sampler_is(self)
            print_log(f'continue after {done} batches', logger='current')
            return
        skip_batches_of_updates(self, self._batches)
        if not hasattr(sampler, 'skip'):
            print_log(f'{type(sampler).__name__} cannot skip; the first {done} batches are '
                      'loaded and thrown away', logger='current', level=logging.WARNING)


def _together(batches: Sequence[Any]) -> Any:
    """Batches of lists as one of longer lists; of other batches the last."""
    first = batches[0]
    if len(batches) == 1 or not (isinstance(first, dict) and all(
            isinstance(value, list) for value in first.values())):
        return batches[-1]
    return {key: [item for batch in batches for item in batch[key]] for key in first}


def _mean(outputs: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    if len(outputs) == 1:
        return outputs[0]
    names = dict.fromkeys(name for output in outputs for name in output)
    return {name: torch.stack([torch.as_tensor(output[name]).detach() for output in outputs
                               if name in output]).float().mean() for name in names}
