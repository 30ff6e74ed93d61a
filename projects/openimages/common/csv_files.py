"""Columns of a CSV, and the true line of every record.

In: a file with a header line, and the columns that are wanted from it. Out: :class:`CsvColumns`.

Arrow reads the file on all cores. It counts records, not lines, and stops at the first bad row.
So where anything is unusual (a blank line in the midst, a quoted line end, a bad row) the file is
read once more, row after row, which says where every record stands and what is wrong with every
bad row.

UTF-8, with or without a byte-order mark; LF or CRLF; quoted fields may hold line ends. A line
without any value, blank or of commas alone as spreadsheets leave them, is no record. A record
that goes over several lines has the number of its first.
"""

from __future__ import annotations

import codecs
import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import open_regular

_LONGEST_HEADER = 1 << 17
_BLOCK = 1 << 24
_LONGEST_ROW = 1 << 26
"""Rows longer than a block are met in the second reading only, which takes them up to this."""
_NO_LINE_END = ('no line end after this row: the file may be cut off here; fetch it again, or end '
                'the line if the row is whole')

OnBadRow = Callable[[int, str], None]
"""Is told the row and what is wrong with it; it may raise."""


class Distinct(NamedTuple):
    """A column with many repetitions: ``values[codes[n]]`` is what record ``n`` has."""

    values: list[str]
    codes: np.ndarray


def distinct(column: pa.ChunkedArray) -> Distinct:
    """The distinct values of N texts and, for each of them, which it is, (N,) int64."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    encoded = encoded.unify_dictionaries()
    if not len(encoded):
        return Distinct([], np.zeros(0, np.int64))
    codes = [chunk.indices.to_numpy() for chunk in encoded.chunks]
    return Distinct(encoded.chunk(0).dictionary.to_pylist(), np.concatenate(codes).astype(np.int64))


@dataclass(frozen=True)
class CsvColumns:
    """The wanted columns of one file, N records.

    Attributes:
        path: the file.
        table: the columns.
        uneven_lines: (N,) int64 line of each record; None where record ``n`` is line ``n + 2``.
    """

    path: str | os.PathLike
    table: pa.Table
    uneven_lines: np.ndarray | None = None

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        return self.table.column(name)

    @cached_property
    def lines(self) -> np.ndarray:
        """(N,) int64 line numbers in the file, the header being 1."""
        if self.uneven_lines is not None:
            return self.uneven_lines
        return np.arange(2, 2 + len(self), dtype=np.int64)

    def numbers(self, *names: str) -> np.ndarray:
        """(N, len(names)) float64 of columns that were read as such."""
        return np.stack([self[name].to_numpy() for name in names], axis=1)

    def error(self, record: int, message: str) -> UserError:
        """An error about one record."""
        return UserError(message, path=self.path, row=int(self.lines[record]))


def read_header(path: str | os.PathLike) -> list[str]:
    """The names of a CSV's columns; a UserError if it is no CSV with a header line."""
    with open_csv(path) as file:
        return _read_header(file, path)


def read_columns(path: str | os.PathLike, types: Mapping[str, pa.DataType], *,
                 empty: Sequence[str] = (), needs_line_end: bool = False,
                 on_bad: OnBadRow | None = None) -> CsvColumns:
    """Read some columns of a CSV with a header line.

    Args:
        path: the file.
        types: by column name: ``string``, ``large_string``, a dictionary of strings, ``float64``.
        empty: texts that stand for no value and become null.
        needs_line_end: a last row without a line end is a bad one, since it may be cut off in its
            last field.
        on_bad: is told of every row with another number of fields than the header, with a NUL
            byte or a quote that does not close, or with a field wanted from it that is not UTF-8
            or not a number; those rows are left out. By default the first is a UserError.

    Raises:
        UserError: no such file or not a file, a column missing from the header, a bad row.
    """
    return read_stream(partial(open_csv, path), path, types, empty=empty,
                       needs_line_end=needs_line_end, on_bad=on_bad)


def read_stream(opener: Callable[[], IO[bytes]], path: str | os.PathLike,
                types: Mapping[str, pa.DataType], *, empty: Sequence[str] = (),
                needs_line_end: bool = False, on_bad: OnBadRow | None = None) -> CsvColumns:
    """The same of bytes that may be opened twice; ``path`` is what messages call them."""
    table = _read_at_once(opener, path, types, empty, needs_line_end)
    if table is not None:
        return CsvColumns(path, table)
    faults: list[tuple[int, str]] = []
    texts, lines = _read_row_by_row(opener, path, types, needs_line_end, faults)
    table, good = _convert(texts, types, empty, lines, faults)
    for row, message in sorted(faults):
        if on_bad is None:
            raise UserError(message, path=path, row=row)
        on_bad(row, message)
    return CsvColumns(path, table, lines[good])


