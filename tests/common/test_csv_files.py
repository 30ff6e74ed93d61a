"""Reading CSVs: every record, its true line, and every bad row by its name."""

import contextlib
import csv
import io
import os
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projects.openimages.common import csv_files
from projects.openimages.common.csv_files import distinct, read_columns, read_header
from projects.openimages.common.errors import UserError
from tests.helpers import assert_one_line_error, run_tool

TEXTS = {'a': pa.string(), 'b': pa.string(), 'c': pa.string()}


def read(path, data, types=TEXTS, second_reading=False, **options):
    """Records as tuples, their lines, and the bad rows with what is wrong with them."""
    path.write_bytes(data)
    bad = {}
    with contextlib.ExitStack() as stack:
        if second_reading:
            stack.enter_context(mock.patch.object(csv_files, '_read_at_once', return_value=None))
        columns = read_columns(path, types, on_bad=bad.setdefault, **options)
    records = list(zip(*(columns[name].to_pylist() for name in types), strict=True))
    return records, columns.lines.tolist(), bad


def as_pythons_csv_module_reads(data: bytes) -> tuple[list, list, list]:
    """Records, the line that each begins in, and those of the rows that have not three fields."""
    reader = csv.reader(io.StringIO(data.decode('utf-8-sig'), newline=''))
    next(reader)
    records, lines, bad = [], [], []
    start = reader.line_num + 1
    for fields in reader:
        if len(fields) not in (0, 3):
            bad.append(start)
        elif any(fields):
            records.append(tuple(fields))
            lines.append(start)
        start = reader.line_num + 1
    return records, lines, bad


fields = st.lists(st.sampled_from(['a', 'b', ',', '"', '\n', '\r\n', 'é', ' ']),
                  max_size=4).map(''.join)
rows = st.one_of(st.tuples(fields, fields, fields), st.just(()), st.lists(fields, max_size=5))


