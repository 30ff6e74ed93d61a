"""Reading a config the way the tools do: options that mean something, weights that are there.

MMEngine merges any ``--cfg-options`` key, also a misspelt one, and an option such as
``num_classes=350`` changes a variable that nothing reads any more. Here ``data_root`` and
``num_classes`` go to every place that was made from them, and unknown keys are errors.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import init_default_scope

from projects.openimages.common.errors import UserError
from projects.openimages.data.index import PreparedIndex
from projects.openimages.mm.engine.checkpoints import check_resumable, read_checkpoint
from projects.openimages.mm.models.adapting import set_class_count

SHARED_OPTIONS = ('data_root', 'num_classes')

# What Runner.from_cfg reads and a config may leave out. activation_checkpointing is not among them:
# it freezes what it is applied to, unlike model.backbone.with_cp.
RUNNER_OPTIONS = frozenset((
    'randomness', 'env_cfg', 'auto_scale_lr', 'custom_hooks', 'model_wrapper_cfg', 'work_dir',
    'experiment_name', 'compile', 'efficient_conv_bn_eval', 'sync_bn', 'find_unused_parameters',
    'visualizer', 'tta_model', 'tta_pipeline', 'resume', 'load_from'))


def load_config(path: str | os.PathLike, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config and merge ``--cfg-options`` into it.

    Args:
        path: the config file.
        options: dotted keys and values, as ``DictAction`` gives them.

    Raises:
        UserError: no such file, or an option that nothing in the config would read.
    """
    if not Path(path).is_file():
        raise UserError('no such config file', path=path)
    cfg = Config.fromfile(os.fspath(path))
    options = dict(options or {})
    for key in options:
        _check_key(cfg, key)
    for name in SHARED_OPTIONS:
        if name in options:
            _set_everywhere(cfg, name, options.pop(name))
    cfg.merge_from_dict(options)
    return cfg


def _check_key(cfg: Config, key: str) -> None:
    """Each part but the last must exist; the last may be an argument that the config leaves out."""
    head, *rest = key.split('.')
    if head not in cfg:
        if head not in RUNNER_OPTIONS:
            raise UserError(f'--cfg-options {key}: the config has no {head!r}, it has '
                            f'{", ".join(sorted(cfg.keys()))}')
        return
    node, path = cfg[head], head
    for part in rest[:-1]:
        if isinstance(node, (list, tuple)) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, Mapping) and part in node:
            node = node[part]
        else:
            valid = ', '.join(sorted(node)) if isinstance(node, Mapping) else type(node).__name__
            raise UserError(f'--cfg-options {key}: no {part!r} in {path}, it has {valid}')
        path += f'.{part}'


def _set_everywhere(cfg: Config, name: str, value: Any) -> None:
    if name not in cfg:
        raise UserError(f'--cfg-options {name}: the config has no {name!r}')
    old = cfg[name]
    if name == 'data_root':
        value = os.path.join(str(value), '')
        _walk(cfg, lambda key, item: value + item[len(old):]
              if isinstance(item, str) and item.startswith(old) else item)
    else:
        if not isinstance(value, int) or value < 1:
            raise UserError(f'--cfg-options {name}={value}: expected a positive whole number')
        _walk(cfg, lambda key, item: value if key == name and item == old else item)
        set_class_count(cfg.model, value)


def _walk(node: Any, change) -> None:
    """Replace each leaf by ``change(key, leaf)``, in place."""
    keys = range(len(node)) if isinstance(node, list) else list(node)
    for key in keys:
        item = node[key]
        if isinstance(item, (Mapping, list)):
            _walk(item, change)
        elif (changed := change(key, item)) is not item:
            node[key] = changed


def build_model(cfg: Config) -> torch.nn.Module:
    """The config's model with unset weights; nothing is fetched."""
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    return MODELS.build(cfg.model)


def set_work_dir(cfg: Config, work_dir: str | None, config_path: str) -> None:
    """``work_dir`` of the command line, else the config's, else ``work_dirs/<config name>``."""
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(
        Path('work_dirs') / Path(config_path).stem)


def check_data(cfg: Config, *loaders: str) -> None:
    """The indexes and image folders that ``cfg[loader]`` names exist and fit the class count."""
    for loader in loaders:
        for dataset in _datasets((cfg.get(loader) or {}).get('dataset', {})):
            root = Path(dataset.get('data_root') or '')
            path = root / dataset['ann_file']
            index = PreparedIndex.open(path)
            images = root / dataset['data_prefix']['img']
            if not images.is_dir():
                raise UserError('no such folder (the images)', path=images)
            chosen = (dataset.get('metainfo') or {}).get('classes')
            count = len(chosen) if chosen else index.label_space.num_classes
            if cfg.get('num_classes', count) != count:
                raise UserError(f'the index has {count} classes and the model '
                                f'{cfg.num_classes}; set --cfg-options num_classes={count}',
                                path=path)


