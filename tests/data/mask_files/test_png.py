"""Mask PNGs and their run lengths, against Pillow and pycocotools."""

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from projects.openimages.data.mask_files import png
from projects.openimages.data.mask_files.packed import EMPTY, encode_packed
from projects.openimages.data.mask_files.png import PackedMask, PngError, read_mask
from tests.helpers import REPOSITORY


def png_bytes(pixels: np.ndarray, mode: str = '1', **options) -> bytes:
    image = Image.fromarray(np.where(pixels, 255, 0).astype(np.uint8)).convert(mode)
    file = io.BytesIO()
    image.save(file, 'PNG', **options)
    return file.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))


def raw_png(width: int, height: int, depth: int, rows: bytes, colour_type: int = 0,
            interlaced: bool = False) -> bytes:
    header = struct.pack('>IIBBBBB', width, height, depth, colour_type, 0, 0, interlaced)
    palette = chunk(b'PLTE', b'\0\0\0\0\0\1') if colour_type == 3 else b''
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + palette
            + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))


def ellipse(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return ((y - height * 0.4) / (height * 0.3)) ** 2 + ((x - width / 2) / (width * 0.4)) ** 2 < 1


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'RGB', 'RGBA', 'LA', 'I;16'])
@pytest.mark.parametrize('size', [(1, 1), (7, 9), (48, 64), (33, 31)])
def test_every_kind_of_png_gives_the_non_zero_pixels(mode, size):
    pixels = ellipse(*size)
    if mode == 'I;16':
        file = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint16) * 256).save(file, 'PNG')
        data = file.getvalue()
    else:
        data = png_bytes(pixels, mode)
    mask = read_mask(data)
    assert (mask.height, mask.width) == size
    assert np.array_equal(mask.to_pixels(), pixels)


def test_black_of_a_palette_is_no_object():
    """Black is entry 0, 2 and 3 of the palette; entry 1 is nearly black."""
    image = Image.fromarray(np.array([[0, 1, 2], [3, 1, 0]], np.uint8), 'P')
    image.putpalette([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0])
    file = io.BytesIO()
    image.save(file, 'PNG')
    assert read_mask(file.getvalue()).to_pixels().tolist() == [[0, 1, 0], [0, 1, 0]]


@pytest.mark.parametrize(('depth', 'colour_type'),
                         [(1, 0), (8, 0), (16, 0), (8, 2), (1, 3), (8, 6)])
def test_interlaced_files_are_read(depth, colour_type):
    """Of the 3x2 pixels, all but the first and the last are set."""
    rows = b''
    for row in ([0], [1], [1], [1, 1, 0]):  # Adam7: first pixel, third, second, and the lower row
        if depth == 1:
            rows += bytes([0, int(''.join(map(str, row)).ljust(8, '0'), 2)])
        else:
            channels = {0: 1, 2: 3, 6: 4}[colour_type]
            rows += b'\0' + b''.join(bytes([value]) * (channels * depth // 8) for value in row)
    mask = read_mask(raw_png(3, 2, depth, rows, colour_type, interlaced=True))
    assert mask.to_pixels().tolist() == [[0, 1, 1], [1, 1, 0]]


def test_large_image_is_read_strip_by_strip(monkeypatch):
    monkeypatch.setattr(png, '_STRIP_PIXELS', 200)
    for mode in ('L', 'P', 'RGBA'):
        pixels = ellipse(61, 53)
        assert np.array_equal(read_mask(png_bytes(pixels, mode)).to_pixels(), pixels)


@pytest.mark.parametrize('row_filter', [cv2.IMWRITE_PNG_FILTER_NONE, cv2.IMWRITE_PNG_FILTER_SUB,
                                        cv2.IMWRITE_PNG_FILTER_UP, cv2.IMWRITE_PNG_FILTER_AVG,
                                        cv2.IMWRITE_PNG_FILTER_PAETH, cv2.IMWRITE_PNG_ALL_FILTERS])
@pytest.mark.parametrize('bilevel', [0, 1])
def test_every_row_filter_is_undone(row_filter, bilevel):
    rng = np.random.default_rng(3)
    for pixels in (ellipse(60, 83), rng.random((17, 40)) < 0.5, np.ones((5, 9), bool)):
        encoded = cv2.imencode('.png', pixels.astype(np.uint8) * 255,
                               [cv2.IMWRITE_PNG_FILTER, row_filter,
                                cv2.IMWRITE_PNG_BILEVEL, bilevel])[1].tobytes()
        assert np.array_equal(read_mask(encoded).to_pixels(), pixels)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2 ** 32 - 1))
