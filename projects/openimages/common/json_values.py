"""Values as JSON has them, and the file that ``--json FILE`` asks for."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from projects.openimages.common.files import atomic_write


def plain_json(value: Any) -> Any:
    """Plain JSON values of nested dicts, lists, arrays and paths; what is no finite number is null.

    Example:
        >>> plain_json({'AP': np.array([0.5, np.nan]), 'n': (np.int64(3),)})
        {'AP': [0.5, None], 'n': [3]}
    """
    if isinstance(value, dict):
        return {key: plain_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain_json(value.tolist())
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: str | os.PathLike | None, figures: dict[str, Any]) -> None:
    """Write a command's figures: one object, figures of the whole first, then lists of records.

    Args:
        path: the file; None writes nothing.
        figures: by name; arrays, paths and nan are welcome.
    """
    if path is None:
        return
    with atomic_write(path) as file:
        json.dump(plain_json(figures), file, indent=1, ensure_ascii=False)
        file.write('\n')
