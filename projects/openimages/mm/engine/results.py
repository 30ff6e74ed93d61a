"""The pickle of a test (``tools/test.py --out``): read without running what is in it, scored."""

from __future__ import annotations

import codecs
import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from torch._utils import _rebuild_tensor_v2

from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine.checkpoints import TRUSTED, is_trusted
from projects.openimages.mm.engine.config import challenge_metrics
from projects.openimages.mm.engine.safe_contents import SAFE_GLOBALS


def _storage(stored: bytes) -> Any:
    """Stands in for torch's function, which unpickles whatever it is given."""
    return torch.load(io.BytesIO(stored), map_location='cpu', weights_only=True)


_GLOBALS: dict[str, Any] = {
    **{name: item for item, name in (
        item if isinstance(item, tuple) else (item, f'{item.__module__}.{item.__qualname__}')
        for item in SAFE_GLOBALS)},
    'torch.storage._load_from_bytes': _storage,
    'torch._utils._rebuild_tensor_v2': _rebuild_tensor_v2,
    'collections.OrderedDict': OrderedDict,
    '_codecs.encode': codecs.encode, '__builtin__.bytes': bytes}  # how pickle writes bytes


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f'{module}.{name}' not in _GLOBALS:
            raise pickle.UnpicklingError(f'{module}.{name}')
        return _GLOBALS[f'{module}.{name}']


def read_results(path: str | os.PathLike) -> list[dict[str, Any]]:
    """What a test found in each image: the data samples as dicts.

    Raises:
        UserError: no such file, one that asks for other code than tensors and plain values need
            (unless it is trusted: :func:`~.checkpoints.is_trusted`), or another kind of content.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError('no such file (the results)', path=path)
    try:
        with open(path, 'rb') as file:
            unpickler = pickle.Unpickler if is_trusted(path) else _Unpickler
            results = unpickler(file).load()
    except pickle.UnpicklingError as error:
        raise UserError(f'not a pickle of tensors and plain values ({error}); it is not read, '
                        'because loading it could run any program. Where you trust whoever made '
                        f'it: {TRUSTED}={os.fspath(path)}', path=path) from None
    except (EOFError, LookupError, TypeError, ValueError, AttributeError, ImportError,
            RuntimeError, MemoryError):
        raise UserError('not a whole pickle: cut short, or another kind of file',
                        path=path) from None
    _check(results, path)
    return results


def _check(results: Any, path: Path) -> None:
    if not isinstance(results, Sequence) or not results:
        raise UserError('expected a list with an item an image, as tools/test.py --out writes it',
                        path=path)
    for number, item in enumerate(results):
        found = item.get('pred_instances') if isinstance(item, Mapping) else None
        missing = ('image_id' if not isinstance(item, Mapping) or 'image_id' not in item else
                   next((name for name in ('labels', 'scores', 'masks')
                         if not isinstance(found, Mapping) or name not in found), None))
        if missing:
            raise UserError(f'item {number} has no {missing}: expected results of '
                            'tools/test.py --out on an OpenImagesInstanceDataset', path=path)


def score_results(cfg: Config, results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Score results by the challenge metrics of a config's test.

    Args:
        cfg: the one that the results were made with.
        results: from :func:`read_results`.

    Raises:
        UserError: the config has no challenge metric.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    metrics = challenge_metrics(cfg)
    if not metrics:
        raise UserError('the config has no OpenImagesChallengeMetric in its test_evaluator')
    evaluator = Evaluator(metrics)
    evaluator.dataset_meta = DATASETS.build(cfg.test_dataloader.dataset).metainfo
    return evaluator.offline_evaluate(results)
