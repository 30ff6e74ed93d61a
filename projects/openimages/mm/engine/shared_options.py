"""``data_root`` and ``num_classes``: one setting each, for every place that is made from it.

A config file is a program: what was made from a variable does not follow when the variable is set
later, by ``--cfg-options`` or in a file that inherits. Here it does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine.mmengine_internals import base_files
from projects.openimages.mm.engine.options import SHARED_OPTIONS, children

_CLASS_COUNTS = ('num_classes', 'num_things_classes')


def follow_the_file(cfg: Config, path: str) -> None:
    """Where files that inherit from each other set a shared option, let all settings follow."""
    files = [path, *base_files(path)]
    for name in SHARED_OPTIONS:
        setting = [file for file in files if _sets(file, name)]
        for file in setting if len(setting) > 1 else ():
            old = Config.fromfile(file, import_custom_modules=False).get(name)
            if old in (None, cfg[name]):
                continue
            if changed := _replace(cfg, name, old, cfg[name]):
                print_log(f'{path}: {name} is {cfg[name]!r}, and with it {len(changed)} settings '
                          f'that were made from {old!r} in {file}, such as {changed[0]}',
                          logger='current')


def _sets(file: str, name: str) -> bool:
    """Whether a config file sets a variable by itself; it need not be run to see that."""
    text = Path(file).read_text(encoding='utf-8')
    return not file.endswith('.py') or bool(re.search(rf'^{name}\s*=[^=]', text, re.MULTILINE))


def set_everywhere(cfg: Config, name: str, value: Any) -> None:
    """Set a shared option, and with it every place that was made from it.

    Raises:
        UserError: the config has none, or the value is none.
    """
    if name not in cfg:
        raise UserError(f'--cfg-options {name}: the config has no {name!r}')
    if name == 'num_classes' and (not isinstance(value, int) or value < 1):
        raise UserError(f'--cfg-options {name}={value}: expected a positive whole number')
    if name == 'data_root':
        value = os.path.join(str(value), '')
        if not cfg[name]:
            raise UserError("--cfg-options data_root: the config's is empty, so what was made from "
                            'it cannot be told; set each place')
    _replace(cfg, name, cfg[name], value)
    cfg[name] = value


def _replace(cfg: Config, name: str, old: Any, new: Any) -> list[str]:
    """Change what was made from ``old``; returns the places."""
    if name == 'data_root' and not old:
        return []
    change = _moved if name == 'data_root' else _recounted
    return list(_walk(cfg, lambda key, item: change(key, item, old, new)))


def _moved(key: Any, item: Any, old: str, new: str) -> Any:
    """A path in the folder ``old``, in ``new``."""
    folder = os.path.join(old, '')
    if not isinstance(item, str) or item.startswith(os.path.join(new, '')):
        return item  # it may be a folder in the old one
    if item == old:
        return new
    return os.path.join(new, item[len(folder):]) if item.startswith(folder) else item


def _recounted(key: Any, item: Any, old: int, new: int) -> Any:
    """A number of classes, or weights of the classes (and of background, the last)."""
    if key in _CLASS_COUNTS and item == old and not isinstance(item, bool):
        return new
    if key == 'class_weight' and isinstance(item, list) and len(item) in (old, old + 1):
        if len(set(item[:old])) > 1:
            raise UserError(f'the classes have different weights (class_weight), made for {old} '
                            f'classes: set them too for {new}')
        return item[:1] * new + item[old:]
    return item


def _walk(node: Any, change: Callable[[Any, Any], Any], path: str = '') -> Iterator[str]:
    """Replace each item by ``change(key, item)``, in place; gives the places of those changed."""
    for key, item in children(node):
        at = f'{path}.{key}' if path else str(key)
        changed = change(key, item)
        if changed is not item and changed != item:
            node[key] = changed
            yield at
        else:
            yield from _walk(item, change, at)