def test_any_gray_values_under_any_filters_match_pillow(width, height, seed):
    rng = np.random.default_rng(seed)
    rows = rng.choice([0, 0, 0, 1, 7, 255], (height, width + 1)).astype(np.uint8)
    rows[:, 0] = rng.choice([0, 1, 2, 4], height)
    data = raw_png(width, height, 8, rows.tobytes())
    expected = np.asarray(Image.open(io.BytesIO(data))) != 0
    assert np.array_equal(read_mask(data).to_pixels(), expected)


@pytest.mark.parametrize('row_filter', [0, 1, 2, 3, 4])
@pytest.mark.parametrize('depth', [1, 8])
def test_noise_matches_pillow(row_filter, depth):
    rng = np.random.default_rng(row_filter)
    rows = rng.integers(0, 256, (180, (250 * depth + 7) // 8 + 1)).astype(np.uint8)
    rows[:, 0] = row_filter
    data = raw_png(250, 180, depth, rows.tobytes())
    expected = np.asarray(Image.open(io.BytesIO(data))) != 0
    assert np.array_equal(read_mask(data).to_pixels(), expected)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 2 ** 32 - 1),
       st.sampled_from([1, 8]))
def test_few_differences_anywhere_match_pillow(width, height, seed, depth):
    """Sparse rows: what is cut off before decoding must have been empty, at either edge."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((height, (width * depth + 7) // 8 + 1), np.uint8)
    rows[:, 0] = rng.choice([0, 1, 2, 4], height)
    for _ in range(3):
        rows[rng.integers(height), rng.integers(1, rows.shape[1])] = rng.choice([1, 128, 255])
    data = raw_png(width, height, depth, rows.tobytes())
    expected = np.asarray(Image.open(io.BytesIO(data))) != 0
    assert np.array_equal(read_mask(data).to_pixels(), expected)


def test_bits_beyond_the_width_are_ignored():
    data = raw_png(3, 2, 1, b'\x00\xff\x00\x1f')
    assert read_mask(data).rows.tolist() == [[0b1110_0000], [0]]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 40), st.integers(1, 40),
       st.integers(0, 2 ** 32 - 1), st.sampled_from([0.02, 0.5, 0.98]))
def test_encoded_mask_is_pycocotools_of_the_scaled_mask(h, w, height, width, seed, p):
    pixels = np.random.default_rng(seed).random((h, w)) < p
    scaled = pixels[np.ix_(centres(height, h), centres(width, w))]
    mine = encode_packed(PackedMask.from_pixels(pixels), height, width)
    if not scaled.any():
        assert mine == EMPTY
        return
    rle = coco_mask.encode(np.asfortranarray(scaled.astype(np.uint8)))
    assert mine.counts == rle['counts']
    assert mine.area == int(coco_mask.area(rle))
    assert list(mine.box) == coco_mask.toBbox(rle).tolist()


def centres(new: int, old: int) -> list[int]:
    return [int((i + Fraction(1, 2)) * old / new) for i in range(new)]


def test_scaling_is_the_nearest_of_pillow():
    pixels = ellipse(427, 640)
    scaled = np.asarray(Image.fromarray(pixels).resize((1024, 683), Image.Resampling.NEAREST))
    mine = encode_packed(PackedMask.from_pixels(pixels), 683, 1024)
    assert mine.counts == coco_mask.encode(np.asfortranarray(scaled.astype(np.uint8)))['counts']


@pytest.mark.parametrize(('data', 'reason'), [
    (b'', 'empty file'),
    (b'GIF89a........', 'wrong first bytes'),
    (png_bytes(ellipse(9, 9))[:40], 'truncated'),
    (png_bytes(ellipse(9, 9))[:-3], 'truncated'),
    (raw_png(60_000, 60_000, 1, b''), '60000x60000'),
    (raw_png(0, 4, 1, b''), 'no pixels'),
    (raw_png(8, 4, 1, b'\0\0' * 3), 'fewer rows'),
    (raw_png(8, 4, 1, b'\0\0' * 5), 'more data'),
    (raw_png(8, 1, 1, b'\7\0'), 'row filter 7'),
    (raw_png(8, 4, 8, b'\0' * 4, colour_type=3), 'damaged'),
    (raw_png(8, 4, 8, b'\0' * 30), 'damaged'),
    (raw_png(8, 4, 1, b'').replace(b'IHDR', b'IDAT'), 'wrong checksum of chunk IDAT'),
    (raw_png(8, 4, 1, b'')[:8] + chunk(b'IDAT', b'\0\0\0\1' * 2 + bytes(5)), 'out of order'),
])
def test_what_is_no_whole_png_is_refused_with_the_reason(data, reason):
    with pytest.raises(PngError, match=reason):
        read_mask(data)


def test_flipped_bit_is_noticed():
    data = bytearray(png_bytes(ellipse(40, 40)))
    for position in range(8, len(data)):
        data[position] ^= 0x10
        with pytest.raises(PngError):
            read_mask(bytes(data))
        data[position] ^= 0x10


def test_bomb_is_refused_before_it_is_inflated(monkeypatch):
    monkeypatch.setattr(png, '_read_bilevel', lambda *_: pytest.fail('inflated'))
    monkeypatch.setattr(png, '_read_with_pillow', lambda *_: pytest.fail('inflated'))
    with pytest.raises(PngError, match='claims'):
        read_mask(raw_png(20_000, 20_000, 8, b'\0'))


def test_no_more_is_inflated_than_the_header_says():
    data = raw_png(8, 4, 1, bytes(64 << 20))
    tracemalloc.start()
    with pytest.raises(PngError, match='more data'):
        read_mask(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def blank(width: int, height: int, depth: int, colour_type: int) -> bytes:
    """An interlaced PNG of zeros."""
    channels = {0: 1, 2: 3, 3: 1, 6: 4}[colour_type]
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in (
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
        (0, 1, 1, 2))]  # Adam7
    return raw_png(width, height, depth, bytes(sum(
        rows * (1 + -(-columns * channels * depth // 8)) for columns, rows in sizes)),
        colour_type, interlaced=True)


PEAK_SCRIPT = '''
import resource, sys
from projects.openimages.data.mask_files.png import read_mask
data = open(sys.argv[1], 'rb').read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
mask = read_mask(data)
print(mask.height, mask.width, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
'''


@pytest.mark.parametrize(('width', 'height', 'depth', 'colour_type', 'limit'), [
    (30_000, 3000, 8, 3, 400), (10_000, 3000, 16, 6, 250), (10_000, 3000, 16, 0, 250)],
    ids=['palette', 'RGBA of 16 bits', 'gray of 16 bits'])
def test_blank_giant_takes_no_more_memory_than_its_pixels(tmp_path, width, height, depth,
                                                          colour_type, limit):
    """Peak MiB of another process; a few bytes a pixel would be a gigabyte."""
    path = tmp_path / 'giant.png'
    path.write_bytes(blank(width, height, depth, colour_type))
    assert path.stat().st_size < 1 << 18
    result = subprocess.run([sys.executable, '-c', PEAK_SCRIPT, str(path)], cwd=REPOSITORY,
                            capture_output=True, text=True, check=True)
    assert result.stderr == ''
    *size, peak = map(int, result.stdout.split())
    assert size == [height, width]
    assert peak < limit
