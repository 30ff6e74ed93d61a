"""Values as JSON has them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def plain_json(value: Any) -> Any:
    """Plain JSON values of nested dicts, lists and arrays; what is not a number is null.

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
    return None if isinstance(value, float) and math.isnan(value) else value
