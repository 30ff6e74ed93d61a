"""Where a training writes its scalars beside its own ``scalars.json``: TensorBoard, W&B."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config

from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine.options import is_a

# W&B counts calls and knows no step of MMEngine's; so every curve is drawn over the iterations.
_BACKENDS: dict[str, dict[str, Any]] = {
    'tensorboard': {'type': 'TensorboardVisBackend'},
    'wandb': {'type': 'WandbVisBackend',
              'define_metric_cfg': [{'name': '*', 'step_metric': 'iter'}]}}


def add_log_backends(cfg: Config, names: Sequence[str]) -> None:
    """Have a run's visualizer write to these as well.

    Args:
        cfg: changed in place. A backend that it has already stays as it is.
        names: ``tensorboard``, ``wandb``.

    Raises:
        UserError: the package of that name is not installed.
    """
    present = cfg.visualizer.get('vis_backends') or []
    for name in dict.fromkeys(names):
        if find_spec(name) is None:
            raise UserError(f'--log-to {name} needs the package {name}: pip install {name}')
        backend = _BACKENDS[name]
        if not any(is_a(item, backend['type']) for item in present):
            present = [*present, backend]
    cfg.visualizer.vis_backends = present
