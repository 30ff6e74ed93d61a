"""The masks of an image as a CSV has them, decoded one by one.

A malformed one is a UserError with file and row.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from projects.openimages.common.errors import UserError
from projects.openimages.masks import MaskError, Rle, check_sizes, inflate_text


class LazyMasks(Sequence[Rle | None]):
    """The masks of an image, each decoded when it is asked for, without a look into its runs.

    Args:
        text: the N mask texts, one behind the other.
        lengths: (N,) int64 of each, -1 where there is no mask.
        height, width: the image's size.
        path: the file that they are from, and ``lines`` (N,) in it, for the error message.
    """

    def __init__(self, text: bytes, lengths: np.ndarray, height: int, width: int,
                 path: str | os.PathLike, lines: np.ndarray) -> None:
        self._text, self._height, self._width = text, height, width
        self._ends = np.cumsum(np.maximum(lengths, 0)).tolist()
        self._lengths = lengths.tolist()
        self._path, self._lines = path, lines

    @classmethod
    def of(cls, texts: Sequence[bytes | None], height: int, width: int, path: str | os.PathLike,
           lines: np.ndarray) -> LazyMasks:
        """The same from N texts, None where there is no mask."""
        lengths = [-1 if text is None else len(text) for text in texts]
        return cls(b''.join(filter(None, texts)), np.array(lengths, np.int64), height, width, path,
                   lines)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, place: int) -> Rle | None:  # type: ignore[override]  # no slices
        length, end = self._lengths[place], self._ends[place]
        if length < 0:
            return None
        try:
            counts = inflate_text(self._text[end - length:end], self._height, self._width)
        except MaskError as error:
            raise self._error(place, error) from None
        return {'size': [self._height, self._width], 'counts': counts}

    def explain(self, error: MaskError) -> UserError:
        """The error about the first malformed mask; where each alone is right, about the first."""
        present = [place for place, length in enumerate(self._lengths) if length >= 0]
        for place in present:
            mask = self[place]
            try:
                check_sizes([mask] if mask else [])
            except MaskError as alone:
                return self._error(place, alone)
        return self._error(present[0], error)

    def _error(self, place: int, error: MaskError) -> UserError:
        return UserError(str(error), path=self._path, row=int(self._lines[place]))
