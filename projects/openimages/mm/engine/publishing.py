"""A checkpoint to hand on: the weights of a training, and what is needed to use them."""

from __future__ import annotations

import hashlib
import io
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import atomic_write
from projects.openimages.mm.engine.checkpoints import read_checkpoint, weights_of

# Of the rest of MMEngine's meta, the seed and the experiment's name are the training's own.
_META = ('dataset_meta', 'CLASSES', 'cfg', 'config', 'iter', 'epoch', 'mmengine_version', 'time')


def publish(source: str | os.PathLike, out: str | os.PathLike) -> Path:
    """Write a checkpoint's weights, classes and settings, without optimiser, schedule and logs.

    Args:
        source: checkpoint of a training.
        out: ``NAME.pth``.

    Returns:
        The file: ``NAME-<first 8 hex digits of its SHA-256>.pth``, which torch's downloader can
        check. The same checkpoint gives the same file.

    Raises:
        UserError: ``out`` has another ending, or the checkpoint does not say its classes.
    """
    out = Path(out)
    if out.suffix != '.pth':
        raise UserError('expected a name that ends in .pth', path=out)
    checkpoint = read_checkpoint(source)
    meta = checkpoint.get('meta')
    meta = {name: meta[name] for name in _META if name in meta} if isinstance(meta, Mapping) else {}
    if not {'dataset_meta', 'CLASSES'} & set(meta):
        raise UserError('its meta does not say its classes: expected a checkpoint of a training',
                        path=source)
    weights = weights_of(checkpoint, source)
    state_dict = OrderedDict((name, tensor.detach().clone()) for name, tensor in weights.items())
    state_dict._metadata = getattr(weights, '_metadata', None)
    stored = io.BytesIO()  # a file's name would get into the zip, and so into the digest
    torch.save({'meta': meta, 'state_dict': state_dict}, stored)
    digest = hashlib.sha256(stored.getbuffer()).hexdigest()
    path = out.with_name(f'{out.stem}-{digest[:8]}.pth')
    with atomic_write(path, 'wb') as file:
        file.write(stored.getbuffer())
    return path
