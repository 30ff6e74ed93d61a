"""Saying at the start of a training which parts of the model take ignored instances for background.

Group-of boxes and boxes without a mask are a quarter of Open Images. A detector that is not told so
learns that nothing is there, and nothing in its losses shows it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from mmdet.models.task_modules.assigners import BaseAssigner
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from torch import nn

from projects.openimages.mm.models.assigners import IgnoreAwareAdapter, IgnoreAwareAssigner


@HOOKS.register_module()
class IgnoredInstancesHook(Hook):
    """Warns before training where a model does not respect ignored instances."""

    def before_train(self, runner: Any) -> None:
        """Look at the model's assigners."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if parts := unaware_parts(model):
            print_log(f'{", ".join(parts)}: ignored instances (group-of, or without a mask) are '
                      'background to it; docs/models.md says what each detector does with them',
                      logger='current', level=logging.WARNING)


def unaware_parts(model: nn.Module) -> list[str]:
    """Names of the parts of a detector that learn background from ignored instances.

    Part and assigner where there is one; the detector itself where none of its parts assigns.
    """
    found = [(part, name, assigner) for name, part in model.named_modules()
             for assigner in _assigners(part)]
    if not found:
        return [type(model).__name__]
    return list(dict.fromkeys(
        f'{name or type(model).__name__} ({type(assigner).__name__})'
        for part, name, assigner in found if not _respects(part, assigner)))


def _assigners(part: nn.Module) -> Iterator[BaseAssigner]:
    for found in vars(part).values():
        items = found if isinstance(found, list) else [found]
        yield from (item for item in items if isinstance(item, BaseAssigner))


def _respects(part: nn.Module, assigner: BaseAssigner) -> bool:
    return (isinstance(assigner, (IgnoreAwareAssigner, IgnoreAwareAdapter))
            or getattr(part, 'respects_ignored', False)
            or getattr(assigner, 'ignore_iof_thr', -1) > 0)
