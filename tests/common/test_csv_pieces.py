"""Some rows of a CSV, read in pieces: the same rows and lines as of the file read as a whole."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projects.openimages.common import csv_pieces
from projects.openimages.common.csv_files import read_columns
from projects.openimages.common.csv_pieces import read_matching
from projects.openimages.common.errors import UserError

TYPES = {'name': pa.dictionary(pa.int32(), pa.string()), 'number': pa.float64()}


def keep_short(table: pa.Table) -> pa.ChunkedArray:
    return pc.less(pc.utf8_length(table['name'].cast(pa.string())), 2)


def read_both(path, piece: int, needs_line_end: bool = False):
    """What both ways say: names, numbers and lines of the short names, and the bad rows."""
    found = []
    for read in ('whole', 'pieces'):
        bad: list[int] = []
        if read == 'whole':
            columns = read_columns(path, TYPES, needs_line_end=needs_line_end,
                                   on_bad=lambda row, _, bad=bad: bad.append(row))
            kept = keep_short(columns.table)
            table, lines = columns.table.filter(kept), columns.lines[kept.to_numpy()]
        else:
            columns = read_matching(path, TYPES, keep_short,
                                    lambda row, _, bad=bad: bad.append(row),
                                    needs_line_end=needs_line_end)
            table, lines = columns.table, columns.lines
        found.append((table['name'].to_pylist(), table['number'].to_pylist(), lines.tolist(),
                      sorted(bad)))
    return found


ROWS = st.sampled_from(['a,1', 'bb,2', 'c,3', '"d",4', '"two\nlines",5', '"e""e",6', '', ',,',
                        'f', 'g,x', '"h\n\n",7', 'i,8'])


@settings(max_examples=200)
@given(st.lists(ROWS, max_size=12), st.integers(1, 40), st.booleans(), st.booleans())
def test_pieces_say_what_the_whole_file_says(tmp_path_factory, rows, piece, ends, needs_end):
    path = tmp_path_factory.mktemp('csv') / 'a.csv'
    text = '\n'.join(['name,number', *rows]) + ('\n' if ends or not rows else '')
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_pieces, '_PIECE', piece)
        whole, pieces = read_both(path, piece, needs_end)
    assert pieces == whole


def test_only_a_piece_is_read_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_pieces, '_PIECE', 50)
    path = tmp_path / 'a.csv'
    path.write_text('name,number\n' + ''.join(f'row{n},{n}\n' for n in range(1000)))
    sizes: list[int] = []

    def keep(table: pa.Table) -> pa.ChunkedArray:
        sizes.append(len(table))
        return pc.equal(table['number'], 777)

    columns = read_matching(path, TYPES, keep, lambda row, message: None)
    assert columns['name'].to_pylist() == ['row777'] and columns.lines.tolist() == [779]
    assert sum(sizes) == 1000 and max(sizes) < 15


def test_open_quote_does_not_take_in_more_than_a_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_pieces, '_PIECE', 40)
    monkeypatch.setattr(csv_pieces, '_LONGEST_PIECE', 80)
    path = tmp_path / 'a.csv'
    path.write_text('name,number\na,1\n"b,2\n' + 'c,3\n' * 100)
    bad: list[int] = []
    columns = read_matching(path, TYPES, keep_short, lambda row, _: bad.append(row))
    assert bad and min(bad) == 3 and max(bad) < 30
    assert columns.lines[0] == 2 and columns.lines[-1] == 103


@pytest.mark.parametrize(('text', 'words'), [('', 'empty file'), ('name\n', "no column 'number'")])
def test_file_that_is_no_such_csv_is_refused(tmp_path, text, words):
    path = tmp_path / 'a.csv'
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        read_matching(path, TYPES, keep_short, lambda row, message: None)