def _read_at_once(opener: Callable[[], IO[bytes]], path: str | os.PathLike,
                  types: Mapping[str, pa.DataType], empty: Sequence[str],
                  needs_line_end: bool) -> pa.Table | None:
    """The columns of a file that has a good record in each of its lines; None of any other."""
    with opener() as file:
        header = _read_header(file, path)
        for name in types:
            if header.count(name) != 1:
                raise UserError(f'{"no" if name not in header else "more than one"} column '
                                f'{name!r}, expected {", ".join(types)}; it has '
                                f'{",".join(header)[:200]!r}', path=path, row=1)
        body = _Body(file)
        try:
            table = _parse(body, header, pyarrow.csv.ConvertOptions(
                include_columns=list(types), column_types=dict(types), null_values=list(empty),
                strings_can_be_null=True))
        except pa.ArrowInvalid:  # its words say neither line nor value
            return None
    is_regular = (body.lines == len(table)
                  and not body.has_nul and body.quotes % 2 == 0
                  and (body.ends_a_line or not needs_line_end)
                  and not _has_empty(table.column(0)))  # so no line is of commas alone
    return table if is_regular else None


def _has_empty(column: pa.ChunkedArray) -> bool:
    if pa.types.is_floating(column.type):  # no number is read from an empty text
        return column.null_count > 0
    return column.null_count > 0 or pc.any(pc.equal(column, '')).as_py() is True


def open_csv(path: str | os.PathLike) -> IO[bytes]:
    """Open a file for reading; a UserError if there is none."""
    try:
        return open_regular(path)
    except FileNotFoundError:
        raise UserError('no such file', path=path) from None


def _read_header(file: IO[bytes], path: str | os.PathLike) -> list[str]:
    line = file.readline(_LONGEST_HEADER)
    try:
        header = next(csv.reader([line.decode('utf-8-sig')], strict=True), [])
    except UnicodeDecodeError as error:
        raise UserError(f'not UTF-8 text: {error.reason}', path=path, row=1) from None
    except csv.Error as error:
        raise UserError(f'not the header of a CSV: {error}', path=path, row=1) from None
    if not any(header):
        raise UserError(('blank first line' if line else 'empty file')
                        + ', expected a header line', path=path)
    return header


class _Body:
    """What follows the header, handed to Arrow in blocks and looked at on the way.

    Attributes:
        quotes: how many there were.
        has_nul: there was a NUL byte.
    """

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.quotes, self.has_nul = 0, False
        self._is_blank = True
        self._line_ends = self._last_line_ends = 0  # the last: those behind everything else

    def read(self, size: int) -> bytes:
        block = self._file.read(size)
        self.quotes += block.count(b'"')
        self.has_nul = self.has_nul or b'\0' in block
        self._line_ends += block.count(b'\n')
        content = block.rstrip(b'\r\n')
        if content:
            self._is_blank, self._last_line_ends = False, 0
        self._last_line_ends += block.count(b'\n', len(content))
        return block

    @property
    def lines(self) -> int:
        """How many lines there were, without blank ones at the end."""
        return self._line_ends - self._last_line_ends + (not self._is_blank)

    @property
    def ends_a_line(self) -> bool:
        """There was nothing behind the last line end."""
        return self._is_blank or self._last_line_ends > 0


