"""How many images an update sees, and the learning rate that goes with them.

A config's schedule and learning rate belong together with a number of images an update,
``auto_scale_lr.base_batch_size``. Where a machine's GPUs do not take so many at once, either their
gradients are accumulated (``train_cfg.images_per_update``) or the learning rate is scaled.
"""

from __future__ import annotations

from mmengine.config import Config

from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine.options import is_a


def batches_per_update(images: int | None, batch_size: int, processes: int) -> int:
    """Batches that each process takes for an update of so many images; None takes one.

    Raises:
        UserError: whole batches do not make up ``images``.
    """
    if images is None:
        return 1
    at_once = batch_size * processes
    if images < 1 or images % at_once:
        raise UserError(f'{images} images an update cannot be made up of batches of {batch_size} '
                        f'on {processes} processes ({at_once} at once); change '
                        '--images-per-update or train_dataloader.batch_size')
    return images // at_once


def set_images_per_update(cfg: Config, images: int | None) -> None:
    """Accumulate gradients until an update has seen so many images.

    Args:
        cfg: changed in place.
        images: None: as many as the config's learning rate is for.

    Raises:
        UserError: the config does not say how many, accumulates already, or has another loop.
    """
    if images is None:
        images = _base(cfg)
        if images is None:
            raise UserError('--images-per-update needs a number: the config has no '
                            'auto_scale_lr.base_batch_size')
    if cfg.optim_wrapper.get('accumulative_counts', 1) != 1:
        raise UserError('--images-per-update and optim_wrapper.accumulative_counts would both '
                        'accumulate: give one of them')
    if not is_a(cfg.train_cfg, 'ResumableTrainLoop'):
        raise UserError('--images-per-update needs train_cfg.type=ResumableTrainLoop')
    cfg.train_cfg.images_per_update = images


def scale_learning_rate(cfg: Config, processes: int) -> str:
    """Scale the learning rate to the images of an update, accumulated ones included.

    MMEngine's own ``auto_scale_lr`` leaves accumulation out, so it is switched off.

    Returns:
        A line about it.
    """
    base, images = _base(cfg), images_per_update(cfg, processes)
    if base is None:
        raise UserError('--auto-scale-lr needs a config with auto_scale_lr.base_batch_size')
    optimizer = cfg.optim_wrapper.get('optimizer') or {}
    if 'lr' not in optimizer:
        raise UserError('--auto-scale-lr needs a config with optim_wrapper.optimizer.lr')
    optimizer.lr *= images / base
    cfg.auto_scale_lr.enable = False
    return f'learning rate {optimizer.lr:g}, for {images} images an update instead of {base}'


def unfit_learning_rate(cfg: Config, processes: int) -> str:
    """A line that says so where the learning rate is for updates of another size; else ``''``."""
    base, images = _base(cfg), images_per_update(cfg, processes)
    if base in (None, images):
        return ''
    return (f'warning: an update sees {images} images, and the learning rate is for {base}: '
            f'--images-per-update {base} accumulates so many, --auto-scale-lr scales the rate')


def images_per_update(cfg: Config, processes: int) -> int:
    """How many images an update sees, over all processes."""
    at_once = cfg.train_dataloader.get('batch_size', 1) * processes
    accumulated = at_once * cfg.optim_wrapper.get('accumulative_counts', 1)
    return cfg.train_cfg.get('images_per_update') or accumulated


def _base(cfg: Config) -> int | None:
    return (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
