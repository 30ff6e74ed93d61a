"""The masks of an evaluator's CSV, kept as text.

In: the text column and the size columns of a file. Out: :class:`LazyMasks`, the masks of an image.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from projects.openimages.challenge.evaluator_csv import EvaluatorCsv
from projects.openimages.challenge.lazy_masks import LazyMasks

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
        lines = np.zeros(len(rows), np.int64)
        lines[places] = self._file.lines[self._file_rows[rows[places]]]
        lengths = np.full(len(rows), -1, np.int64)
        text, lengths[places] = self._texts.join(rows[places])
        height, width = self.sizes[rows[places[0]]].tolist() if len(places) else (0, 0)
        return LazyMasks(text, lengths, height, width, self._file.path, lines)


class TextColumn:
    """Long texts of a column, handed out as bytes without making strings of them.

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

    def join(self, rows: np.ndarray) -> tuple[bytes, np.ndarray]:
        """The texts in the given rows (K,), one behind the other, and their (K,) lengths."""
        starts, stops, chunks = self._starts[rows], self._stops[rows], self._chunk_of[rows]
        # Rows that follow each other in the file are one piece of memory.
        begins = np.flatnonzero((starts[1:] != stops[:-1]) | (chunks[1:] != chunks[:-1])) + 1
        firsts = np.concatenate(([0], begins))[:len(rows)]
        lasts = np.append(begins, len(rows))[:len(firsts)] - 1
        text = b''.join(self._buffers[chunk][start:stop] for chunk, start, stop in zip(
            chunks[firsts].tolist(), starts[firsts].tolist(), stops[lasts].tolist(), strict=True))
        return text, stops - starts
