"""Checkpoints, read without running what is in them, and whether they are a model's.

A checkpoint is a pickle, and a pickle can run any program. :func:`read_checkpoint` lets through
tensors, plain values, and what training programs store beside the weights (``safe_contents``). Any
other content is refused, unless the user trusts the file: :func:`is_trusted`.
``mmengine_internals`` makes MMEngine read its checkpoints in the same way.

In: a file, or the address of one. Out: a dict with weights in it, or one line that says what is
wrong with the file.
"""

from __future__ import annotations

import http.client
import os
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine.safe_contents import SAFE_GLOBALS

TRUSTED = 'TRUSTED_CHECKPOINTS'


def read_checkpoint(path: str | os.PathLike, map_location: Any = None) -> dict[str, Any]:
    """Read a checkpoint file from any source.

    Args:
        path: a file that ``torch.save`` wrote.
        map_location: as in ``torch.load``; None puts tensors on the CPU, wherever they were.

    Raises:
        UserError: no such file, a bare pickle, half a file or a damaged one, one that asks for
            other code, one without weights, or too little memory.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError('no such file (the checkpoint)', path=path)
    if path.suffix in ('.pkl', '.pickle'):
        raise UserError('a bare pickle can run any program and is not read; convert it with the '
                        'program that made it', path=path)
    with _said_in_one_line(path), torch.serialization.safe_globals(SAFE_GLOBALS):
        _check_whole(path)
        checkpoint = torch.load(path, map_location=map_location or 'cpu',
                                weights_only=not is_trusted(path))
    weights_of(checkpoint, path)
    return checkpoint


def is_trusted(path: str | os.PathLike) -> bool:
    """Whether the user lets a file run any program: it is named in ``$TRUSTED_CHECKPOINTS``.

    That variable holds paths separated by colons, as ``$PATH`` does.
    """
    names = os.environ.get(TRUSTED, '').split(os.pathsep)
    return any(os.path.realpath(os.path.expanduser(name)) == os.path.realpath(path)
               for name in names if name)


def local_file(source: str, folder: str | None = None, *, progress: bool = True) -> str:
    """The file that ``source`` names; an ``http(s)://`` address is fetched first, once.

    Args:
        source: a path, or an address.
        folder: where to keep what is fetched; None: where torch keeps its downloads.
        progress: show it while fetching.

    Raises:
        UserError: the address cannot be fetched, or gives no whole checkpoint.
    """
    if not source.startswith(('http://', 'https://')):
        return source
    path = Path(folder or os.path.join(torch.hub.get_dir(), 'checkpoints'),
                os.path.basename(urlsplit(source).path))
    if path.is_file():
        print_log(f'{source}: fetched before, as {path}', logger='current')
        return os.fspath(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(source, os.fspath(path), progress=progress)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(f'cannot be fetched ({error})', path=source) from None
    try:
        with _said_in_one_line(source):
            _check_whole(path)
    except UserError:
        path.unlink()  # to be fetched again
        raise
    return os.fspath(path)


def _check_whole(path: Path) -> None:
    """Compare a zip's contents with its checksums, which ``torch.load`` does not look at."""
    with open(path, 'rb') as file:
        if file.read(4) != b'PK\3\4':
            return  # written before torch 1.6: no checksums
    with zipfile.ZipFile(path) as archive:
        checked = any(item.CRC for item in archive.infolist())  # torch can leave them out
        damaged = archive.testzip() if checked else None
    if damaged:
        raise UserError(f'damaged: {damaged} in it does not have its checksum', path=path)


@contextmanager
def _said_in_one_line(source: str | os.PathLike) -> Iterator[None]:
    """Turn what goes wrong in reading a checkpoint into a UserError about ``source``."""
    try:
        yield
    except pickle.UnpicklingError as error:
        found = re.search(r'Unsupported (?:global|class)[^`\w]*(?:GLOBAL)?\s*`?([\w.]+)',
                          str(error))
        asked = f' ({found[1]})' if found else ''
        raise UserError(f'not a checkpoint of tensors and plain values{asked}; it is not read, '
                        'because loading it could run any program. Where you trust whoever made '
                        f'it: {TRUSTED}={os.fspath(source)}', path=source) from None
    except MemoryError:
        raise UserError('not enough memory to read it', path=source) from None
    except RuntimeError as error:
        said = str(error).splitlines()[0]
        if re.search(r'out of memory|not enough memory|allocate memory', said):
            raise UserError(f'not enough memory to read it ({said})', path=source) from None
        if not re.search(r'unexpected EOF|[Ii]nvalid magic|corrupt|PytorchStreamReader', said):
            raise UserError(f'cannot be read: {said}', path=source) from None
        raise UserError(_NOT_WHOLE, path=source) from None
    except (ImportError, AttributeError) as error:  # a class of a trusted file is not to be found
        raise UserError(f'cannot be read: {error}', path=source) from None
    except (EOFError, LookupError, TypeError, ValueError, struct.error, zipfile.BadZipFile):
        # torch's own words for these ("Invalid magic number", a bare KeyError) help nobody.
        raise UserError(_NOT_WHOLE, path=source) from None


_NOT_WHOLE = 'not a whole checkpoint: cut short, or another kind of file'


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


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: str | os.PathLike) -> None:
    """Give a model weights that were read from ``path``: all that it has, and of its shapes.

    MMEngine would leave a tensor that is not there as it was initialised and go on; such a model
    finds nothing. What else the file has is left out.

    Raises:
        UserError: the file fills only a part of the model.
    """
    versions = getattr(weights, '_metadata', None)  # of the layers, by which they rename old keys
    weights = {name.removeprefix('module.'): tensor for name, tensor in weights.items()}
    check_class_count(model, weights, path)
    own = {name: tensor for name, tensor in model.state_dict().items()
           if not name.endswith('.num_batches_tracked')}  # of no use in a test
    other_shape = [name for name in own
                   if name in weights and weights[name].shape != own[name].shape]
    fitting = OrderedDict((name, tensor) for name, tensor in weights.items()
                          if name not in other_shape)
    fitting._metadata = versions
    found = model.load_state_dict(fitting, strict=False)
    missing = [name for name in found.missing_keys if name in own and name not in other_shape]
    if not missing and not other_shape:
        return
    faults = [f'{name} is {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}'
              for name in other_shape[:2]]
    faults += [f'{name} is missing' for name in missing[:3]]
    wrong = len(missing) + len(other_shape)
    more = f', and {wrong - len(faults)} more' if wrong > len(faults) else ''
    raise UserError(f'does not fit the config: it fills {len(own) - wrong} of the model\'s '
                    f'{len(own)} tensors; {", ".join(faults)}{more}', path=path)


def check_resumable(checkpoint: Mapping[str, Any], path: str | os.PathLike) -> None:
    """A UserError if a checkpoint read from ``path`` lacks what a training goes on from."""
    meta = checkpoint.get('meta')
    known = {'message_hub'} & set(checkpoint) | set(meta if isinstance(meta, Mapping) else ())
    missing = [name for name in ('iter', 'epoch', 'message_hub') if name not in known]
    if missing:
        raise UserError(f'has no {missing[0]}, so it is not a checkpoint to resume from; weights '
                        'to start from are given with --cfg-options load_from=FILE', path=path)
