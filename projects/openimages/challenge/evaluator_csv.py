"""A CSV as the official evaluator reads it: which fields are empty, and what number a text is.

The official script reads its files with pandas, whose default parser may be off by one unit in the
last place, and that unit can decide a tie. So fields are read as text, and the numbers in them by
that parser. Errors name file and row.
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

from projects.openimages.common.csv_files import distinct, read_columns
from projects.openimages.common.errors import UserError

_EMPTY_TEXTS = ['', '#N/A', '#N/A N/A', '#NA', '-1.#IND', '-1.#QNAN', '-NaN', '-nan', '1.#IND',
                '1.#QNAN', '<NA>', 'N/A', 'NA', 'NULL', 'NaN', 'None', 'n/a', 'nan', 'null']


class EvaluatorCsv:
    """The wanted columns of a CSV as text.

    Args:
        path: the file.
        columns: names that it must have; other columns are not kept.
        needs_line_end: refuse a last row without a line end, which may be cut off.
    """

    def __init__(self, path: str | os.PathLike, columns: Sequence[str], *,
                 needs_line_end: bool) -> None:
        self.path = path
        self._columns = read_columns(path, dict.fromkeys(columns, pa.string()),
                                     empty=_EMPTY_TEXTS, needs_line_end=needs_line_end)

    def __len__(self) -> int:
        return len(self._columns)

    def __contains__(self, name: str) -> bool:
        return name in self._columns.table.column_names

    @property
    def lines(self) -> np.ndarray:
        """(N,) int64 line of each record in the file, the header being 1."""
        return self._columns.lines

    def text(self, name: str) -> pa.ChunkedArray:
        """A column as it is; empty fields are null."""
        return self._columns[name]

    def error(self, record: int, message: str) -> UserError:
        """An error about one record."""
        return self._columns.error(record, message)

    def required(self, name: str) -> pa.ChunkedArray:
        """A column that may not have empty fields."""
        column = self.text(name)
        if column.null_count:
            raise self.error(pc.index(column.is_null(), True).as_py(), f'no {name}')
        return column

    def numbers(self, name: str) -> np.ndarray:
        """A column as float64, (N,), each field read as pandas reads it."""
        return self.parse(name, self.required(name), np.arange(len(self)))

    def parse(self, name: str, column: pa.ChunkedArray, records: np.ndarray) -> np.ndarray:
        """Texts that were cut from records (N,) of this file as float64, (N,)."""
        texts = column.to_pylist()
        if not texts:
            return np.zeros(0)
        parsed = as_pandas_reads(texts)
        if parsed is None:
            index = _first_that_is_no_number(texts)
            raise self.error(records[index], f'{name} {texts[index]!r} is not a number')
        if not np.isfinite(parsed).all():
            index = int(np.flatnonzero(~np.isfinite(parsed))[0])
            raise self.error(records[index], f'{name} {texts[index]!r} is not a finite number')
        return parsed

    def whole_numbers(self, name: str, records: np.ndarray) -> np.ndarray:
        """A column as int64 of at least 1, read at ``records`` (K,) ascending."""
        column = self.text(name).take(pa.array(records))
        if column.null_count:
            raise self.error(records[pc.index(column.is_null(), True).as_py()], f'no {name}')
        values, codes = distinct(column)
        whole = np.array([_whole_number(value) for value in values], np.int64)[codes]
        bad = np.flatnonzero(whole < 1)
        if len(bad):
            raise self.error(records[bad[0]], f'{name} {values[codes[bad[0]]]!r}, expected a whole '
                             'number of at least 1')
        return whole


def guess_types(texts: list[str]) -> list:
    """Texts as what pandas takes a column of them for: int, float or still text."""
    column = _pandas_column(texts) if texts else None
    if column is None or len(column) != len(texts) or column.dtype.kind not in 'iuf':
        return texts
    return column.tolist()


def as_pandas_reads(texts: list[str]) -> np.ndarray | None:
    """(N,) float64 from texts by pandas' default parser; None if one of them is not a number."""
    column = _pandas_column(texts)
    if len(column) != len(texts) or column.dtype.kind not in 'iuf':
        return None
    return column.to_numpy(np.float64)


def _first_that_is_no_number(texts: list[str]) -> int:
    """The place of the first text that pandas reads no number from, where there is one."""
    low, high = 0, len(texts)
    while high - low > 1:
        middle = (low + high) // 2
        if as_pandas_reads(texts[low:middle]) is None:
            high = middle
        else:
            low = middle
    return low


def _pandas_column(texts: list[str]) -> pd.Series:
    """A column of these texts as pandas reads it, but for empty fields and quotes."""
    return pd.read_csv(io.StringIO('\n'.join(texts)), header=None, sep='\x1f', quoting=3,
                       skip_blank_lines=False, keep_default_na=False).iloc[:, 0]


def _whole_number(text: str) -> int:
    """The number, 0 if the text is none; ``1024.0`` is whole as well."""
    return int(text.removesuffix('.0')) if re.fullmatch(r'[0-9]{1,9}(\.0)?', text) else 0
