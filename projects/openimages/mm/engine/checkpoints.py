"""Checkpoints, read without running what is in them.

A checkpoint is a pickle, and a pickle can run any program. :func:`read_checkpoint` lets through
tensors, plain values, and what MMEngine itself stores to go on with a training (log histories).
``mmengine_internals`` makes MMEngine read its checkpoints in the same way.

In: a file. Out: a dict with weights in it, or one line that says what is wrong with the file.
"""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from torch import Tensor, nn

from projects.openimages.common.errors import UserError


def _history_method(owner: type, name: str) -> Any:
    """Stands in for ``getattr``, by which MMEngine's histories store their own methods."""
    if owner is not HistoryBuffer or name.startswith('_'):
        raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not allowed')
    return getattr(HistoryBuffer, name)


SAFE_GLOBALS = [
    (_history_method, 'builtins.getattr'), HistoryBuffer, np.ndarray, np.dtype,
    np._core.multiarray._reconstruct, np._core.multiarray.scalar,
    *(type(np.dtype(name)) for name in ('bool', 'int32', 'int64', 'uint32', 'uint64', 'float32',
                                        'float64'))]


def read_checkpoint(path: str | os.PathLike, map_location: Any = 'cpu') -> dict[str, Any]:
    """Read a checkpoint file from any source.

    Args:
        path: a file that ``torch.save`` wrote.
        map_location: as in ``torch.load``.

    Raises:
        UserError: no such file, a bare pickle, half a file, one that asks for other code, or one
            without weights.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError('no such file (the checkpoint)', path=path)
    if path.suffix in ('.pkl', '.pickle'):
        raise UserError('a bare pickle can run any program and is not read; convert it with the '
                        'program that made it', path=path)
    with safe_loading(path):
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    weights_of(checkpoint, path)
    return checkpoint


@contextmanager
def safe_loading(source: str | os.PathLike) -> Iterator[None]:
    """``torch.load(..., weights_only=True)`` inside takes what MMEngine stores and nothing else.

    Raises:
        UserError: ``source`` asks for other code, or is not a whole checkpoint.
    """
    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            yield
    except pickle.UnpicklingError as error:
        found = re.search(r'Unsupported (?:global|class)[^`\w]*(?:GLOBAL)?\s*`?([\w.]+)',
                          str(error))
        asked = f' ({found[1]})' if found else ''
        raise UserError(f'not a checkpoint of tensors and plain values{asked}; it is not read, '
                        'because loading it could run any program', path=source) from None
    except (RuntimeError, EOFError, KeyError, zipfile.BadZipFile, ValueError):
        # torch's own words for these ("Invalid magic number", a bare KeyError) help nobody.
        raise UserError('not a whole checkpoint: cut short, or another kind of file',
                        path=source) from None


def weights_of(checkpoint: Any, path: str | os.PathLike | None = None) -> Mapping[str, Tensor]:
    """The weights in a checkpoint: under ``state_dict`` or ``model``, or the whole of it.

    Args:
        checkpoint: whatever a checkpoint file held.
        path: named in the error.

    Raises:
        UserError: they are not a dict of names and tensors, or there are none.
    """
    place = 'the checkpoint'
    weights = checkpoint
    if isinstance(checkpoint, Mapping):
        key = next((name for name in ('state_dict', 'model') if name in checkpoint), None)
        if key is not None:
            place, weights = f'its {key}', checkpoint[key]
    if not isinstance(weights, Mapping) or not weights:
        what = 'empty' if isinstance(weights, Mapping) else f'of type {type(weights).__name__}'
        raise UserError(f'{place} is {what}, expected names and tensors', path=path)
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UserError(f'{place} has {name!r}: {type(value).__name__}, expected names and '
                            'tensors', path=path)
    return weights


def check_class_count(model: nn.Module, weights: Mapping[str, Tensor],
                      path: str | os.PathLike) -> None:
    """A UserError if weights that were read from ``path`` are for other classes than the model.

    MMEngine would leave the classifier as it was initialised and go on. How many outputs a class
    count means is the loss's affair (a softmax has one more, Seesaw's two, sigmoids may have none),
    so the model's own layers are compared.
    """
    for name, head in model.named_modules():
        weight = weights.get(f'{name}.fc_cls.weight')
        if weight is None or len(weight) == len(head.fc_cls.weight):
            continue
        others = len(head.fc_cls.weight) - head.num_classes
        trained = len(weight) - others
        if abs(trained - head.num_classes) <= _OUTPUTS_THAT_ARE_NO_CLASSES:
            raise UserError(f'its classifier has {len(weight)} outputs and the config\'s '
                            f'{head.num_classes + others}: trained with another loss, so test it '
                            'with the config that it was trained with', path=path)
        raise UserError(f'trained for {trained} classes, the config is for {head.num_classes}: '
                        f'set --cfg-options num_classes={trained}', path=path)


_OUTPUTS_THAT_ARE_NO_CLASSES = 2  # at most, of the losses that MMDetection has


def check_resumable(checkpoint: Mapping[str, Any], path: str | os.PathLike) -> None:
    """A UserError if a checkpoint read from ``path`` lacks what a training goes on from."""
    meta = checkpoint.get('meta')
    known = {'message_hub'} & set(checkpoint) | set(meta if isinstance(meta, Mapping) else ())
    missing = [name for name in ('iter', 'epoch', 'message_hub') if name not in known]
    if missing:
        raise UserError(f'has no {missing[0]}, so it is not a checkpoint to resume from; weights '
                        'to start from are given with --cfg-options load_from=FILE', path=path)
