"""Columns of a CSV as arrays, with errors that name file and row.

Fields are read as text by pyarrow. Numbers are then read by pandas' parser: the official evaluator
reads them so, and the last digit of that parser can decide a tie.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from projects.openimages.common.errors import UserError

# What pandas takes for an empty field.
_NULL_TEXTS = ['', '#N/A', '#N/A N/A', '#NA', '-1.#IND', '-1.#QNAN', '-NaN', '-nan', '1.#IND',
               '1.#QNAN', '<NA>', 'N/A', 'NA', 'NULL', 'NaN', 'None', 'n/a', 'nan', 'null']


class CsvFile:
    """The wanted columns of a CSV as text.

    Args:
        path: the file.
        columns: names that it must have; other columns are not kept.
    """

    def __init__(self, path: str | os.PathLike, columns: Sequence[str]) -> None:
        self.path = path
        self._columns = list(columns)
        head = read_header(path)
        missing = [name for name in columns if name not in head]
        if missing:
            raise UserError(f'no column {missing[0]!r}, expected {", ".join(columns)}; it has '
                            f'{", ".join(head)}', path=path, row=1)
        self._table = self._read()

    def _read(self) -> pa.Table:
        try:
            return self._parse(threads=True)
        except pa.ArrowInvalid:
            pass
        try:  # only a single thread knows the row
            return self._parse(threads=False)
        except pa.ArrowInvalid as error:
            row = re.search(r'Row #(\d+): (.*)', str(error), re.DOTALL)
            message = row[2].split(':')[0] if row else str(error)
            raise UserError(message.replace('\n', ' '), path=self.path,
                            row=int(row[1]) if row else None) from None

    def _parse(self, threads: bool) -> pa.Table:
        return csv.read_csv(
            self.path, read_options=csv.ReadOptions(use_threads=threads, block_size=1 << 25),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(self._columns, pa.string()),
                include_columns=self._columns,
                null_values=_NULL_TEXTS, strings_can_be_null=True))

    def __len__(self) -> int:
        return self._table.num_rows

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def text(self, name: str) -> pa.ChunkedArray:
        """A column as it is; empty fields are null."""
        return self._table.column(name)

    def fail(self, index: int, message: str) -> UserError:
        """An error about the data row at ``index``."""
        return UserError(message, path=self.path, row=int(index) + 2)

    def required(self, name: str) -> pa.ChunkedArray:
        """A column that may not have empty fields."""
        column = self.text(name)
        if column.null_count:
            index = pc.index(column.is_null(), True).as_py()
            raise self.fail(index, f'no {name}')
        return column

    def numbers(self, name: str) -> np.ndarray:
        """A column as float64, (N,), each field read as pandas reads it."""
        return self.parse(name, self.required(name), np.arange(len(self)))

    def parse(self, name: str, column: pa.ChunkedArray, rows: np.ndarray) -> np.ndarray:
        """Texts that were cut from rows (N,) of this file as float64, (N,)."""
        texts = column.to_pylist()
        if not texts:
            return np.zeros(0)
        parsed = _as_pandas_reads(texts)
        if parsed is None:
            index = next(i for i, text in enumerate(texts) if _as_pandas_reads([text]) is None)
            raise self.fail(rows[index], f'{name} {texts[index]!r} is not a number')
        if not np.isfinite(parsed).all():
            index = int(np.flatnonzero(~np.isfinite(parsed))[0])
            raise self.fail(rows[index], f'{name} {texts[index]!r} is not a finite number')
        return parsed

    def whole_numbers(self, name: str, rows: np.ndarray) -> np.ndarray:
        """A column as int64 of at least 1, read at ``rows`` (K,) ascending."""
        column = self.text(name).take(pa.array(rows))
        if column.null_count:
            raise self.fail(int(rows[pc.index(column.is_null(), True).as_py()]), f'no {name}')
        values, codes = distinct(column)
        whole = np.array([_whole_number(value) for value in values], np.int64)
        bad = np.flatnonzero(whole[codes] < 1) if len(codes) else codes
        if len(bad):
            raise self.fail(int(rows[bad[0]]), f'{name} {values[codes[bad[0]]]!r}, expected a '
                            'whole number of at least 1')
        return whole[codes] if len(codes) else np.zeros(0, np.int64)



def read_header(path: str | os.PathLike) -> list[str]:
    """The names of a CSV's columns."""
    try:
        with open(path, encoding='utf-8-sig', newline='') as file:
            line = file.readline()
    except FileNotFoundError:
        raise UserError('no such file', path=path) from None
    except UnicodeDecodeError as error:
        raise UserError(f'not UTF-8 text: {error.reason}', path=path) from None
    if not line.strip():
        raise UserError('empty, expected a header line', path=path)
    return pd.read_csv(io.StringIO(line), dtype=str, header=None).loc[0].astype(str).tolist()


def _as_pandas_reads(texts: list[str]) -> np.ndarray | None:
    """(N,) float64 from texts by pandas' default parser; None if one of them is not a number."""
    column = _pandas_column(texts)
    if len(column) != len(texts) or column.dtype.kind not in 'iuf':
        return None
    return column.to_numpy(np.float64)


def guess_types(texts: list[str]) -> list:
    """Texts as what pandas takes a column of them for: int, float or still text."""
    column = _pandas_column(texts) if texts else None
    if column is None or len(column) != len(texts) or column.dtype.kind not in 'iuf':
        return texts
    return column.tolist()


def _pandas_column(texts: list[str]) -> pd.Series:
    """A column of these texts as pandas reads it, but for empty fields and quotes."""
    return pd.read_csv(io.StringIO('\n'.join(texts)), header=None, sep='\x1f', quoting=3,
                       skip_blank_lines=False, keep_default_na=False).iloc[:, 0]


def _whole_number(text: str) -> int:
    """The number, 0 if the text is none; ``1024.0`` is whole as well."""
    return int(text.removesuffix('.0')) if re.fullmatch(r'\d{1,9}(\.0)?', text) else 0


def distinct(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """The distinct values and, for each of the N rows, which of them it has, (N,) int64."""
    encoded = column.dictionary_encode().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # no rows
        return [], np.zeros(0, np.int64)
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


class TextColumn:
    """Long texts of a column, handed out as bytes without making strings of all of them.

    Args:
        column: (N,) text.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._buffers, starts, stops, chunk_of = [], [], [], []
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
