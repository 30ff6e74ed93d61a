"""Every rule of the submission format."""

import json
import os
import zlib
from base64 import b64encode

import numpy as np
import pytest
from PIL import Image

from projects.openimages.common.errors import UserError
from projects.openimages.masks import encode_text, rle_from_crop
from projects.openimages.submissions import check, formats
from projects.openimages.submissions.check import check_submission
from projects.openimages.submissions.formats import HEADERS
from projects.openimages.submissions.image_list import count_warning, find_mids, read_image_list
from tests.helpers import assert_one_line_error, run_tool, write_classes

MIDS = ('/m/0cat', '/m/0dog')
IMAGES = {'a': (8, 6), 'b': (5, 7)}


def mask(width=8, height=6, size=2):
    return encode_text(rle_from_crop(np.ones((size, size), bool), 1, 1, height, width)['counts'])


A = f'a,8,6,/m/0cat 0.95 {mask()} /m/0dog 1.0 {mask()}'
B = 'b,5,7,'


@pytest.fixture
def checked(tmp_path):
    def run(*rows, submission_format='kaggle', images=IMAGES, **options):
        path = tmp_path / 'a.csv'
        path.write_text('\n'.join([HEADERS[submission_format], *rows]) + '\n')
        return check_submission(path, images, MIDS, **options)
    return run


def test_right_submission_has_no_errors_and_is_summed_up(checked):
    report = checked(A, B)
    assert report.ok and (report.rows, report.images, report.detections) == (2, 2, 2)
    assert report.histogram.tolist() == [0] * 9 + [2] and report.per_image.tolist() == [2, 0]
    assert 'an image: mean 1.00, median 1, most 2' in str(report)


@pytest.mark.parametrize(('row', 'message'), [
    ('a,8,6', '3 fields, expected 4'),
    ('a,8,six,', "image height 'six'"),
    ('x,8,6,', "unknown image 'x'"),
    ('a,6,8,', 'image a of 6x8, expected 8x6'),
    (f'a,8,6,/m/0cat 0.5 {mask()} /m/0dog', '4 words'),
    (f'a,8,6,/m/0cow 0.5 {mask()}', "unknown class '/m/0cow'"),
    (f'a,8,6,/m/0cat high {mask()}', "score 'high'"),
    (f'a,8,6,/m/0cat 1.5 {mask()}', "score '1.5', expected a number from 0 to 1"),
    (f'a,8,6,/m/0cat nan {mask()}', "score 'nan'"),
    ('a,8,6,/m/0cat 0.5 ***', 'not base64'),
    ('a,8,6,/m/0cat 0.5 AAAA', 'not zlib'),
    (f'a,8,6,/m/0cat 0.5 {mask(8, 7)}', 'mask of 56 pixels in an image of 8x6 = 48'),
    (f'a,8,6,/m/0cat 0.5 {encode_text(b"")}', 'stop in the middle'),
], ids=lambda value: value[:25] if ' ' not in value[:20] else None)
def test_broken_row_is_named(checked, row, message):
    report = checked(B, row, images={'a': (8, 6), 'b': (5, 7)})
    broken = [error for error in report.errors if error[0] is not None]
    assert len(broken) == 1 and broken[0][0] == 3 and message in broken[0][1]


def test_one_bad_mask_among_many_is_found_and_the_others_count(checked):
    good, bad = f'/m/0cat 0.5 {mask()}', f'/m/0cat 0.5 {mask(9, 9)}'
    report = checked('a,8,6,' + ' '.join([good] * 7 + [bad] + [good] * 9), B)
    assert report.num_errors == 1 and report.detections == 17


def test_repeated_and_missing_images_are_named(checked):
    report = checked(A, A)
    assert report.errors == [(3, 'image a again, first in row 2'),
                             (None, '1 of 2 images have no row, the first is b')]


def test_empty_masks_are_counted_but_legal(checked):
    report = checked(f'a,8,6,/m/0cat 0.5 {mask(size=0)}', B)
    assert report.ok and report.empty_masks == 1


def test_tf_rows_may_repeat_and_lack_images(checked):
    row = f'a,8,6,/m/0cat,0.5,{mask()}'
    report = checked(row, row, submission_format='tf')
    assert report.ok and report.images == 1 and report.detections == 2


def test_rows_are_numbered_over_pieces_and_processes(checked, monkeypatch):
    monkeypatch.setattr(check, '_PIECE', 100)
    ids = [f'i{n}' for n in range(60)]
    rows = [f'{image_id},8,6,/m/0cat 0.5 {mask()}' for image_id in ids]
    rows[40] = 'i40,8,6,/m/0cat'
    rows[50] = rows[3]
    images = dict.fromkeys(ids, (8, 6))
    one, two = (checked(*rows, images=images, workers=n) for n in (1, 2))
    assert one.errors == two.errors == [(42, one.errors[0][1]),
                                        (52, 'image i3 again, first in row 5'),
                                        (None, '2 of 60 images have no row, the first is i40')]
    assert (one.rows, one.detections) == (two.rows, two.detections) == (60, 59)


