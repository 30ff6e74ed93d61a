"""Image sizes without decoding: every kind of JPEG header, what was cut short, and what is none."""

import io
import os
import re
import struct
import warnings

import numpy as np
import pytest
from PIL import Image

from projects.openimages.common.errors import UserError
from projects.openimages.data.official.image_sizes import (
    ImageError,
    look_up_sizes,
    read_image_size,
    read_sizes_csv,
)
from projects.openimages.data.problems import BAD_KINDS, ProblemLog

END = b'\xff\xd9'


def jpeg(size=(37, 23), **options) -> bytes:
    """A picture with a slope in it, so that its scan has some length."""
    rows = np.add.outer(np.arange(size[1]) * 7, np.arange(size[0]) * 3).astype(np.uint8)
    return encoded(Image.fromarray(rows).convert('RGB'), 'JPEG', **options)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack('>BBH', 0xFF, marker, len(body) + 2) + body


def with_preview(data: bytes) -> bytes:
    """A smaller JPEG, with an end of its own, in a segment before the picture."""
    return data[:2] + segment(0xE2, b'XXXX' + jpeg((16, 12))) + b'\xff\xff' + data[2:]


def exif(orientation: int, order: str = '<') -> bytes:
    tiff = ((b'II*\0' if order == '<' else b'MM\0*') + struct.pack(order + 'I', 8)
            + struct.pack(order + 'HHHIHH', 1, 0x0112, 3, 1, orientation, 0) + bytes(4))
    return b'Exif\0\0' + tiff


def claiming(width: int, height: int) -> bytes:
    """A JPEG whose frame header says another size."""
    data = bytearray(jpeg())
    frame = data.index(b'\xff\xc0')
    data[frame + 5:frame + 9] = struct.pack('>HH', height, width)
    return bytes(data)


INCOMPLETE = '(truncated|damaged) JPEG'  # Pillow's versions differ in what they see first

JPEGS = {
    'baseline': jpeg(), 'progressive': jpeg(progressive=True),
    'no subsampling': jpeg(quality=95, subsampling=0), 'gray': encoded(
        Image.new('L', (37, 23)), 'JPEG'),
    'restarts': jpeg(restart_marker_blocks=1), 'preview': with_preview(jpeg()),
    'comment of markers': jpeg(comment=b'\xff\xc0\xff\xd9' * 40),
    'EXIF': jpeg(exif=exif(1)), 'ICC profile': jpeg(icc_profile=bytes(100_000)),
}


@pytest.fixture
def size_of(tmp_path):
    """Write bytes under the name of a JPEG and read their size."""
    def read(data: bytes) -> tuple[int, int, int]:
        (tmp_path / 'a.jpg').write_bytes(data)
        return read_image_size(tmp_path / 'a.jpg')
    return read


@pytest.mark.parametrize('name', JPEGS)
def test_size_is_read_from_the_frame_header(size_of, name):
    assert size_of(JPEGS[name]) == (37, 23, 1)


@pytest.mark.parametrize('name', JPEGS)
def test_jpeg_is_refused_wherever_it_is_cut(tmp_path, name):
    """Also right behind the end of a preview, and by a byte or two."""
    path = tmp_path / 'a.jpg'
    path.write_bytes(JPEGS[name])
    accepted = []
    for length in sorted(cuts(JPEGS[name]), reverse=True):
        os.truncate(path, length)
        try:
            read_image_size(path)
            accepted.append(length)
        except ImageError:
            pass
    assert accepted == []


