"""Where this project reaches into MMEngine, all in one place.

Written for onedl-mmengine 0.10.12. Each function says what it relies on and why it is needed.
``tests/mm/engine/test_mmengine_internals.py`` holds both against the installed package: it fails
when a new version changes what is relied on, and when it no longer needs our help.

Importing this module replaces MMEngine's loaders of checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader, IterBasedTrainLoop, Runner
from mmengine.runner import checkpoint as mmengine_checkpoint

from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine.checkpoints import local_file, read_checkpoint, weights_of


def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Stands in for MMEngine's loader of local files.

    Why: that one unpickles whatever ``weights_only=True`` refuses; ``Runner.resume`` runs the text
    of the config that the checkpoint was trained with, as Python, so that text is left out; and
    weights under ``model``, as detectron2 and others store them, are looked for in ``state_dict``
    only. Relies on: ``CheckpointLoader`` takes the loader of the prefix ``''`` for a path, and
    ``Runner.resume`` does without the text.
    """
    checkpoint = read_checkpoint(filename, map_location)
    meta = checkpoint.get('meta')
    if isinstance(meta, dict):
        meta.pop('config', None)
    weights = weights_of(checkpoint, filename)
    if weights is not checkpoint:
        checkpoint['state_dict'] = weights
    return checkpoint


def load_url(url: str, model_dir: str | None = None, map_location: Any = None,
             progress: bool = True) -> dict[str, Any]:
    """Stands in for the function with which MMEngine's other loaders fetch a file and read it.

    Why: that one unpickles what it has fetched. Relies on: the loaders for ``https://``,
    ``torchvision://`` and ``open-mmlab://`` call ``load_url`` by its name in their module.
    """
    return load_from_local(local_file(url, model_dir, progress=progress), map_location)


CheckpointLoader.register_scheme('', load_from_local, force=True)
mmengine_checkpoint.load_url = load_url


def base_files(path: str) -> Iterator[str]:
    """The config files that one inherits from, near and far.

    Why: ``Config.fromfile`` gives what they make together, not what was set in which. Relies on:
    ``Config`` finds bases by its ``_get_base_files`` and ``_get_cfg_path``.
    """
    for base in Config._get_base_files(path):
        base_path, _ = Config._get_cfg_path(base, path)
        yield base_path
        yield from base_files(base_path)


def start_where_the_sampler_is(loop: IterBasedTrainLoop) -> None:
    """Keep a resumed loop from skipping batches: its batch sampler has skipped them already.

    Why: the loop skips by loading every batch, unless the batch sampler is PyTorch's own; its
    option ``fast_forward_on_resume`` would do, but warns that the order is lost, which is not so
    here. Relies on: ``run`` calls ``dataloader_iterator.skip_iter`` before it takes a batch.
    """
    loop.dataloader_iterator.skip_iter = lambda num_iters: None


def skip_batches_of_updates(loop: IterBasedTrainLoop, batches: int) -> None:
    """Let a resumed loop skip all batches of the updates that it has made.

    Why: it takes an iteration for a batch. Relies on: as ``start_where_the_sampler_is``.
    """
    skip = loop.dataloader_iterator.skip_iter
    loop.dataloader_iterator.skip_iter = lambda updates: skip(updates * batches)


def accumulate_gradients(loop: IterBasedTrainLoop, batches: int) -> None:
    """Have the optimiser wrapper make an update after so many batches of a loop's iteration.

    Why: only when the loop has been built is known how many processes there are, and the runner has
    counted an iteration as a batch. Relies on: the wrapper reads ``_accumulative_counts``, and
    ``initialize_count_status`` may be called again before training.
    """
    wrapper = loop.runner.optim_wrapper
    if getattr(wrapper, '_accumulative_counts', None) != 1:
        raise UserError('train_cfg.images_per_update needs one optimiser that does not accumulate '
                        'by itself (optim_wrapper.accumulative_counts)')
    wrapper._accumulative_counts = batches
    wrapper.initialize_count_status(loop.runner.model, loop.iter * batches,
                                    loop.max_iters * batches)


def leave_out_metrics(runner: Runner) -> None:
    """Test without computing a metric, decided when the runner has been built.

    Why: only then is known whether an interrupted submission left images to test. Relies on: the
    evaluator asks every metric of its list ``metrics``, and is content with none.
    """
    runner.test_loop.evaluator.metrics.clear()


def join_without_gpu(cfg: Config) -> None:
    """Join the processes that ``torchrun`` started on CPUs.

    Why: MMEngine sets a CUDA device before it joins them, and wraps the model for one. Relies on:
    it joins no group where there is one, and takes ``model_wrapper_cfg`` as it is.
    """
    torch.distributed.init_process_group('gloo')
    cfg.model_wrapper_cfg = {
        'type': 'MMDistributedDataParallel', 'device_ids': None, 'broadcast_buffers': False,
        'find_unused_parameters': cfg.get('find_unused_parameters', False)}