def test_first_errors_are_kept_though_masks_are_looked_at_later(checked):
    report = checked(f'a,8,6,/m/0cat 0.5 {mask(9, 9)}', *['x'] * 100)
    assert report.errors[0][0] == 2 and 'pixels in an image' in report.errors[0][1]


def test_report_is_plain_values(checked):
    report = checked(A, 'c,8,6,')
    told = json.loads(json.dumps(report.to_dict()))
    assert told['detections'] == 2 and told['per_image'] == [2, 0] and sum(told['histogram']) == 2
    assert told['errors'] == [{'row': 3, 'message': "unknown image 'c'"},
                              {'row': None, 'message': '1 of 2 images have no row, the first is b'}]


def test_row_longer_than_any_is_one_error_and_the_rest_is_checked(checked, monkeypatch):
    monkeypatch.setattr(formats, 'MAX_ROW', 1000)
    monkeypatch.setattr(check, '_PIECE', 10)
    report = checked(A, 'b,5,7,' + 'x' * 5000, 'c,8,6,')
    assert report.rows == 3 and [row for row, _ in report.errors if row] == [3, 4]


def test_huge_texts_are_told_in_few_words(checked):
    report = checked(f'a,8,6,{"m" * 300_000} {"9" * 300_000} {"x" * 300_000}', B)
    assert report.num_errors == 3
    assert max(len(message) for _, message in report.errors) < 150