def cuts(data: bytes) -> set[int]:
    """Lengths to cut to: behind each marker, all of the last and many of the others."""
    behind = {found.end() for found in re.finditer(b'\xff[^\0]', data)}
    return (behind | {*range(1, len(data), 1 + len(data) // 150), *range(len(data) - 40, len(data))}
            ) - {len(data)}


@pytest.mark.parametrize('garbage', [bytes(3000), b'<html>502 Bad Gateway</html>\n' * 50,
                                     b'\xff' * 50, b'\xff\x02\0\2' + END + b'.',
                                     np.random.default_rng(0).bytes(3000)],
                         ids=['zeros', 'text', 'fill bytes', 'markers of no JPEG', 'noise'])
@pytest.mark.parametrize('name', ['baseline', 'progressive', 'restarts', 'preview'])
def test_what_follows_a_jpeg_neither_harms_it_nor_heals_it(size_of, name, garbage):
    data = JPEGS[name]
    assert size_of(data + garbage) == (37, 23, 1)
    start = data.rindex(b'\xff\xda')  # in the picture, not in its tables
    for length in {*range(start + 20, len(data), 41), *range(len(data) - 4, len(data))}:
        with pytest.raises(ImageError, match=INCOMPLETE):
            size_of(data[:length] + garbage)


def test_second_picture_behind_the_first_does_not_stand_in_for_its_end(size_of):
    data = jpeg()
    assert size_of(data + jpeg((160, 120)) + b'\0') == (37, 23, 1)
    with pytest.raises(ImageError, match=INCOMPLETE):
        size_of(data[:-30] + jpeg((160, 120)) + b'\0')


def test_camera_file_of_two_pictures_is_its_first(size_of):
    first, second = (Image.new('RGB', size) for size in ((37, 23), (99, 99)))
    data = encoded(first, 'MPO', save_all=True, append_images=[second])
    assert Image.open(io.BytesIO(data)).format == 'MPO'
    assert size_of(data) == (37, 23, 1)
    with pytest.raises(ImageError, match=INCOMPLETE):
        size_of(data[:data.index(END, data.index(b'\xff\xda')) - 1])


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('order', ['<', '>'])
def test_exif_orientation_is_told_and_not_applied(size_of, orientation, order):
    assert size_of(jpeg(exif=exif(orientation, order))) == (37, 23, orientation)


@pytest.mark.parametrize('data', [exif(0), exif(9), exif(6)[:-8], b'Exif\0\0II*\0' + b'\xff' * 60,
                                  b'Exif\0\0MM', b'Exif\0\0no TIFF in here'])
def test_exif_without_a_known_orientation_means_as_stored(size_of, data):
    assert size_of(jpeg(exif=data)) == (37, 23, 1)
    assert size_of(jpeg(exif=data, dpi=(72, 72))) == (37, 23, 1)  # read by Pillow only now


@pytest.mark.parametrize('kind', ['PNG', 'GIF', 'WEBP', 'BMP'])
def test_other_format_under_a_jpeg_name_is_read_and_refused_if_cut(size_of, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 90), np.uint8)
    data = encoded(Image.fromarray(pixels), kind)
    assert size_of(data) == (90, 50, 1)
    for length in (len(data) // 4, len(data) // 2, len(data) - 200):
        with pytest.raises(ImageError):
            size_of(data[:length])


@pytest.mark.parametrize(('data', 'words'), [
    (b'', 'zero bytes'), (b'\xff', 'not an image'), (b'\xff\xd8', 'damaged JPEG'),
    (b'\xff\xd8\xff\xe0\0\x10JFIF', INCOMPLETE), (b'\xff\xd8\0\0', 'damaged JPEG'),
    (b'\xff\xd8\xff\xd9', 'damaged JPEG'), (claiming(5, 0), 'damaged JPEG'),
    (jpeg()[:jpeg().index(b'\xff\xda')] + END, INCOMPLETE), (b'<html>', 'not an image'),
    (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n', 'not an image')])
def test_what_is_no_image_is_refused(size_of, data, words):
    with pytest.raises(ImageError, match=words):
        size_of(data)


def test_image_of_too_many_pixels_is_refused_and_of_many_is_not(size_of):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert size_of(claiming(10_000, 10_000)) == (10_000, 10_000, 1)
    for size in ((10_000, 10_001), (65_500, 65_500)):
        with pytest.raises(ImageError, match='more than 100,000,000'):
            size_of(claiming(*size))


def sizes_csv(folder, *rows: str):
    path = folder / 'sizes.csv'
    path.write_text('\n'.join(['ImageID,ImageWidth,ImageHeight', *rows]) + '\n', encoding='utf-8')
    return path


def test_sizes_csv_is_looked_up_by_id(tmp_path):
    path = tmp_path / 'sizes.csv'
    path.write_text('image_id,image_w,image_h\nb,4,3\na,2,1\n', encoding='utf-8')
    known = read_sizes_csv(path, ProblemLog())
    assert look_up_sizes(['a', 'b', 'c'], *known).tolist() == [[2, 1], [4, 3], [0, 0]]


@pytest.mark.parametrize('value', ['0', '-3', '1.5', '70000', '50000'])
def test_impossible_size_names_its_row(tmp_path, value):
    with pytest.raises(UserError, match=r'sizes\.csv, row 3: image size'):
        read_sizes_csv(sizes_csv(tmp_path, 'a,2,1', f'b,{value},3000'), ProblemLog())


def test_rows_that_contradict_each_other_are_both_named_and_both_left_out(tmp_path):
    path = sizes_csv(tmp_path, 'a,20,10', 'b,4,3', 'c,9,9', 'a,20,11', 'b,4,3')
    with pytest.raises(UserError, match=r'sizes\.csv, row 5: image a has 20x11 pixels here and '
                                        r'20x10 in row 2'):
        read_sizes_csv(path, ProblemLog())
    log = ProblemLog(BAD_KINDS)
    known = read_sizes_csv(path, log)
    assert look_up_sizes(['a', 'b', 'c'], *known).tolist() == [[0, 0], [4, 3], [9, 9]]
    assert log.counts == {'broken_row': 1}


def test_rows_that_agree_are_no_problem(tmp_path):
    known = read_sizes_csv(sizes_csv(tmp_path, 'a,20,10', 'a,20,10'), ProblemLog())
    assert look_up_sizes(['a'], *known).tolist() == [[20, 10]]


def test_sizes_csv_without_rows_knows_no_size(tmp_path):
    known = read_sizes_csv(sizes_csv(tmp_path), ProblemLog())
    assert look_up_sizes(['a'], *known).tolist() == [[0, 0]]


def test_sizes_csv_with_other_columns_is_refused(tmp_path):
    path = tmp_path / 'sizes.csv'
    path.write_text('id,w,h\na,2,1\n', encoding='utf-8')
    with pytest.raises(UserError, match='ImageID,ImageWidth,ImageHeight'):
        read_sizes_csv(path, ProblemLog())


def test_real_sizes_are_read(real_data):
    ids, sizes = read_sizes_csv(real_data / 'validation-image-sizes.csv', ProblemLog())
    assert len(ids) == len(sizes) == 41_620
    assert (np.sort(sizes, axis=1)[:, 1] == 1024).mean() > 0.9