@given(st.lists(st.tuples(rows, st.sampled_from(['\n', '\r\n'])), max_size=8), st.booleans(),
       st.booleans(), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_records_and_lines_are_those_of_pythons_csv_module(tmp_path_factory, written, marked, ended,
                                                           quoting):
    file = io.StringIO('a,b,c\n', newline='')
    file.seek(0, io.SEEK_END)
    for row, line_end in written:
        csv.writer(file, quoting=quoting, lineterminator=line_end).writerow(row)
    data = (b'\xef\xbb\xbf' if marked else b'') + file.getvalue().encode()
    data = data if ended else data.removesuffix(b'\n').removesuffix(b'\r')
    records, lines, bad = as_pythons_csv_module_reads(data)
    found = read(tmp_path_factory.getbasetemp() / 'property.csv', data)
    assert found[:2] == (records, lines)
    assert list(found[2]) == bad


@given(st.lists(st.sampled_from(['x,1,2', 'y,,3', ',,', '"z",4,5', '"z\nz",4,5', 'x,1', '']),
                max_size=12))
def test_both_readings_agree(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / 'readings.csv'
    data = '\n'.join(['a,b,c', *lines, '']).encode()
    assert read(path, data) == read(path, data, second_reading=True)


@pytest.mark.parametrize('end', [b'', b'\r\n', b'\r\n' * 5, b'\n\n'])
def test_file_with_a_record_in_every_line_is_read_once(tmp_path, monkeypatch, end):
    monkeypatch.setattr(csv_files, '_read_row_by_row', None)
    monkeypatch.setattr(csv_files, '_BLOCK', 16)  # line ends at the end are in several blocks
    assert read(tmp_path / 'a.csv', b'a,b,c\r\nx,1,2\r\ny,"3",4' + end)[1] == [2, 3]


@given(st.lists(st.floats(allow_nan=False) | st.integers(-9, 9)), st.booleans())
def test_numbers_are_those_of_python(tmp_path_factory, values, second_reading):
    path = tmp_path_factory.getbasetemp() / 'numbers.csv'
    data = ''.join(['a,b,c\n', *(f'x,{value},\n' for value in values)]).encode()
    records, _, bad = read(path, data, {'b': pa.float64()}, second_reading)
    assert np.array_equal(np.array(records).reshape(-1), np.array(values, float)) and not bad


def test_fields_that_are_no_numbers_are_found_among_many(tmp_path):
    texts = [str(n) for n in range(50)]
    wrong = {0: '', 7: '0.3x', 8: 'one', 31: '1_0', 49: '0x1'}
    for place, text in wrong.items():
        texts[place] = text
    data = ''.join(['a,b,c\n', *(f'x,{text},\n' for text in texts)]).encode()
    records, lines, bad = read(tmp_path / 'a.csv', data, {'b': pa.float64(), 'a': pa.string()})
    assert bad == {place + 2: f'b {text!r} is not a number' for place, text in wrong.items()}
    assert lines == [place + 2 for place in range(50) if place not in wrong]
    assert [value for value, _ in records] == [float(line - 2) for line in lines]


@pytest.mark.parametrize(('data', 'bad'), [
    (b'x,1\n', {2: "2 columns, expected 3: 'x,1'"}),
    (b'x,1,2,3\ny,2,3\n', {2: "4 columns, expected 3: 'x,1,2,3'"}),
    (b'x,1,2\nx,\0,2\n', {3: "b '\\x00' holds a NUL byte"}),
    (b'x,1,2\n\0\0\0\0', {3: "1 columns, expected 3: '\\x00\\x00\\x00\\x00'"}),
    (b'x,1,2\n\nx\xff,1,2\n', {4: "a 'x\ufffd' is not UTF-8 text"}),
    (b'x\xff,1\n', {2: "2 columns, expected 3: 'x\ufffd,1'"}),
    (b'x,1,2\xe2', {2: "c '2\ufffd' is not UTF-8 text"}),
    (b'x,1,2\ny,2,"3\nz,3,4\n', {3: 'a quote that does not close takes in the rest of the file'}),
    (b'x,1,2\ny,2,"3', {3: 'a quote that does not close takes in the rest of the file'}),
    (b'x,1,"2\ny,2,"3"\nz,3,4\n', {2: 'c \'2\\ny,2,3"\' holds a quote that does not close'}),
])
def test_bad_row_is_told_with_its_line(tmp_path, data, bad):
    path = tmp_path / 'a.csv'
    assert read(path, b'a,b,c\n' + data)[2] == bad
    with pytest.raises(UserError) as error:
        read_columns(path, TEXTS)
    (row, message), = bad.items()
    assert str(error.value) == f'{path}, row {row}: {message}'


def test_bad_rows_are_told_in_the_order_of_the_file(tmp_path):
    data = b'a,b,c\nx,one,1\nx\nx,1,\xff\nx,two,\0\n'
    bad = read(tmp_path / 'a.csv', data, {'b': pa.float64(), 'c': pa.string()})[2]
    assert list(bad) == [2, 3, 4, 5]


def test_bytes_that_nobody_wants_need_not_be_text(tmp_path):
    for second_reading in (False, True):
        records, _, bad = read(tmp_path / 'a.csv', b'a,b,c\nx,\xff,1\n',
                               {'a': pa.string(), 'c': pa.string()}, second_reading)
        assert records == [('x', '1')] and not bad


@pytest.mark.parametrize(('end', 'is_bad'), [(b'', True), (b'\n', False), (b'\r\n', False),
                                             (b'\r', True), (b'\n\n', False)])
def test_last_row_without_a_line_end_is_bad_where_it_may_not_be(tmp_path, end, is_bad):
    data = b'a,b,c\r\nx,1,2\r\ny,1,2' + end
    records, _, bad = read(tmp_path / 'a.csv', data, needs_line_end=True)
    assert len(records) == 2 - is_bad
    assert [(row, 'no line end' in message) for row, message in bad.items()] == [(3, True)] * is_bad
    assert read(tmp_path / 'a.csv', data)[2] == {}


def test_last_row_with_a_line_end_is_good_in_a_file_with_other_faults(tmp_path):
    records, lines, bad = read(tmp_path / 'a.csv', b'a,b,c\n\nx\ny,1,2\n', needs_line_end=True)
    assert (records, lines, list(bad)) == ([('y', '1', '2')], [4], [3])


def test_blanks_around_a_number_are_no_part_of_it(tmp_path):
    for second_reading in (False, True):
        records, _, bad = read(tmp_path / 'a.csv', b'a,b,c\nx, 1\t,\n', {'b': pa.float64()},
                               second_reading)
        assert records == [(1.0,)] and not bad


def test_rows_cut_inside_a_field_before_the_last_are_bad_anyway(tmp_path):
    for needs_line_end in (False, True):
        assert list(read(tmp_path / 'a.csv', b'a,b,c\nx,1,2\ny,1',
                         needs_line_end=needs_line_end)[2]) == [3]


@pytest.mark.parametrize('second_reading', [False, True])
def test_fields_of_any_length_are_read(tmp_path, second_reading):
    long = 'x' * 200_000
    records, _, bad = read(tmp_path / 'a.csv', f'a,b,c\n{long},1,2\n'.encode(),
                           second_reading=second_reading)
    assert records == [(long, '1', '2')] and not bad


def test_row_longer_than_a_block_is_read_and_one_that_is_far_too_long_is_an_error(tmp_path,
                                                                                 monkeypatch):
    monkeypatch.setattr(csv_files, '_BLOCK', 1000)
    monkeypatch.setattr(csv_files, '_LONGEST_ROW', 5 << 20)
    data = b'a,b,c\n' + b'x' * 5000 + b',1,2\n'
    assert read(tmp_path / 'a.csv', data)[0][0][0] == 'x' * 5000
    with pytest.raises(UserError, match=r'a\.csv: a row of more than 5 MB'):
        read(tmp_path / 'a.csv', b'a,b,c\n' + b'x' * (12 << 20) + b',1,2\n')


def test_blocks_do_not_show(tmp_path, monkeypatch):
    lines = [f'"é{n}\n{n}",{n},' if n % 3 else f'é{n},{n},' if n % 5 else f'{n}'
             for n in range(400)]
    data = '\n'.join(['a,b,c', *lines, '']).encode()
    expected = read(tmp_path / 'a.csv', data)
    for name in ('_BLOCK', '_LONGEST_ROW'):
        monkeypatch.setattr(csv_files, name, 61)
    assert read(tmp_path / 'a.csv', data) == expected


def test_empty_texts_become_null_in_both_readings(tmp_path):
    for second_reading in (False, True):
        records, _, _ = read(tmp_path / 'a.csv', b'a,b,c\nx,NA,\ny,na,"NA"\n',
                             second_reading=second_reading, empty=['', 'NA'])
        assert records == [('x', None, None), ('y', 'na', None)]


def test_column_of_repeated_names_is_its_values_and_codes(tmp_path):
    kind = {'a': pa.dictionary(pa.int32(), pa.string())}
    for blank in (b'', b'\n'):
        (tmp_path / 'a.csv').write_bytes(b'a,b\nx,1\n' + blank + b'y,1\nx,1\n')
        for types in (kind, {'a': pa.string()}):
            values, codes = distinct(read_columns(tmp_path / 'a.csv', types)['a'])
            assert [values[code] for code in codes] == ['x', 'y', 'x'] and len(values) == 2
    (tmp_path / 'a.csv').write_bytes(b'a,b\n')
    assert distinct(read_columns(tmp_path / 'a.csv', kind)['a']).values == []


@pytest.mark.parametrize(('data', 'words'), [
    (b'', 'empty file, expected a header line'),
    (b'\na,b,c\n', 'blank first line'),
    (b'a,b\nx,1\n', "row 1: no column 'c', expected a, b, c; it has 'a,b'"),
    (b'a,b,c,b\nx,1,2,3\n', "row 1: more than one column 'b'"),
    (b'\xff\xfea\0', 'row 1: not UTF-8 text'),
    (b'a,"b,c\n', 'row 1: not the header of a CSV: unexpected end of data'),
    (b'"' + b'a' * 200_000 + b'",b\n', 'row 1: not the header of a CSV'),
    (b'a' * 10_000_000, 'row 1: no column'),
])
def test_header_that_will_not_do_is_one_short_line(tmp_path, data, words):
    (tmp_path / 'a.csv').write_bytes(data)
    with pytest.raises(UserError) as error:
        read_columns(tmp_path / 'a.csv', TEXTS)
    assert words in str(error.value)
    assert '\n' not in str(error.value) and len(str(error.value)) < 600


def test_header_is_read_alone(tmp_path):
    (tmp_path / 'a.csv').write_bytes(b'\xef\xbb\xbfa,"b,b",\xc3\xa9\r\n\xff')
    assert read_header(tmp_path / 'a.csv') == ['a', 'b,b', 'é']


@pytest.mark.parametrize(('make', 'words'), [
    (lambda path: None, 'no such file'),
    (lambda path: path.mkdir(), 'a folder'),
    (os.mkfifo, 'a FIFO'),
    (lambda path: path.symlink_to('/dev/zero'), 'a device'),
    (lambda path: path.symlink_to(path), 'Too many levels of symbolic links'),
])
def test_what_is_no_file_is_said_in_one_line(tmp_path, make, words):
    path = tmp_path / 'a.csv'
    make(path)
    code = ('import sys\nfrom projects.openimages.common.csv_files import read_columns\n'
            'from projects.openimages.common.errors import run_command\n'
            'run_command(lambda: read_columns(sys.argv[1], {}))')
    assert_one_line_error(run_tool('-c', code, path, timeout=60), 'a.csv', words)
