"""Image sizes without decoding: every kind of JPEG header, and what is none."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from projects.openimages.data.official.image_sizes import (
    ImageError,
    look_up_sizes,
    read_image_size,
    read_sizes_csv,
)
from projects.openimages.data.problems import ProblemLog
from projects.openimages.common.errors import UserError


def save(path, size=(37, 23), **options) -> None:
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(path, 'JPEG', **options)


@pytest.mark.parametrize('options', [{}, {'progressive': True}, {'quality': 95, 'subsampling': 0},
                                     {'comment': b'\xff\xc0' * 3000},
                                     {'icc_profile': bytes(100_000)}])
def test_size_is_read_from_the_frame_header(tmp_path, options):
    save(tmp_path / 'a.jpg', **options)
    assert read_image_size(tmp_path / 'a.jpg') == (37, 23, False)


def test_gray_jpeg_and_preview_in_the_header(tmp_path):
    preview = io.BytesIO()
    Image.new('L', (160, 120)).save(preview, 'JPEG')
    file = io.BytesIO()
    Image.new('L', (20, 10)).save(file, 'JPEG')
    body = b'XXXX' + preview.getvalue()
    segment = b'\xff\xe2' + struct.pack('>H', len(body) + 2) + body
    data = file.getvalue()
    (tmp_path / 'a.jpg').write_bytes(data[:2] + segment + b'\xff\xff' + data[2:])
    assert read_image_size(tmp_path / 'a.jpg') == (20, 10, False)


@pytest.mark.parametrize(('orientation', 'rotated'), [(1, False), (3, False), (6, True), (8, True)])
@pytest.mark.parametrize('order', ['<', '>'])
def test_quarter_turns_are_noticed_and_not_applied(tmp_path, orientation, rotated, order):
    tiff = ((b'II*\0' if order == '<' else b'MM\0*') + struct.pack(order + 'I', 8)
            + struct.pack(order + 'HHHIHH', 1, 0x0112, 3, 1, orientation, 0) + bytes(4))
    save(tmp_path / 'a.jpg', exif=b'Exif\0\0' + tiff)
    assert read_image_size(tmp_path / 'a.jpg') == (37, 23, rotated)


@pytest.mark.parametrize('kind', ['PNG', 'GIF', 'WEBP'])
def test_other_format_under_a_jpeg_name_is_read(tmp_path, kind):
    Image.new('RGB', (9, 5)).save(tmp_path / 'a.jpg', kind)
    assert read_image_size(tmp_path / 'a.jpg') == (9, 5, False)


@pytest.mark.parametrize(('data', 'words'), [
    (b'', 'zero bytes'), (b'\xff', 'not an image'), (b'\xff\xd8', 'truncated'),
    (b'\xff\xd8\xff\xe0\0\x10JFIF', 'truncated'), (b'\xff\xd8\xff\xe0\0\1', 'impossible length'),
    (b'\xff\xd8\0\0', 'no marker'), (b'\xff\xd8\xff\xd9', 'no frame header'),
    (b'\xff\xd8\xff\xc0\0\x11\x08\0\0\0\x05', '5x0 pixels'), (b'<html>', 'not an image')])
def test_what_is_no_image_is_refused(tmp_path, data, words):
    (tmp_path / 'a.jpg').write_bytes(data)
    with pytest.raises(ImageError, match=words):
        read_image_size(tmp_path / 'a.jpg')


def test_sizes_csv_is_looked_up_by_id(tmp_path):
    path = tmp_path / 'sizes.csv'
    path.write_text('image_id,image_w,image_h\nb,4,3\na,2,1\n', encoding='utf-8')
    known = read_sizes_csv(path, ProblemLog())
    assert look_up_sizes(['a', 'b', 'c'], *known).tolist() == [[2, 1], [4, 3], [0, 0]]


@pytest.mark.parametrize('value', ['0', '-3', '1.5', '70000'])
def test_impossible_size_names_its_row(tmp_path, value):
    path = tmp_path / 'sizes.csv'
    path.write_text(f'ImageID,ImageWidth,ImageHeight\na,2,1\nb,{value},3\n', encoding='utf-8')
    with pytest.raises(UserError, match=r'sizes\.csv, row 3: image size'):
        read_sizes_csv(path, ProblemLog())


def test_sizes_csv_with_other_columns_is_refused(tmp_path):
    path = tmp_path / 'sizes.csv'
    path.write_text('id,w,h\na,2,1\n', encoding='utf-8')
    with pytest.raises(UserError, match='ImageID,ImageWidth,ImageHeight'):
        read_sizes_csv(path, ProblemLog())


def test_real_sizes_are_read(real_data):
    ids, sizes = read_sizes_csv(real_data / 'validation-image-sizes.csv', ProblemLog())
    assert len(ids) == len(sizes) == 41_620
    assert (np.sort(sizes, axis=1)[:, 1] == 1024).mean() > 0.9
