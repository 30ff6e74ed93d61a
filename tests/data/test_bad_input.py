"""Bad input: one clear line with file and row and nothing half-written, or skipped and listed."""

import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from projects.openimages.common.errors import UserError
from tests.data.helpers import (
    archive_of,
    line_of,
    open_prepared,
    outputs,
    prepare,
    replace_line,
    rewrite_archive,
    table,
)
from tests.helpers import REPOSITORY, assert_one_line_error, run_tool


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))


HUGE_PNG = (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', 60_000, 60_000, 1, 0, 0,
                                                              0, 0))
            + chunk(b'IDAT', zlib.compress(bytes(1000))) + chunk(b'IEND', b''))


def first_mask(root: Path) -> str:
    return line_of(table(root, 'masks'), 2).split(',')[0]


def change_first_mask(root: Path, change) -> None:
    name = first_mask(root)
    rewrite_archive(archive_of(root, 2), lambda entry, data: (
        entry, change(data) if entry == name else data))


def cut_line(path: Path) -> None:
    """End the file in the middle of its last line."""
    path.write_bytes(path.read_bytes()[:-12])


def last_row(path: Path) -> int:
    return len(path.read_text(encoding='utf-8').splitlines())


def edit_field(path: Path, row: int, field: int, value: str) -> None:
    fields = line_of(path, row).rstrip('\n').split(',')
    fields[field] = value
    replace_line(path, row, ','.join(fields) + '\n')


def repeat_line(path: Path, row: int, change=lambda row: row) -> None:
    with open(path, 'a', encoding='utf-8') as file:
        file.write(change(line_of(path, row).rstrip('\n') + '\n').rstrip('\n') + '\n')


def first_image(root: Path) -> Path:
    image_id = line_of(table(root, 'bbox'), 2).split(',')[0]
    return root / 'images' / 'train' / f'{image_id}.jpg'


def climbing_entry(root: Path) -> None:
    with zipfile.ZipFile(archive_of(root, 2), 'a') as archive:
        archive.writestr('../../evil.png', b'x')


def remove_first_mask(root: Path) -> None:
    name = first_mask(root)
    rewrite_archive(archive_of(root, 2), lambda entry, data: (
        'other.png' if entry == name else entry, data))


def truncate(path: Path, keep: int | None = None) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:len(data) * 6 // 10 if keep is None else keep])


def flip_byte_of_first_mask(root: Path) -> None:
    path, name = archive_of(root, 2), first_mask(root)
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo(name).header_offset + 30 + len(name) + 60
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


