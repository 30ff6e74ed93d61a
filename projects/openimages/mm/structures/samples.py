"""Data samples, however a batch holds them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def each_sample(samples: Any) -> Iterator[Any]:
    """A batch's data samples; with test-time augmentation it is a list of views."""
    if isinstance(samples, list | tuple):
        for item in samples:
            yield from each_sample(item)
    else:
        yield samples
