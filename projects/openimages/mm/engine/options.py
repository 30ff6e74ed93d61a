"""``--cfg-options``: values as they were written, and keys that mean something.

MMEngine takes all spaces out of a value, so that a folder or a class whose name has one is another
folder or no class, and answers what is no ``KEY=VALUE`` with a traceback. It merges any key, also a
misspelt one, and gives up on some good ones. Here a key is refused where it is close to one that is
known: to a neighbour in the config, or to an argument of the class that is built from it. Any other
new key is taken as it is.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import inspect
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import mmdet.registry
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.logging import print_log
from mmengine.registry import Registry
from torch.utils.data import DataLoader

from projects.openimages.common.errors import UserError

SHARED_OPTIONS = ('data_root', 'num_classes')

# What Runner, FlexibleRunner and MMDetection's tools read. activation_checkpointing is not among
# them: it freezes what it is applied to, unlike model.backbone.with_cp.
RUNNER_OPTIONS = frozenset((
    'model', 'work_dir', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'train_cfg',
    'val_cfg', 'test_cfg', 'auto_scale_lr', 'optim_wrapper', 'param_scheduler', 'val_evaluator',
    'test_evaluator', 'default_hooks', 'custom_hooks', 'data_preprocessor', 'load_from', 'resume',
    'launcher', 'env_cfg', 'log_processor', 'log_level', 'visualizer', 'default_scope',
    'randomness', 'experiment_name', 'model_wrapper_cfg', 'compile', 'efficient_conv_bn_eval',
    'sync_bn', 'find_unused_parameters', 'tta_model', 'tta_pipeline', 'runner_type', 'strategy'))
_NOT_READ = {'activation_checkpointing': 'it would freeze what it is applied to; '
                                         'model.backbone.with_cp=True recomputes activations'}

# Keys that are taken out before the class with the arguments is built, or that have no class.
_DATALOADER = ('dataset', 'sampler', 'batch_sampler', 'collate_fn', 'worker_init_fn',
               'num_batch_per_epoch')
_OF_PLACE = {
    'train_dataloader': _DATALOADER, 'val_dataloader': _DATALOADER, 'test_dataloader': _DATALOADER,
    # the last three are AmpOptimWrapper's, which --amp puts there later
    'optim_wrapper': ('constructor', 'paramwise_cfg', 'dtype', 'loss_scale', 'use_fsdp'),
    'optim_wrapper.paramwise_cfg': (
        'custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult',
        'dwconv_decay_mult', 'dcn_offset_lr_mult', 'bypass_duplicate'),
    'optim_wrapper.clip_grad': ('max_norm', 'norm_type', 'clip_value', 'error_if_nonfinite'),
    'train_cfg': ('by_epoch', 'max_epochs', 'max_iters', 'val_begin', 'val_interval',
                  'dynamic_intervals'),
    'auto_scale_lr': ('enable', 'base_batch_size'),
    'randomness': ('seed', 'deterministic', 'diff_rank_seed')}
_NAMES_OF_ITS_OWN = ('custom_keys', 'metainfo', 'init_kwargs')  # dicts with any keys
_CLOSE = 0.75  # difflib's ratio: 'score_threshold' and 'score_thr' are just as close


_SPACE_IN_TEXT = re.compile(r'[^\s,\[(]\s+[^\s,\])]')


def read_options(items: Sequence[str] | None) -> dict[str, Any]:
    """What ``--cfg-options`` was given: ``DictAction``'s reading, but spaces in texts stay.

    Commas part the items of a list, as there; a list in brackets with texts that have spaces is
    written as Python does (``['Human face', 'Cat']``).

    Args:
        items: each ``KEY=VALUE``; of one key the last counts.

    Raises:
        UserError: no ``KEY=VALUE``, a bracket too many, or a list in brackets with texts that have
            spaces and no quotes.
    """
    options = {}
    for item in items or ():
        key, is_set, text = (part.strip() for part in item.partition('='))
        if not (key and is_set):
            raise UserError(f'--cfg-options {item!r}, expected KEY=VALUE')
        options[key] = _value(text, item)
    return options


def _value(text: str, item: str) -> Any:
    if not (_SPACE_IN_TEXT.search(text) or _has_quoted_comma(text)):
        return _mmengines_value(text, item)
    if re.fullmatch(r"""(["'])(?:(?!\1).)*\1""", text):
        return text[1:-1]
    if text.startswith('[') or (text.startswith('(') and text.endswith(')')):
        try:
            value = ast.literal_eval(text)
        except (SyntaxError, ValueError, TypeError):
            raise UserError(f'--cfg-options {item!r}: quote every text of the list, as in '
                            """KEY="['Human face', 'Cat']\"""") from None
        return (value,) if text[0] == '(' and not isinstance(value, tuple) else value
    if ',' not in text:
        return text
    return [_value(part.strip(), item) for part in text.split(',') if part.strip()]


def _has_quoted_comma(text: str) -> bool:
    """Whether Python reads a text, or a list with one, in which there is a comma."""
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError):
        return False
    items = value if isinstance(value, (list, tuple)) else [value]
    return any(isinstance(one, str) and ',' in one for one in items)


def _mmengines_value(text: str, item: str) -> Any:
    found = argparse.Namespace()
    try:
        DictAction([], 'options')(argparse.ArgumentParser(), found, [f'key={text}'])
    except (AssertionError, RecursionError):
        raise UserError(f'--cfg-options {item!r}: its brackets do not fit') from None
    return found.options['key']


