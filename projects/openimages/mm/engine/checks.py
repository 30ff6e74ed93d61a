"""Whether a training or a test can run, before it starts: its data, model, weights, device."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device
from torch import nn

from projects.openimages.common.errors import UserError
from projects.openimages.data.folders import shards_of
from projects.openimages.data.index import PreparedIndex
from projects.openimages.mm.engine.checkpoints import (
    check_resumable,
    load_weights,
    local_file,
    read_checkpoint,
    weights_of,
)
from projects.openimages.mm.engine.options import is_a
from projects.openimages.mm.models.federated.heads import (
    FederatedBBoxHead,
    FederatedCascadeRoIHead,
    FederatedRoIHead,
)
from projects.openimages.mm.models.federated.losses import FederatedLoss


def check_data(cfg: Config, model: nn.Module, *loaders: str) -> None:
    """The indexes and image folders that ``cfg[loader]`` names exist and have the model's classes.

    Args:
        cfg: names the data.
        model: built from it. Its layers count, not what the config's variables say.
        loaders: such as ``'train_dataloader'``.
    """
    for loader in loaders:
        for dataset in _datasets((cfg.get(loader) or {}).get('dataset', {})):
            root = Path(dataset.get('data_root') or '')
            path = root / dataset['ann_file']
            index = PreparedIndex.open(path)
            images = root / dataset['data_prefix']['img']
            if not images.is_dir() and not shards_of(images):
                raise UserError('no such folder (the images)', path=images)
            if dataset.get('learn_boxes_without_masks') and not any(
                    isinstance(part, FederatedRoIHead | FederatedCascadeRoIHead)
                    for part in model.modules()):
                raise UserError(f'{loader}.dataset.learn_boxes_without_masks=True needs a '
                                'FederatedRoIHead: any other would learn that these objects have '
                                'masks without a pixel')
            chosen = (dataset.get('metainfo') or {}).get('classes')
            count = len(chosen) if chosen else index.label_space.num_classes
            for name, found in class_counts(model).items():
                if found != count:
                    option = 'num_classes' if cfg.get('num_classes') == found else (
                        f'model.{name}.num_classes')
                    raise UserError(f"the index has {count} classes and the model's {name} "
                                    f'{found}; set --cfg-options {option}={count}', path=path)


def check_federated(model: nn.Module) -> None:
    """A UserError where a part of the recipe stands beside one that does not know of it.

    The RoI head collects what is known of an image, the box head hands it on, the loss needs it.

    Args:
        model: to be trained.
    """
    def is_of_recipe(part: nn.Module) -> bool:
        return isinstance(part, FederatedRoIHead | FederatedCascadeRoIHead | FederatedBBoxHead
                          | FederatedLoss)

    for name, part in model.named_modules():
        boxes = getattr(part, 'bbox_head', None)
        stages = boxes if isinstance(boxes, nn.ModuleList) else [boxes]
        for inner in (*stages, getattr(part, 'loss_cls', None)):
            if isinstance(inner, nn.Module) and is_of_recipe(part) != is_of_recipe(inner):
                raise UserError(
                    f'model.{name} is a {type(part).__name__} with a {type(inner).__name__}: '
                    'FederatedRoIHead or FederatedCascadeRoIHead, FederatedBBoxHead, and '
                    'FederatedLoss or FederatedSoftmaxLoss go together')


def class_counts(model: nn.Module) -> dict[str, int]:
    """How many classes of objects the model's heads and losses are made for, by their names.

    Not those of heads that tell objects from background, or classes of regions; nor what a backbone
    was once trained for; nor of masks that are the same for all classes.
    """
    return {name: part.num_classes for name, part in model.named_modules()
            if isinstance(getattr(part, 'num_classes', None), int) and part.num_classes > 0
            and not getattr(part, 'class_agnostic', False)
            and not re.search(r'^backbone|^neck|rpn_head|semantic', name)}


def _datasets(node: Mapping) -> list[Mapping]:
    """The Open Images datasets in a dataset config, inside whatever wrappers."""
    if is_a(node, 'OpenImagesInstanceDataset'):
        return [node]
    inner = node.get('datasets') or ([node['dataset']] if 'dataset' in node else [])
    return [found for child in inner for found in _datasets(child)]


def check_start_weights(cfg: Config, model: nn.Module) -> None:
    """The weights that training starts from are there; those they overwrite are not fetched.

    Args:
        cfg: ``load_from`` becomes a file where it is an address.
        model: built from it; a checkpoint to resume from must fill it.

    Raises:
        UserError: no such file, one without weights or with none of the model's, or one that
            cannot be resumed from.
    """
    backbone = cfg.model.get('backbone') or {}
    init = backbone.get('init_cfg') or {}
    if cfg.get('load_from'):
        cfg.load_from = local_file(cfg.load_from)
        if '://' not in cfg.load_from:
            _check_checkpoint(cfg.load_from, model, resume=cfg.get('resume', False))
        backbone['init_cfg'] = None
    elif (str(init.get('checkpoint', '')).startswith('torchvision://')
          and importlib.util.find_spec('torchvision') is None):
        raise UserError(f'{init["checkpoint"]} needs torchvision; install it, or name a file with '
                        '--cfg-options model.backbone.init_cfg.checkpoint=FILE, or train from '
                        'scratch with model.backbone.init_cfg=None')


def _check_checkpoint(path: str, model: nn.Module, *, resume: bool) -> None:
    if not resume and not Path(path).is_file():
        raise UserError('no such file (the start weights); make them with tools/trim_checkpoint.py '
                        '(docs/training.md), or train without: --cfg-options load_from=None',
                        path=path)
    checkpoint = read_checkpoint(path)
    weights = weights_of(checkpoint, path)
    if resume:
        check_resumable(checkpoint, path)
        load_weights(model, weights, path)
    own = model.state_dict()
    names = (name.removeprefix('module.') for name in weights)
    if not any(name in own for name in names):
        raise UserError(f'none of its {len(weights)} tensors is one of the model\'s, such as '
                        f'{next(iter(own))}; tools/trim_checkpoint.py renames those of other '
                        'programs', path=path)


_ENDLESS = ('InfiniteSampler', 'InfiniteClassAwareSampler', 'SoftClassAwareSampler')


def check_loop(cfg: Config) -> None:
    """A UserError where epochs would never end: several samplers draw without an end."""
    loop, sampler = cfg.train_cfg, cfg.train_dataloader.get('sampler')
    by_epoch = is_a(loop, 'EpochBasedTrainLoop') or ('type' not in loop and loop.get('by_epoch'))
    endless = next((name for name in _ENDLESS if is_a(sampler, name)), None)
    if by_epoch and endless:
        raise UserError(f'an epoch of {endless} never ends: count iterations '
                        "(train_cfg.type=ResumableTrainLoop, train_cfg.max_iters), or take "
                        "train_dataloader.sampler.type=DefaultSampler")


def check_amp(cfg: Config) -> None:
    """A UserError where mixed precision is asked for on a machine that cannot do it."""
    if get_device() == 'cpu' and is_a(cfg.get('optim_wrapper'), 'AmpOptimWrapper'):
        raise UserError('mixed precision (--amp, or an AmpOptimWrapper) needs a GPU, and there is '
                        'none here')