def _datasets(node: Mapping) -> list[Mapping]:
    """The Open Images datasets in a dataset config, inside whatever wrappers."""
    if node.get('type') == 'OpenImagesInstanceDataset':
        return [node]
    inner = node.get('datasets') or ([node['dataset']] if 'dataset' in node else [])
    return [found for child in inner for found in _datasets(child)]


def check_start_weights(cfg: Config) -> None:
    """The weights that training starts from are there; those they overwrite are not fetched.

    Raises:
        UserError: no such file, one without weights, or one that cannot be resumed from.
    """
    init = cfg.model.backbone.get('init_cfg') or {}
    if cfg.get('load_from'):
        if '://' not in cfg.load_from:
            _check_checkpoint(cfg.load_from, resume=cfg.get('resume', False))
        cfg.model.backbone.init_cfg = None
    elif (str(init.get('checkpoint', '')).startswith('torchvision://')
          and importlib.util.find_spec('torchvision') is None):
        raise UserError(f'{init["checkpoint"]} needs torchvision; install it, or name a file with '
                        '--cfg-options model.backbone.init_cfg.checkpoint=FILE, or train from '
                        'scratch with model.backbone.init_cfg=None')


def _check_checkpoint(path: str, *, resume: bool) -> None:
    if not resume and not Path(path).is_file():
        raise UserError('no such file (the start weights); make them with tools/trim_checkpoint.py '
                        '(docs/training.md), or train without: --cfg-options load_from=None',
                        path=path)
    checkpoint = read_checkpoint(path)
    if resume:
        check_resumable(checkpoint, path)


def use_split(cfg: Config, split: str) -> None:
    """Test on another prepared split; one without annotations gets no score."""
    dataset = cfg.test_dataloader.dataset
    if dataset.type != 'OpenImagesInstanceDataset':
        raise UserError(f'--split needs an OpenImagesInstanceDataset, not {dataset.type}')
    dataset.ann_file = f'prepared/{split}/index.arrow'
    dataset.data_prefix = {'img': f'images/{split}/'}
    path = os.path.join(dataset.get('data_root') or '', dataset.ann_file)
    index = PreparedIndex.open(path)
    if index.num_instances or len(index.label_class_ids):
        for evaluator in _challenge_metrics(cfg):
            evaluator.index = path
    else:
        cfg.test_evaluator = {'type': 'Evaluator', 'metrics': []}


def needs_expansion(cfg: Config, wanted: bool) -> bool:
    """Whether detections are to be handed in for their ancestor classes too, if that is wanted.

    Not where the model does so itself: with a ``FederatedLoss`` that uses the hierarchy a leaf's
    detection comes with one of each ancestor on the same place, and repeating it would give
    duplicates. The log says so then.
    """
    closed = any(node.get('type') == 'FederatedLoss' and node.get('hierarchy', True)
                 for node in _mappings(cfg.model))
    if wanted and closed:
        print_log('the model scores ancestor classes itself: detections are not expanded over the '
                  'hierarchy', logger='current')
    return wanted and not closed


def _mappings(node: Any) -> Iterator[Mapping]:
    """A nested config's mappings, the outermost first."""
    if isinstance(node, Mapping):
        yield node
    for child in node.values() if isinstance(node, Mapping) else node:
        if isinstance(child, (Mapping, list, tuple)):
            yield from _mappings(child)


def score_as_submitted(cfg: Config, **selection: Any) -> None:
    """Have the test's challenge metric leave out what a submission would leave out.

    Args:
        selection: arguments of ``OpenImagesChallengeMetric``.
    """
    selection['expand_hierarchy'] = needs_expansion(cfg, selection['expand_hierarchy'])
    for evaluator in _challenge_metrics(cfg):
        evaluator.update(selection)


def _challenge_metrics(cfg: Config) -> list[Mapping]:
    return [item for item in _evaluators(cfg) if item.get('type') == 'OpenImagesChallengeMetric']


def _evaluators(cfg: Config) -> list[Mapping]:
    """The test's metrics, however the config gives them: one, several, or in an ``Evaluator``."""
    found = cfg.test_evaluator
    found = found.get('metrics', found) if isinstance(found, Mapping) else found
    return list(found) if isinstance(found, (list, tuple)) else [found]


def add_pickle(cfg: Config, path: str) -> None:
    """Have the test write its predictions to a pickle."""
    cfg.test_evaluator = [*_evaluators(cfg), {'type': 'DumpPredictions', 'out_file_path': path}]


def use_tta(cfg: Config) -> None:
    """Test with the config's ``tta_model`` and ``tta_pipeline``."""
    missing = [name for name in ('tta_model', 'tta_pipeline') if name not in cfg]
    if missing:
        raise UserError(f'--tta needs a config with {missing[0]}')
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