_PEAK = """
import resource, sys
from projects.openimages.submissions.check import check_submission
from projects.openimages.submissions.formats import read_rows
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
report = check_submission(sys.argv[1], {'a': (1000, 1000)}, ('/m/0cat',))
print(report.num_errors, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_masks_that_inflate_a_thousandfold_do_not_take_memory_together(tmp_path):
    """24 masks of 2 MB each from a row of 66 KB: their runs together would take 600 MB."""
    bomb = b64encode(zlib.compress(b'1' * 2_000_000)).decode()
    (tmp_path / 'a.csv').write_text(
        f'{HEADERS["kaggle"]}\na,1000,1000,{" ".join([f"/m/0cat 0.5 {bomb}"] * 24)}\n')
    result = run_tool('-c', _PEAK, tmp_path / 'a.csv')
    assert result.returncode == 0, result.stderr
    errors, kilobytes = map(int, result.stdout.split())
    assert errors == 24 and kilobytes < 300_000


def test_only_the_first_errors_are_kept_but_all_are_counted(checked):
    report = checked(*['x'] * 100)
    assert report.num_errors == 102
    assert [row for row, _ in report.errors if row] == list(range(2, 2 + check.MAX_SHOWN))


def test_image_lists_of_every_kind(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    for name, size in IMAGES.items():
        Image.new('RGB', size).save(folder / f'{name}.jpg')
    (tmp_path / 'sizes.csv').write_text('image_id,image_w,image_h\na,8,6\nb,5,7\n')
    (tmp_path / 'sizes2.csv').write_text('ImageID,ImageWidth,ImageHeight\na,8,6\nb,5,7\n')
    (tmp_path / 'ids.txt').write_text('a\nb\n')
    for source in ('images', 'sizes.csv', 'sizes2.csv'):
        assert read_image_list(tmp_path / source) == IMAGES
    assert read_image_list(tmp_path / 'ids.txt') == {'a': None, 'b': None}
    (tmp_path / 'sizes.csv').write_text('image_id,image_w,image_h\na,8,\n')
    with pytest.raises(UserError, match=r'sizes\.csv, row 2'):
        read_image_list(tmp_path / 'sizes.csv')
    (folder / 'c.jpg').write_bytes(b'nothing')
    with pytest.raises(UserError, match=r'c\.jpg: not a readable image'):
        read_image_list(folder)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match='empty: no images'):
        read_image_list(tmp_path / 'empty')


@pytest.mark.parametrize(('text', 'message'), [
    (b'ImageID,ImageWidth,ImageHeight\na,0,5\n', "row 2: image width '0'"),
    (b'ImageID,ImageWidth,ImageHeight\na,5,-5\n', "row 2: image height '-5'"),
    (b'ImageID,ImageWidth,ImageHeight\na,1000000000,5\n', "row 2: image width '1000000000'"),
    (b'ImageID,ImageWidth,ImageHeight\na,5\n', 'row 2: 2 fields, expected 3'),
    (b'a\nb\na\n', 'row 3: image a again'),
    (b'a\n\xff\xfe\n', 'row 2: not UTF-8 text'),
    (b'a\n\0\n', 'row 2: a NUL byte'),
    (b'a\n' + b'b' * 5_000_000 + b'\n', "row 2: image id 'bbb"),
])
def test_broken_image_list_is_named_with_its_row(tmp_path, text, message):
    (tmp_path / 'list.csv').write_bytes(text)
    with pytest.raises(UserError, match=r'list\.csv, ' + message) as raised:
        read_image_list(tmp_path / 'list.csv')
    assert len(str(raised.value)) < 300


def test_fifos_are_neither_lists_nor_images(tmp_path):
    for name in ('list.csv', 'index.arrow', 'a.jpg'):
        os.mkfifo(tmp_path / name)
        source = tmp_path if name == 'a.jpg' else tmp_path / name
        with pytest.raises(UserError, match=f'{name}: a FIFO, expected a file'):
            read_image_list(source)


@pytest.mark.parametrize(('names', 'message'), [
    ([b'a.jpg', b'\xffb.jpg'], r"the name '\\udcffb\.jpg' is no image id"),
    ([b'a.jpg', b'a.png'], r'image a twice, a\.jpg and a\.png'),
])
def test_names_that_give_no_ids_are_refused(tmp_path, names, message):
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), 'wb') as file:
            Image.new('L', (4, 3)).save(file, 'PNG')
    with pytest.raises(UserError, match=message) as raised:
        read_image_list(tmp_path)
    str(raised.value).encode()  # can be printed


def test_class_list_is_found_above_the_images(tmp_path):
    (tmp_path / 'images' / 'test').mkdir(parents=True)
    with pytest.raises(UserError, match='--classes'):
        find_mids(tmp_path / 'images' / 'test', None)
    classes, _ = write_classes(tmp_path)
    classes.rename(tmp_path / 'challenge-2019-classes-description-segmentable.csv')
    assert '/m/0cat' in find_mids(tmp_path / 'images' / 'test', None)


def test_command_prints_summary_and_errors_with_rows(tmp_path):
    classes, _ = write_classes(tmp_path)
    (tmp_path / 'sizes.csv').write_text('image_id,image_w,image_h\na,8,6\nb,5,7\n')
    common = ['--images', tmp_path / 'sizes.csv', '--classes', classes, '--workers', 1]
    path = tmp_path / 'a.csv'
    path.write_text('\n'.join([HEADERS['kaggle'], A, B]) + '\n')
    result = run_tool('tools/check_submission.py', path, *common)
    assert result.returncode == 0 and 'no errors' in result.stdout, result.stderr
    path.write_text('\n'.join([HEADERS['kaggle'], A, 'b,5,7,/m/0cat 0.5']) + '\n')
    result = run_tool('tools/check_submission.py', path, *common)
    assert result.returncode == 2 and f'error: {path}, row 3: ' in result.stderr
    assert_one_line_error(run_tool('tools/check_submission.py', tmp_path / 'no.csv', *common),
                          'no.csv: no such file')


SAMPLE = 'ImageID,ImageWidth,ImageHeight,PredictionString\n'


def test_sample_submission_is_the_list_and_another_number_of_images_is_warned_of(tmp_path):
    classes, _ = write_classes(tmp_path)
    sample = tmp_path / 'sample_empty_submission.csv'
    sample.write_text(SAMPLE + 'a,8,6,/m/01g317 1 eNoLSM3ILwEABJkBtA==\nb,5,7,\n')
    assert read_image_list(sample) == IMAGES
    path = tmp_path / 'a.csv'
    command = ('tools/check_submission.py', path, '--images', sample, '--classes', classes)
    path.write_text('\n'.join([HEADERS['kaggle'], A, B]) + '\n')
    result = run_tool(*command, '--workers', 1)
    assert result.returncode == 0 and 'no errors' in result.stdout
    assert result.stderr.count('warning: ') == 1
    assert '2 images; the challenge has 99,999 test images, those called challenge2018' in (
        result.stderr)
    path.write_text('\n'.join([HEADERS['kaggle'], A]) + '\n')  # b, which the sample has, is missing
    result = run_tool(*command, '--workers', 1)
    assert result.returncode == 2 and 'no row' in result.stderr
    path.write_text(HEADERS['tf'] + '\n')
    assert 'warning' not in run_tool(*command, '--workers', 1).stderr


@pytest.mark.parametrize(('count', 'words'), [
    (99_999, None), (99_998, '99,998 images; the challenge has 99,999'),
    (125_436, 'as many as the test images of the full release')])
def test_only_the_challenges_own_number_of_images_is_not_odd(count, words):
    warning = count_warning(count)
    assert warning is None if words is None else words in warning
