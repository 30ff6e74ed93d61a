"""Reading a config the way the tools do, and putting into it what their options ask for.

In: a config file and ``--cfg-options``. Out: a config in which ``data_root`` and ``num_classes``
have reached every place that is made from them (``shared_options``), and in which every other
option has a place that something reads (``options``).
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import RUNNERS, init_default_scope
from mmengine.runner import Runner

from projects.openimages.common.errors import UserError
from projects.openimages.data.index import PreparedIndex
from projects.openimages.mm.engine.options import (
    SHARED_OPTIONS,
    check_keys,
    children,
    is_a,
)
from projects.openimages.mm.engine.shared_options import follow_the_file, set_everywhere


def load_config(path: str | os.PathLike, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config and merge ``--cfg-options`` into it.

    Args:
        path: the config file.
        options: dotted keys and values, as ``read_options`` gives them.

    Raises:
        UserError: no such file, or an option that is a slip of the pen.
    """
    if not Path(path).is_file():
        raise UserError('no such config file', path=path)
    cfg = Config.fromfile(os.fspath(path))
    follow_the_file(cfg, os.fspath(path))
    options = dict(options or {})
    check_keys(cfg, options)
    for name in SHARED_OPTIONS:
        if name in options:
            set_everywhere(cfg, name, options.pop(name))
    cfg.merge_from_dict(options)
    return cfg


def build_model(cfg: Config) -> torch.nn.Module:
    """The config's model with unset weights; nothing is fetched.

    Normalisation over several processes is as in one (:func:`use_local_norms`): it has the same
    tensors, and MMCV's cannot be built before the processes have joined.

    Raises:
        UserError: a class that there is not, or an argument that it does not take.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    with mistakes_in_one_line():
        return MODELS.build(use_local_norms(copy.deepcopy(cfg.model)))


def use_local_norms(model: Mapping) -> Mapping:
    """Batch normalisation in the place of one over all processes, in a model's config in place."""
    for node in _mappings(model):
        if is_a(node, 'MMSyncBN') or is_a(node, 'SyncBN'):
            node['type'] = 'BN'
    return model


@contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """Turn what MMEngine's registries say of a config's mistakes into a UserError."""
    try:
        yield
    except (TypeError, KeyError) as error:
        said = str(error.args[0]) if error.args else ''
        if not re.search(r"unexpected keyword argument|is not in the \S+ registry", said):
            raise
        raise UserError(f'the config: {said.split(". ")[0]}') from None


def build_runner(cfg: Config) -> Runner:
    """The config's runner: MMEngine's ``Runner`` where it names none (``runner_type``)."""
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def set_work_dir(cfg: Config, work_dir: str | None, config_path: str) -> None:
    """``work_dir`` of the command line, else the config's, else ``work_dirs/<config name>``."""
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(
        Path('work_dirs') / Path(config_path).stem)


def use_split(cfg: Config, split: str) -> None:
    """Test on another prepared split; one without annotations gets no score."""
    dataset = cfg.test_dataloader.dataset
    if not is_a(dataset, 'OpenImagesInstanceDataset'):
        raise UserError(f'--split needs an OpenImagesInstanceDataset, not {dataset.type}')
    dataset.ann_file = f'prepared/{split}/index.arrow'
    dataset.data_prefix = {'img': f'images/{split}/'}
    path = os.path.join(dataset.get('data_root') or '', dataset.ann_file)
    index = PreparedIndex.open(path)
    if index.num_instances or len(index.label_class_ids):
        for evaluator in challenge_metrics(cfg):
            evaluator.index = path
    else:
        cfg.test_evaluator = {'type': 'Evaluator', 'metrics': []}


def needs_expansion(cfg: Config, wanted: bool) -> bool:
    """Whether detections are to be handed in for their ancestor classes too, if that is wanted.

    Not where the model does so itself: with a ``FederatedLoss`` that uses the hierarchy a leaf's
    detection comes with one of each ancestor on the same place, and repeating it would give
    duplicates. The log says so then.
    """
    closed = any(is_a(node, 'FederatedLoss') and node.get('hierarchy', True)
                 for node in _mappings(cfg.model))
    if wanted and closed:
        print_log('the model scores ancestor classes itself: detections are not expanded over the '
                  'hierarchy', logger='current')
    return wanted and not closed


def _mappings(node: Any) -> Iterator[Mapping]:
    """A nested config's mappings, the outermost first."""
    if isinstance(node, Mapping):
        yield node
    for _, child in children(node):
        yield from _mappings(child)


def score_as_submitted(cfg: Config, **selection: Any) -> None:
    """Have the test's challenge metric leave out what a submission would leave out.

    Args:
        selection: arguments of ``OpenImagesChallengeMetric``.
    """
    selection['expand_hierarchy'] = needs_expansion(cfg, selection['expand_hierarchy'])
    for evaluator in challenge_metrics(cfg):
        evaluator.update(selection)


def challenge_metrics(cfg: Config) -> list[Mapping]:
    """The test's ``OpenImagesChallengeMetric``s, wherever they stand."""
    return [node for node in _mappings(cfg.test_evaluator)
            if is_a(node, 'OpenImagesChallengeMetric')]


def _evaluators(cfg: Config) -> list[Mapping]:
    """The test's metrics, however the config gives them: one, several, or in an ``Evaluator``."""
    found = cfg.test_evaluator
    found = found.get('metrics', found) if isinstance(found, Mapping) else found
    return list(found) if isinstance(found, (list, tuple)) else [found]


def add_pickle(cfg: Config, path: str) -> None:
    """Have the test write its predictions to a pickle."""
    cfg.test_evaluator = [*_evaluators(cfg), {'type': 'DumpPredictions', 'out_file_path': path}]


def innermost(dataset: Mapping) -> Mapping:
    """The dataset that a wrapper such as ``RepeatDataset`` has in it, or the dataset itself.

    Raises:
        UserError: there are several.
    """
    while 'pipeline' not in dataset and 'dataset' in dataset:
        dataset = dataset['dataset']
    if 'pipeline' not in dataset:
        raise UserError(f'the test data are a {dataset.get("type")}: test one split at a time')
    return dataset


def use_tta(cfg: Config) -> None:
    """Test with the config's ``tta_model`` and ``tta_pipeline``."""
    missing = [name for name in ('tta_model', 'tta_pipeline') if name not in cfg]
    if missing:
        raise UserError(f'--tta needs a config with {missing[0]}')
    innermost(cfg.test_dataloader.dataset)['pipeline'] = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
