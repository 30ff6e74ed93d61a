"""What a checkpoint may hold beside tensors and plain values: data, and nothing that acts.

``torch.load(..., weights_only=True)`` builds only objects of listed classes. These are what
MMEngine and people's own training scripts store beside the weights: logs, numbers,
options, paths and times. Building any of them runs no code of the file's.
"""

from __future__ import annotations

import argparse
import datetime
import pathlib
import pickle
from typing import Any

import numpy as np
from mmengine.config import ConfigDict
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler


def _method(owner: type, name: str) -> Any:
    """Stands in for ``getattr``, by which MMEngine's logs and schedules store their own methods."""
    names = {OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
             HistoryBuffer: [one for one in dir(HistoryBuffer) if not one.startswith('_')]}
    if name in names.get(owner, ()):
        return getattr(owner, name)
    raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not allowed')


def _plain_dict(*factory: Any) -> dict:
    """Stands in for ``defaultdict``, whose items torch refuses to set."""
    return {}


class StoredConfig:
    """Stands in for MMEngine's ``Config``, which may read files as it is made."""

    def __setstate__(self, state: tuple) -> None:
        self.values = state[0]


_DTYPES = ('bool', 'int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32', 'uint64',
           'float16', 'float32', 'float64', 'complex64', 'complex128', 'str', 'bytes')
_NUMPY_FUNCTIONS = {'_reconstruct': np._core.multiarray._reconstruct,
                    'scalar': np._core.multiarray.scalar}
_PATHS = {'Posix': pathlib.PurePosixPath, 'PurePosix': pathlib.PurePosixPath,
          'Windows': pathlib.PureWindowsPath, 'PureWindows': pathlib.PureWindowsPath}

# Objects, or pairs of an object and the name that stands for it in a file.
SAFE_GLOBALS: list[Any] = [
    (_method, 'builtins.getattr'), HistoryBuffer, OneCycleParamScheduler,
    np.ndarray, np.dtype, *(type(np.dtype(name)) for name in _DTYPES),
    *((function, f'numpy.{core}.multiarray.{name}')  # numpy 1 and numpy 2
      for name, function in _NUMPY_FUNCTIONS.items() for core in ('core', '_core')),
    ConfigDict, (StoredConfig, 'mmengine.config.config.Config'),
    *((kind, f'{module}.{system}Path')  # as of Python 3.12 and of later ones, of any system
      for system, kind in _PATHS.items() for module in ('pathlib', 'pathlib._local')),
    argparse.Namespace, (_plain_dict, 'collections.defaultdict'),
    datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone,
    *((kind, f'builtins.{kind.__name__}') for kind in (list, dict, int, float))]
