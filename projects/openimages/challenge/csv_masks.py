"""The masks of an evaluator's CSV: kept as text, decoded one by one.

In: the text column and the size columns of a file. Out: :class:`LazyMasks`, the masks of an image,
each decoded when it is asked for; a malformed one is a UserError with file and row.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from projects.openimages.challenge.evaluator_csv import EvaluatorCsv
from projects.openimages.common.errors import UserError
from projects.openimages.masks import MaskError, Rle, check_sizes, inflate_text

SIZE_COLUMNS = ('ImageWidth', 'ImageHeight')


class MaskColumn:
    """The masks of a file: text and size by row."""

    def __init__(self, file: EvaluatorCsv, texts: pa.ChunkedArray, file_rows: np.ndarray,
                 image_rows: np.ndarray) -> None:
        self._file, self._file_rows = file, file_rows
        self._texts = TextColumn(texts)
        self.present = ~self._texts.is_null & (image_rows >= 0)
        rows = np.flatnonzero(self.present)
        self.sizes = np.zeros((len(image_rows), 2), np.int64)  # height, width
        for column, name in enumerate(reversed(SIZE_COLUMNS)):
            self.sizes[rows, column] = file.whole_numbers(name, file_rows[rows])
        self._image_rows = image_rows

    def check_sizes(self, reference: np.ndarray) -> None:
        """Compare with one size an image, (I, 2) int64; fill it where it is still 0."""
        rows = np.flatnonzero(self.present)[::-1]
        images = self._image_rows[rows]
        missing = reference[images, 0] == 0
        reference[images[missing]] = self.sizes[rows[missing]]  # the last written, so the first
        wrong = rows[(self.sizes[rows] != reference[images]).any(axis=1)]
        if len(wrong):
            row = wrong[-1]
            height, width = reference[self._image_rows[row]]
            raise self._file.error(self._file_rows[row], f'mask of {self.sizes[row, 1]} x '
                                   f'{self.sizes[row, 0]}, but other masks of its image are '
                                   f'{width} x {height}')

    def cut(self, rows: np.ndarray) -> LazyMasks:
        """The masks in the given rows (N,) of an image; row -1 has none."""
        places = np.flatnonzero(rows >= 0)
        places = places[self.present[rows[places]]]
        texts: list[bytes | None] = [None] * len(rows)
        lines = np.zeros(len(rows), np.int64)
        for place in places.tolist():
            texts[place] = self._texts[rows[place]]
        lines[places] = self._file.lines[self._file_rows[rows[places]]]
        height, width = self.sizes[rows[places[0]]].tolist() if len(places) else (0, 0)
        return LazyMasks(texts, height, width, self._file.path, lines)


class LazyMasks(Sequence[Rle | None]):
    """The masks of an image, each decoded when it is asked for, without a look into its runs.

    Args:
        texts: N mask texts, None where there is no mask.
        height, width: the image's size.
        path: the file that they are from, and ``lines`` (N,) in it, for the error message.
    """

    def __init__(self, texts: list[bytes | None], height: int, width: int,
                 path: str | os.PathLike, lines: np.ndarray) -> None:
        self._texts, self._height, self._width = texts, height, width
        self._path, self._lines = path, lines

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, place: int) -> Rle | None:  # type: ignore[override]  # no slices
        text = self._texts[place]
        if text is None:
            return None
        try:
            counts = inflate_text(text, self._height, self._width)
        except MaskError as error:
            raise self._error(place, error) from None
        return {'size': [self._height, self._width], 'counts': counts}

    def explain(self, error: MaskError) -> UserError:
        """The error about the first malformed mask; where each alone is right, about the first."""
        present = [place for place, text in enumerate(self._texts) if text is not None]
        for place in present:
            mask = self[place]
            try:
                check_sizes([mask] if mask else [])
            except MaskError as alone:
                return self._error(place, alone)
        return self._error(present[0], error)

    def _error(self, place: int, error: MaskError) -> UserError:
        return UserError(str(error), path=self._path, row=int(self._lines[place]))


class TextColumn:
    """Long texts of a column, handed out as bytes without making strings of all of them.

    Args:
        column: (N,) text.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._buffers: list[memoryview] = []
        starts, stops, chunk_of = [], [], []
        for number, chunk in enumerate(column.chunks):
            _, offsets, data = chunk.buffers()
            bounds = np.frombuffer(offsets, np.int32, len(chunk) + 1, offset=4 * chunk.offset)
            self._buffers.append(memoryview(data if data is not None else b''))
            starts.append(bounds[:-1])
            stops.append(bounds[1:])
            chunk_of.append(np.full(len(chunk), number, np.int32))
        none = [np.zeros(0, np.int32)]
        self._starts, self._stops, self._chunk_of = (np.concatenate(part or none)
                                                     for part in (starts, stops, chunk_of))
        self.is_null = column.is_null().combine_chunks().to_numpy(zero_copy_only=False) \
            if len(column) else np.zeros(0, bool)

    def __getitem__(self, row: int) -> bytes:
        return self._buffers[self._chunk_of[row]][self._starts[row]:self._stops[row]].tobytes()