def check_keys(cfg: Config, options: Mapping[str, Any]) -> None:
    """Make ready the places that the keys of ``options`` name, and refuse slips of the pen.

    Args:
        cfg: gets an empty dict, or one more item of a list, where a key goes on into it.
        options: dotted keys and values, as :func:`read_options` gives them.

    Raises:
        UserError: a key that is close to a known one, or that leads through a number or a text.
    """
    for key in options:
        head, *rest = key.split('.')
        _check_head(cfg, key, head, rest)
        node, path = cfg, ''
        for part, inner in zip([head, *rest], [*rest, None], strict=True):
            if path:
                _check_part(node, path, part, key, options)
            if inner is not None:
                node = _child(node, part, path, key)
                path = f'{path}.{part}' if path else part


def _check_head(cfg: Config, key: str, head: str, rest: list[str]) -> None:
    """Refuse or warn about a key whose first part nothing reads any more."""
    if head in RUNNER_OPTIONS or (head in SHARED_OPTIONS and not rest):
        return
    if head in _NOT_READ:
        raise UserError(f'--cfg-options {key}: {_NOT_READ[head]}')
    said = 'nothing reads it'
    if head in cfg:
        said = ('a variable of the config file, read before this option was: what was made from it '
                'keeps the old value')
        places = ['.'.join((path, *rest)) for path in _copies(cfg, cfg[head])
                  if path.partition('.')[0] in RUNNER_OPTIONS]
        said += f'; set {" and ".join(places[:4])}' if places else ''
    else:
        _refuse_close(key, head, {*cfg, *RUNNER_OPTIONS}, 'the config')
    print_log(f'--cfg-options {key}: {said}', logger='current', level=logging.WARNING)


def _copies(node: Any, value: Any, path: str = '') -> Iterator[str]:
    """Where a list stands that equals ``value``, or a dict with all its items."""
    if not isinstance(value, (Mapping, list)):
        return
    for key, item in children(node):
        at = f'{path}.{key}' if path else str(key)
        if item == value or (isinstance(item, Mapping) and isinstance(value, Mapping)
                             and item | value == item):
            yield at
        else:
            yield from _copies(item, value, at)


def children(node: Any) -> list[tuple[Any, Any]]:
    """The keys and values of a dict or list of a config; nothing for a leaf."""
    if isinstance(node, (Mapping, Config)):
        return list(node.items())
    return list(enumerate(node)) if isinstance(node, (list, tuple)) else []


def _check_part(node: Any, path: str, part: str, key: str, options: Mapping[str, Any]) -> None:
    if isinstance(node, list):
        if not part.isdigit() or int(part) > len(node):
            raise UserError(f'--cfg-options {key}: no {part!r} in {path}, a list of {len(node)}')
        return
    if path.rpartition('.')[2] in _NAMES_OF_ITS_OWN:
        return
    built = class_of(options.get(f'{path}.type', node.get('type')))
    known = {*node, 'type', *_OF_PLACE.get(path, ())}
    if built:
        known |= arguments_of(built)
    elif path.endswith('_dataloader'):
        known |= arguments_of(DataLoader)
    of_class = f', a {getattr(built, "__name__", built)}' if built else ''
    _refuse_close(key, part, known, path + of_class)


def _refuse_close(key: str, part: str, known: set[str], where: str) -> None:
    close = difflib.get_close_matches(part, known, n=1, cutoff=_CLOSE)
    if part not in known and close:
        raise UserError(f'--cfg-options {key}: no {part!r} in {where}; did you mean {close[0]!r}?')


def _child(node: Any, part: str, path: str, key: str) -> Any:
    """What a key goes on into, made where it is not there yet."""
    place: Any = int(part) if isinstance(node, list) else part
    if isinstance(node, list) and place == len(node):
        node.append(ConfigDict())
    elif not isinstance(node, list) and node.get(place) is None:
        node[place] = ConfigDict()
    child = node[place]
    if not isinstance(child, (Mapping, list)):
        at = f'{path}.{part}' if path else part
        raise UserError(f'--cfg-options {key}: {at} is {child!r}, which has nothing in it')
    return child


def class_of(kind: Any) -> Any:
    """The class that a config's ``type`` names, in whatever registry; None if in none."""
    if not isinstance(kind, str):
        return kind
    found = (registry.get(kind) for registry in vars(mmdet.registry).values()
             if isinstance(registry, Registry))
    return next((one for one in found if one is not None), None)


def arguments_of(built: Any) -> set[str]:
    """The names of a class's arguments, with those that ``**kwargs`` hand on to its parents."""
    names: set[str] = set()
    for cls in inspect.getmro(built) if inspect.isclass(built) else [built]:
        try:
            parameters = inspect.signature(cls).parameters.values()
        except ValueError:  # written in C
            break
        names |= {one.name for one in parameters}
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            break
    return names


def is_a(node: Any, name: str, *, exactly: bool = False) -> bool:
    """Whether a config's dict builds the class ``name``, or a subclass, however it is named."""
    kind = node.get('type') if isinstance(node, Mapping) else None
    named = kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', None)
    if named == name or exactly:
        return named == name
    built = class_of(kind)
    return inspect.isclass(built) and any(one.__name__ == name for one in built.__mro__)
