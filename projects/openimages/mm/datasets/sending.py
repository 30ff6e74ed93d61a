"""From a loader's process to the training process: small tensors by value.

torch puts every tensor into shared memory of its own and sends the handle. For an image that saves
a copy; for the boxes, labels and flags of its instances, seven tensors of a few bytes, opening a
file and mapping it takes a hundred times as long as the bytes would, in the training process.
"""

from __future__ import annotations

import functools
from multiprocessing.reduction import ForkingPickler

import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor
from torch.utils.data import get_worker_info

_SMALL = 1 << 14  # bytes


def send_small_tensors_by_value() -> None:
    """In a loader's process, from now on; elsewhere nothing."""
    if get_worker_info() is not None:
        _register()


@functools.cache
def _register() -> None:
    ForkingPickler.register(Tensor, _reduce)


def _reduce(tensor: Tensor) -> tuple:
    plain = (tensor.device.type == 'cpu' and tensor.layout == torch.strided
             and not tensor.requires_grad and tensor.dtype != torch.bfloat16)
    if not plain or tensor.nbytes > _SMALL:
        return reduce_tensor(tensor)
    return torch.from_numpy, (tensor.numpy(),)
