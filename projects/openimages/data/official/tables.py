"""Strict and fast reading of the official CSVs.

In: a file and the columns wanted from it. Out: a :class:`Table` of numpy arrays that knows every
record's line. The whole file goes through pyarrow; only if that meets anything unusual is the file
read again line by line, to say which line it was, or to skip it.

Byte-order marks, CRLF and quoted fields are read; blank lines are ignored.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv

from projects.openimages.data.problems import ProblemLog
from projects.openimages.common.errors import UserError

_ARROW_TYPES = {'text': pa.large_utf8(), 'number': pa.float64(),
                'name': pa.dictionary(pa.int32(), pa.utf8())}
"""``text`` is kept as it is, ``name`` is text with many repetitions, ``number`` a float64."""


@dataclass(frozen=True)
class Names:
    """A column of repeated strings: ``values[codes[n]]`` is entry ``n``."""

    values: list[str]
    codes: np.ndarray


@dataclass(frozen=True)
class Table:
    """The wanted columns of one file, N records.

    Attributes:
        path: the file.
        columns: ``number``: (N,) float64; ``name``: :class:`Names`; ``text``: an Arrow array.
        lines: (N,) int64 line numbers in the file, the header being 1.
    """

    path: str
    columns: dict[str, np.ndarray | Names | pa.Array]
    lines: np.ndarray

    def __getitem__(self, column: str):
        return self.columns[column]

    def __len__(self) -> int:
        return len(self.lines)

    def numbers(self, *columns: str) -> np.ndarray:
        """(N, len(columns)) float64."""
        return np.stack([self.columns[column] for column in columns], axis=1)


def read_table(path: str | os.PathLike, columns: Mapping[str, str], log: ProblemLog) -> Table:
    """Read some columns of a CSV with a header line.

    Args:
        path: the file.
        columns: kind by column name: ``'text'``, ``'name'`` or ``'number'``.
        log: gets every line that cannot be read.

    Raises:
        UserError: no such file, a column missing from the header, or a bad line that is not to
            be skipped.
    """
    path = os.fspath(path)
    header = _read_header(path, columns)
    try:
        arrow = _read_fast(path, header, columns)
        lines = np.arange(2, 2 + len(arrow), dtype=np.int64)
    except pa.ArrowInvalid:
        arrow, lines = _read_slowly(path, header, columns, log)
    return Table(path, {name: _to_numpy(arrow.column(name), kind)
                        for name, kind in columns.items()}, lines)


def read_header(path: str | os.PathLike) -> list[str]:
    """The column names of a CSV; a UserError if there is no such file or nothing in it."""
    try:
        with open(path, encoding='utf-8-sig', newline='') as file:
            return next(csv.reader(file))
    except FileNotFoundError:
        raise UserError('no such file', path=path) from None
    except StopIteration:
        raise UserError('empty file, expected a header line', path=path) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f'not a CSV in UTF-8: {error}', path=path, row=1) from None


def _read_header(path: str, columns: Mapping[str, str]) -> list[str]:
    header = read_header(path)
    for name in columns:
        if name not in header:
            raise UserError(f'no column {name} in the header {",".join(header)[:200]!r}',
                            path=path, row=1)
    return header


def _read_fast(path: str, header: list[str], columns: Mapping[str, str]) -> pa.Table:
    return pyarrow.csv.read_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(column_names=header, skip_rows=1,
                                             block_size=16 << 20),
        parse_options=pyarrow.csv.ParseOptions(ignore_empty_lines=False),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=list(columns), null_values=[], strings_can_be_null=False,
            column_types={name: _ARROW_TYPES[kind] for name, kind in columns.items()}))


def _read_slowly(path: str, header: list[str], columns: Mapping[str, str],
                 log: ProblemLog) -> tuple[pa.Table, np.ndarray]:
    """As :func:`_read_fast`, line by line, with every bad line in the log."""
    wanted = [(name, header.index(name), _CONVERTERS[kind]) for name, kind in columns.items()]
    values: dict[str, list] = {name: [] for name in columns}
    lines: list[int] = []
    with open(path, encoding='utf-8-sig', errors='surrogateescape', newline='') as file:
        reader = csv.reader(file)
        next(reader)
        for fields in reader:
            if not fields:
                continue
            try:
                record = _convert(fields, header, wanted)
            except ValueError as error:
                log.bad('broken_row', str(error), path=path, row=reader.line_num)
                continue
            for name, value in zip(values, record, strict=True):
                values[name].append(value)
            lines.append(reader.line_num)
    arrow = pa.table({name: pa.array(values[name], _ARROW_TYPES[kind])
                      for name, kind in columns.items()})
    return arrow, np.array(lines, np.int64)


def _convert(fields: list[str], header: list[str],
             wanted: list[tuple[str, int, Callable]]) -> list:
    if len(fields) != len(header):
        raise ValueError(f'{len(fields)} fields, expected {len(header)}: '
                         f'{",".join(fields)[:120]!r}')
    record = []
    for name, position, convert in wanted:
        try:
            record.append(convert(fields[position]))
        except ValueError:
            raise ValueError(f'{name} {fields[position]!r} is not '
                             f'{_EXPECTED[convert]}') from None
    return record


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or '_' in text:
        raise ValueError(text)
    return value


def _text(text: str) -> str:
    text.encode()  # bytes that are no UTF-8 came in as lone surrogates and do not go out
    return text


_CONVERTERS: dict[str, Callable] = {'text': _text, 'name': _text, 'number': _number}
_EXPECTED = {_text: 'UTF-8 text', _number: 'a number'}


def _to_numpy(column: pa.ChunkedArray, kind: str) -> np.ndarray | Names | pa.Array:
    if kind == 'number':
        return column.to_numpy()
    if kind == 'text':
        return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    unified = column.unify_dictionaries()
    values = unified.chunk(0).dictionary.to_pylist() if unified.num_chunks else []
    codes = [chunk.indices.to_numpy() for chunk in unified.chunks]
    return Names(values, np.concatenate(codes) if codes else np.zeros(0, np.int32))
