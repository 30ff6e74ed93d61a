"""An iteration-based training loop that goes on exactly where a checkpoint left off."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from mmdet.registry import LOOPS
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.runner import IterBasedTrainLoop

from projects.openimages.mm.engine.mmengine_internals import start_where_the_sampler_is


@LOOPS.register_module()
class ResumableTrainLoop(IterBasedTrainLoop):
    """MMEngine's loop, with the sampler order of an uninterrupted run after ``--resume``.

    MMEngine builds the sampler before it reads the checkpoint's random seed, so a run with a
    drawn seed would go on in another order; and it can skip only through a plain batch sampler.
    A seed that the config gives to the sampler stays.
    """

    def __init__(self, runner: Any, dataloader: Any, *args: Any, **options: Any) -> None:
        sampler = dataloader.get('sampler') if isinstance(dataloader, Mapping) else None
        self._own_seed = isinstance(sampler, Mapping) and sampler.get('seed') is not None
        super().__init__(runner, dataloader, *args, **options)

    def run(self) -> torch.nn.Module:
        """Train, after moving the samplers to the checkpoint's seed and iteration."""
        batch_sampler = self.dataloader.batch_sampler
        if hasattr(batch_sampler.sampler, 'set_schedule'):
            batch_sampler.sampler.set_schedule(
                self.max_iters * batch_sampler.batch_size * get_world_size())
        if self.iter:
            self._move_samplers()
        return super().run()

    def _move_samplers(self) -> None:
        batch_sampler = self.dataloader.batch_sampler
        sampler = batch_sampler.sampler
        if hasattr(sampler, 'seed') and not self._own_seed:
            sampler.seed = self.runner.seed
        if hasattr(batch_sampler, 'skip_batches'):
            batch_sampler.skip_batches(self.iter)
            start_where_the_sampler_is(self)
            print_log(f'continue after {self.iter} batches', logger='current')
        elif not hasattr(sampler, 'skip'):
            print_log(f'{type(sampler).__name__} cannot skip; the first {self.iter} batches are '
                      'loaded and thrown away', logger='current', level=logging.WARNING)