FAULTS = {
    # name: (what to break, the problem's kind, how the line must start after the root, its words)
    'missing image': (lambda root: first_image(root).unlink(), 'missing_image',
                      'segmentation-bbox.csv, row 2: ', 'no such image'),
    'empty image': (lambda root: first_image(root).write_bytes(b''), 'broken_image',
                    'segmentation-bbox.csv, row 2: ', 'zero bytes'),
    'truncated image': (lambda root: first_image(root).write_bytes(b'\xff\xd8\xff\xe0\0\x10JFIF'),
                        'broken_image', 'segmentation-bbox.csv, row 2: ', 'truncated JPEG'),
    'image of something else': (lambda root: first_image(root).write_bytes(b'<html>' * 9),
                                'broken_image', 'segmentation-bbox.csv, row 2: ', 'not an image'),
    'unknown MID in boxes': (lambda root: edit_field(table(root, 'bbox'), 3, 1, '/m/0nobody'),
                             'unknown_class', 'segmentation-bbox.csv, row 3: ', '/m/0nobody'),
    'unknown MID in labels': (lambda root: edit_field(table(root, 'labels'), 3, 1, '/m/0nobody'),
                              'unknown_class', 'segmentation-labels.csv, row 3: ', '/m/0nobody'),
    'unknown MID in masks': (lambda root: edit_field(table(root, 'masks'), 3, 2, '/m/0nobody'),
                             'unknown_class', 'segmentation-masks.csv, row 3: ', '/m/0nobody'),
    'box beyond 1': (lambda root: edit_field(table(root, 'bbox'), 4, 3, '1.25'),
                     'box_outside_image', 'segmentation-bbox.csv, row 4: ', 'XMax 1.25'),
    'box below 0': (lambda root: edit_field(table(root, 'masks'), 4, 4, '-0.1'),
                    'box_outside_image', 'segmentation-masks.csv, row 4: ', 'BoxXMin -0.1'),
    'box with sides swapped': (lambda root: edit_field(table(root, 'bbox'), 4, 2, '0.99999'),
                               'box_outside_image', 'segmentation-bbox.csv, row 4: ', 'swapped'),
    'box not a number': (lambda root: edit_field(table(root, 'bbox'), 4, 3, '0.3x'),
                         'broken_row', 'segmentation-bbox.csv, row 4: ', "XMax '0.3x'"),
    'box is nan': (lambda root: edit_field(table(root, 'bbox'), 4, 3, 'nan'),
                   'box_outside_image', 'segmentation-bbox.csv, row 4: ', 'XMax nan'),
    'flag of 7': (lambda root: edit_field(table(root, 'bbox'), 4, 6, '7'), 'broken_row',
                  'segmentation-bbox.csv, row 4: ', 'IsGroupOf 7'),
    'label of one half': (lambda root: edit_field(table(root, 'labels'), 4, 2, '0.5'),
                          'broken_row', 'segmentation-labels.csv, row 4: ', 'Confidence 0.5'),
    'image id that is a path': (lambda root: edit_field(table(root, 'labels'), 4, 0, '../../x'),
                                'broken_row', 'segmentation-labels.csv, row 4: ', '../../x'),
    'box that is a group and none': (
        lambda root: repeat_line(table(root, 'bbox'), 5, lambda row: row[:-2] + '10'[int(row[-2])]),
        'contradicting_row', 'segmentation-bbox.csv, row LAST: ', 'IsGroupOf than row 5'),
    'label that is present and absent': (
        lambda root: repeat_line(table(root, 'labels'), 5,
                                 lambda row: row[:-2] + '10'[int(row[-2])]),
        'contradicting_row', 'segmentation-labels.csv, row LAST: ', 'Confidence than row 5'),
    'mask of two boxes': (
        lambda root: repeat_line(table(root, 'masks'), 5, lambda row: row.replace('0.', '0.0')),
        'contradicting_row', 'segmentation-masks.csv, row LAST: ', 'box than row 5'),
    'boxes cut in mid-line': (lambda root: cut_line(table(root, 'bbox')), 'broken_row',
                              'segmentation-bbox.csv, row LAST: ', 'expected 7'),
    'masks cut in mid-line': (lambda root: cut_line(table(root, 'masks')), 'broken_row',
                              'segmentation-masks.csv, row LAST: ', 'no line end'),
    'labels cut at the last byte': (lambda root: truncate(table(root, 'labels'), -1), 'broken_row',
                                    'segmentation-labels.csv, row LAST: ', 'no line end'),
    'missing mask': (remove_first_mask, 'missing_mask', 'segmentation-masks.csv, row 2: ',
                     'no such file in the mask archives'),
    'mask is no PNG': (lambda root: change_first_mask(root, lambda data: b'not a PNG at all'),
                       'broken_mask', 'segmentation-masks.csv, row 2: ', 'not a PNG'),
    'mask of zero bytes': (lambda root: change_first_mask(root, lambda data: b''), 'broken_mask',
                           'segmentation-masks.csv, row 2: ', 'empty file'),
    'truncated mask': (lambda root: change_first_mask(root, lambda data: data[:len(data) // 2]),
                       'broken_mask', 'segmentation-masks.csv, row 2: ', 'truncated PNG'),
    'mask of 60000x60000': (lambda root: change_first_mask(root, lambda data: HUGE_PNG),
                            'broken_mask', 'segmentation-masks.csv, row 2: ', '60000x60000'),
    'damaged zip entry': (flip_byte_of_first_mask, 'broken_mask',
                          'segmentation-masks.csv, row 2: ', 'wrong checksum'),
    'truncated zip': (lambda root: truncate(archive_of(root, 2)), 'broken_archive', '.zip: ',
                      'corrupt or truncated zip'),
    'zip entry that climbs out': (climbing_entry, 'unsafe_archive_name', '.zip: ', 'evil.png'),
}


@pytest.mark.parametrize('name', FAULTS)
def test_bad_input_stops_with_its_place_and_leaves_nothing(data_root, name):
    damage, _, place, words = FAULTS[name]
    damage(data_root)
    with pytest.raises(UserError) as caught:
        prepare(data_root)
    message = str(caught.value)
    last = {kind: last_row(table(data_root, kind)) for kind in ('bbox', 'labels', 'masks')}
    for kind, row in last.items():
        place = place.replace(f'{kind}.csv, row LAST', f'{kind}.csv, row {row}')
    assert message.startswith(str(data_root)) and place in message and words in message, message
    assert '\n' not in message
    folder = data_root / 'prepared' / 'train'
    assert not folder.exists() or [path.name for path in folder.iterdir()] == ['.parts']


@pytest.mark.parametrize('name', FAULTS)
def test_bad_input_is_skipped_counted_and_listed(data_root, name):
    damage, kind, place, words = FAULTS[name]
    damage(data_root)
    prepare(data_root, skip_bad=True)
    report = json.loads((data_root / 'prepared/train/report.json').read_text(encoding='utf-8'))
    found = report['problems'][kind]
    assert found['count'] == len(found['rows']) >= 1
    assert words in found['rows'][0]['message']
    assert found['rows'][0]['file'].endswith(place.split(',')[0].removesuffix(': '))
    if ', row' in place:
        assert found['rows'][0]['row'] >= 2
    assert kind in (data_root / 'prepared/train/report.txt').read_text(encoding='utf-8')
    assert open_prepared(data_root).num_images > 10


def test_skipped_mask_leaves_a_box_without_mask(data_root, prepared_data):
    change_first_mask(data_root, lambda data: b'')
    prepare(data_root, skip_bad=True)
    whole, broken = open_prepared(prepared_data), open_prepared(data_root)
    assert broken.boxes.tolist() == whole.boxes.tolist()
    assert whole.has_mask.sum() - broken.has_mask.sum() == 1


def test_skipped_image_leaves_with_all_its_rows(data_root, prepared_data):
    image = first_image(data_root)
    image.unlink()
    prepare(data_root, skip_bad=True)
    whole, broken = open_prepared(prepared_data), open_prepared(data_root)
    assert list(broken.image_ids) == [i for i in whole.image_ids if i != image.stem]
    for row, image_id in enumerate(broken.image_ids):
        mine, reference = broken.image(row), whole.image(whole.find(image_id))
        assert mine.masks == reference.masks
        assert mine.label_class_ids.tolist() == reference.label_class_ids.tolist()
        assert np.array_equal(mine.boxes, reference.boxes)


@pytest.mark.parametrize('change', [
    lambda data: b'\xef\xbb\xbf' + data,
    lambda data: data.replace(b'\n', b'\r\n'),
    lambda data: data + b'\n\n',
    lambda data: data + b',' * data.split(b'\n', 1)[0].count(b',') + b'\n',
    lambda data: b'\xef\xbb\xbf' + data.replace(b'\n', b'\r\n') + b'\r\n',
], ids=['byte-order mark', 'CRLF', 'blank lines', 'commas alone', 'all at once'])
def test_harmless_differences_of_text_change_nothing(data_root, prepared_data, change):
    for name in ('bbox', 'labels', 'masks'):
        path = table(data_root, name)
        path.write_bytes(change(path.read_bytes()))
    prepare(data_root)
    assert outputs(data_root) == outputs(prepared_data)


def test_labels_under_their_other_name_are_found(data_root, prepared_data):
    path = table(data_root, 'labels')
    path.rename(path.with_name('challenge-2019-train-segmentation-imagelabels.csv'))
    prepare(data_root)
    assert outputs(data_root)['index.arrow'] == outputs(prepared_data)['index.arrow']


def test_row_of_an_error_after_a_quoted_line_is_the_files_line(data_root):
    path = table(data_root, 'bbox')
    replace_line(path, 3, '\n' + line_of(path, 3))  # a blank line moves the records, not the lines
    edit_field(path, 9, 1, '/m/0nobody')
    with pytest.raises(UserError, match=r'row 9: .*nobody'):
        prepare(data_root)


def missing(name: str):
    return lambda root: (root / name).unlink()


def drop_last_class(root: Path) -> None:
    path = root / 'challenge-2019-classes-description-segmentable.csv'
    path.write_text(''.join(path.read_text(encoding='utf-8').splitlines(True)[:-1]),
                    encoding='utf-8')


def rename_column(root: Path) -> None:
    replace_line(table(root, 'bbox'), 1, 'ImageID,LabelName,X1,XMax,YMin,YMax,IsGroupOf\n')


def instead_of(name: str, make):
    """Something else in the place of a CSV."""
    def damage(root: Path) -> None:
        table(root, name).unlink()
        make(table(root, name))
    return damage


@pytest.mark.parametrize(('damage', 'words'), [
    (missing('challenge-2019-train-segmentation-bbox.csv'), ['segmentation-bbox.csv']),
    (missing('challenge-2019-train-segmentation-masks.csv'), ['segmentation-masks.csv']),
    (missing('challenge-2019-train-segmentation-labels.csv'), ['segmentation-labels.csv']),
    (missing('challenge-2019-classes-description-segmentable.csv'), ['classes-description']),
    (missing('challenge-2019-label300-segmentable-hierarchy.json'), ['hierarchy.json']),
    (drop_last_class, ['299 classes, expected 300']),
    (rename_column, ['segmentation-bbox.csv, row 1', "no column 'XMin'"]),
    (lambda root: table(root, 'bbox').write_bytes(b''), ['segmentation-bbox.csv', 'empty file']),
    (lambda root: truncate(archive_of(root, 2)), ['.zip', 'corrupt or truncated zip']),
    (lambda root: edit_field(table(root, 'bbox'), 4, 3, '1.25'), ['bbox.csv, row 4', 'XMax 1.25']),
    (instead_of('bbox', Path.mkdir), ['segmentation-bbox.csv', 'a folder']),
    (instead_of('labels', os.mkfifo), ['segmentation-labels.csv', 'a FIFO']),
    (instead_of('masks', lambda path: path.symlink_to(path.name)),
     ['segmentation-masks.csv', 'Too many levels of symbolic links']),
    (instead_of('bbox', lambda path: path.symlink_to('/nowhere')),
     ['segmentation-bbox.csv', 'No such file']),
])
def test_command_ends_with_one_line_and_exit_code_2(data_root, damage, words):
    damage(data_root)
    result = run_tool('tools/prepare_data.py', '--data-root', data_root, '--split', 'train',
                      '--workers', 1)
    assert_one_line_error(result, *words)
    folder = data_root / 'prepared' / 'train'
    assert not folder.exists() or [path.name for path in folder.iterdir()] == ['.parts']


def test_missing_data_root_is_said_in_one_line(tmp_path):
    result = run_tool('tools/prepare_data.py', '--data-root', tmp_path / 'nowhere')
    assert_one_line_error(result, 'nowhere', 'no such folder')


@pytest.mark.parametrize('limit', [1_000, 9_000, 15_000, 25_000, 40_000, 60_000])
def test_full_disk_is_said_in_one_line_and_leaves_nothing(data_root, prepared_data, limit):
    """A limit on the size of files stands for a full disk: writing fails in the midst of a file."""
    sizes = [len(content) for content in outputs(prepared_data).values()]
    assert max(sizes) > limit
    script = ('import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); '
              f'resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY)); '
              'sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name="__main__")')
    command = [sys.executable, '-c', script, 'tools/prepare_data.py', '--data-root',
               str(data_root), '--split', 'train', '--workers', '1']
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert_one_line_error(result, 'File too large')
    folder = data_root / 'prepared' / 'train'
    assert [path.name for path in folder.iterdir()] == ['.parts']
    assert not list(folder.rglob('*.part'))
    prepare(data_root)
    assert outputs(data_root) == outputs(prepared_data)


def test_image_without_a_size_is_said_where_there_are_no_images(data_root):
    sizes = data_root / 'sizes.csv'
    sizes.write_text('ImageID,ImageWidth,ImageHeight\n0a,30,40\n', encoding='utf-8')
    shutil.rmtree(data_root / 'images' / 'train')
    with pytest.raises(UserError, match=r'bbox\.csv, row \d+: .*no size for it in the sizes CSV'):
        prepare(data_root, sizes=sizes)


def test_listed_image_must_be_there_even_if_its_size_is_known(data_root, prepared_data):
    index = open_prepared(prepared_data)
    sizes = data_root / 'sizes.csv'
    sizes.write_text('ImageID,ImageWidth,ImageHeight\n' + ''.join(
        f'{image_id},30,40\n' for image_id in index.image_ids), encoding='utf-8')
    first_image(data_root).unlink()
    with pytest.raises(UserError, match=r'bbox\.csv, row 2: .*no such image'):
        prepare(data_root, sizes=sizes)


def test_test_split_without_images_is_said(data_root):
    for path in (data_root / 'images' / 'test').iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r'images/test: no \.jpg image'):
        prepare(data_root, 'test')
