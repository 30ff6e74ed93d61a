"""The official CSVs as typed columns, with every bad row in a log."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import pyarrow as pa

from projects.openimages.common.csv_files import CsvColumns, read_columns
from projects.openimages.common.csv_pieces import read_matching
from projects.openimages.data.problems import ProblemLog

_TYPES = {'text': pa.large_string(), 'number': pa.float64(),
          'name': pa.dictionary(pa.int32(), pa.string())}
"""``text`` is kept as it is, ``name`` is text with many repetitions, ``number`` a float64."""


def read_table(path: str | os.PathLike, columns: Mapping[str, str], log: ProblemLog, *,
               needs_line_end: bool = False,
               keep: Callable[[pa.Table], pa.ChunkedArray] | None = None) -> CsvColumns:
    """Read some columns of a CSV with a header line.

    Args:
        path: the file.
        columns: kind by column name: ``'text'``, ``'name'`` or ``'number'``.
        log: gets every row that cannot be read.
        needs_line_end: a last row without a line end is one of those: the file may be cut off in
            its last field. Right for downloads, not for what people write by hand.
        keep: says which rows of a table to keep; the file may be larger than memory then.

    Raises:
        UserError: no such file, a column missing from the header, or a bad row that is not to be
            skipped.
    """
    types = {name: _TYPES[kind] for name, kind in columns.items()}

    def on_bad(row: int, message: str) -> None:
        log.bad('broken_row', message, path=path, row=row)

    if keep is None:
        return read_columns(path, types, needs_line_end=needs_line_end, on_bad=on_bad)
    return read_matching(path, types, keep, on_bad, needs_line_end=needs_line_end)