class _RepairedBody(_Body):
    """The same as text that Arrow reads to its end: all of it UTF-8, with a blank line behind it.

    What was not UTF-8 is U+FFFD. The blank line is the last row unless an open quote takes it in.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self._decoder = codecs.getincrementaldecoder('utf-8')('replace')
        self._is_over = False

    def read(self, size: int) -> bytes:
        block = super().read(size)
        text = self._decoder.decode(block, final=len(block) < size)
        if len(block) < size and not self._is_over:
            self._is_over = True
            text += '\n' if self.ends_a_line else '\n\n'
        return text.encode()


def _parse(body: _Body, header: list[str], convert: pyarrow.csv.ConvertOptions,
           on_bad_row: Callable | None = None) -> pa.Table:
    """The body as a table; with ``on_bad_row`` row by row, blank lines being rows too."""
    careful = on_bad_row is not None
    return pyarrow.csv.read_csv(
        pa.PythonFile(body, mode='r'),
        read_options=pyarrow.csv.ReadOptions(
            column_names=header, use_threads=not careful,
            block_size=_LONGEST_ROW if careful else _BLOCK),
        parse_options=pyarrow.csv.ParseOptions(
            newlines_in_values=careful, ignore_empty_lines=not careful,
            invalid_row_handler=on_bad_row),
        convert_options=convert)


def _read_row_by_row(opener: Callable[[], IO[bytes]], path: str | os.PathLike,
                     wanted: Mapping[str, object], needs_line_end: bool,
                     faults: list[tuple[int, str]]) -> tuple[pa.Table, np.ndarray]:
    """The wanted fields of the records that are sound as text, and their lines, (R,) int64."""
    skipped: list[pyarrow.csv.InvalidRow] = []

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        skipped.append(row)
        return 'skip'

    with opener() as file:
        header = _read_header(file, path)
        body = _RepairedBody(file)
        try:
            texts = _parse(body, header, pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string())), skip)
        except pa.ArrowInvalid as error:
            message = f'a row of more than {_LONGEST_ROW >> 20} MB' if 'straddl' in str(error) \
                else 'not a CSV: ' + ' '.join(str(error).split())[:200]
            raise UserError(message, path=path) from None
    places, lines = _lines_of_rows(texts, skipped)
    faults += [(int(lines[row.number - 1]), f'{row.actual_columns} columns, expected '
                f'{row.expected_columns}: {row.text[:120]!r}') for row in skipped]
    blank = np.logical_and.reduce([pc.equal(column, '').to_numpy() for column in texts.columns])
    found = _bad_texts(texts, wanted, odd_quotes=body.quotes % 2 == 1)
    last = len(lines) - 1  # the blank line of the repaired body
    if last in places[-1:] and not blank[-1]:
        found[len(places) - 1] = 'a quote that does not close takes in the rest of the file'
    elif last - 1 in places[-2:] and needs_line_end and not body.ends_a_line:
        found[int(np.searchsorted(places, last - 1))] = _NO_LINE_END
    faults += [(int(lines[places[n]]), message) for n, message in found.items()]
    good = ~blank
    good[list(found)] = False
    return texts.select(list(wanted)).filter(pa.array(good)), lines[places[good]]


def _lines_of_rows(texts: pa.Table,
                   skipped: list[pyarrow.csv.InvalidRow]) -> tuple[np.ndarray, np.ndarray]:
    """Which of all P rows each record is, (R,) int64, and the line of every row, (P,) int64."""
    skipped_places = [row.number - 1 for row in skipped]
    places = np.delete(np.arange(len(texts) + len(skipped)), skipped_places)
    more_lines = np.zeros(len(places) + len(skipped), np.int64)  # than one
    for column in texts.columns:
        more_lines[places] += pc.count_substring(column, '\n').to_numpy()
    more_lines[skipped_places] = [row.text.count('\n') for row in skipped]
    return places, 2 + np.arange(len(more_lines)) + np.cumsum(more_lines) - more_lines


def _bad_texts(texts: pa.Table, wanted: Mapping[str, object], odd_quotes: bool) -> dict[int, str]:
    """What is wrong with the text of a record, by its place in the table."""
    found: dict[int, str] = {}
    for name, column in zip(texts.column_names, texts.columns, strict=True):
        marks = {'\0': 'holds a NUL byte'}
        if name in wanted:
            marks['\ufffd'] = 'is not UTF-8 text'
        if odd_quotes:
            marks['"'] = 'holds a quote that does not close'
        for mark, message in marks.items():
            for n in np.flatnonzero(pc.match_substring(column, mark).to_numpy()).tolist():
                found.setdefault(n, f'{name} {column[n].as_py()[:60]!r} {message}')
    return found


def _convert(texts: pa.Table, types: Mapping[str, pa.DataType], empty: Sequence[str],
             lines: np.ndarray, faults: list[tuple[int, str]]) -> tuple[pa.Table, np.ndarray]:
    """Texts as the types asked for, and which of the records could be read so, (R,) bool."""
    good = np.ones(len(texts), bool)
    columns = {}
    for name, kind in types.items():
        column = texts.column(name)
        if empty:
            column = pc.if_else(pc.is_in(column, pa.array(empty)), None, column)
        if pa.types.is_floating(kind):
            column = pc.ascii_trim(column, ' \t')
            for n in _not_numbers(column):
                faults.append((int(lines[n]), f'{name} {column[n].as_py()[:60]!r} is not a number'))
                good[n] = False
        columns[name] = column
    kept = pa.table(columns).filter(pa.array(good))
    return pa.table({name: kept.column(name).dictionary_encode()
                     if pa.types.is_dictionary(kind) else kept.column(name).cast(kind)
                     for name, kind in types.items()}), good


def _not_numbers(texts: pa.ChunkedArray, start: int = 0) -> Iterator[int]:
    """Where texts are that Arrow reads no number from; found by halving, since they are few."""
    try:
        texts.cast(pa.float64())
    except pa.ArrowInvalid:
        if len(texts) == 1:
            yield start
            return
        middle = len(texts) // 2
        yield from _not_numbers(texts.slice(0, middle), start)
        yield from _not_numbers(texts.slice(middle), start + middle)
