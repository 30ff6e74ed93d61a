"""Some rows of a CSV that is larger than memory should be.

The file is read in pieces of whole rows, each as :mod:`projects.openimages.common.csv_files` reads
a file, and of every piece only the rows asked for are kept. So what is needed at a time is a piece
and what is kept, also where rows are bad or go over several lines.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import pyarrow as pa

from projects.openimages.common.csv_files import CsvColumns, OnBadRow, open_csv, read_stream

_PIECE = 1 << 25
_LONGEST_PIECE = 1 << 27
"""Where no row ends within so much, a quote is open that nobody meant: rows end at line ends then.
"""


def read_matching(path: str | os.PathLike, types: Mapping[str, pa.DataType],
                  keep: Callable[[pa.Table], pa.ChunkedArray], on_bad: OnBadRow, *,
                  needs_line_end: bool = False) -> CsvColumns:
    """Read some rows of some columns of a CSV with a header line.

    Args:
        path: the file.
        types: as for ``read_columns``.
        keep: is called with the columns of some rows, dictionaries being texts, and says which
            of them to keep.
        on_bad, needs_line_end: as for ``read_columns``.
    """
    tables, lines = [], []
    # A dictionary is made of what is kept, or it would hold the values of the other rows as well.
    encoded = {name for name, kind in types.items() if pa.types.is_dictionary(kind)}
    types = {name: kind.value_type if name in encoded else kind for name, kind in types.items()}
    for piece, line in _pieces(path):
        shift = line - 2  # a piece comes with the header, which is its line 1

        def report(row: int, message: str, shift: int = shift) -> None:
            on_bad(row + shift, message)

        columns = read_stream(partial(io.BytesIO, piece), path, types, on_bad=report,
                              needs_line_end=needs_line_end)
        kept = keep(columns.table)
        table = columns.table.filter(kept)
        tables.append(pa.table({name: table[name].dictionary_encode() if name in encoded
                                else table[name] for name in types}))
        lines.append(columns.lines[kept.to_numpy()] + shift)
    return CsvColumns(path, pa.concat_tables(tables), np.concatenate(lines))


def _pieces(path: str | os.PathLike) -> Iterator[tuple[bytes, int]]:
    """Whole rows behind the header, and the line of the first; one piece at least.

    A row ends at a line end that an even number of quotes precedes.
    """
    with open_csv(path) as file:
        header = file.readline()
        line, rest = 2, b''
        while True:
            block = file.read(_PIECE)
            data = rest + block
            end = len(data) if not block else data.rfind(b'\n') + 1
            is_quoted = data.count(b'"', 0, end) % 2 == 1 and len(data) < _LONGEST_PIECE
            if block and (is_quoted or not end):
                rest = data
                continue
            rest = data[end:]
            if end or line == 2:
                yield header + data[:end], line
            if not block:
                return
            line += data.count(b'\n', 0, end)
