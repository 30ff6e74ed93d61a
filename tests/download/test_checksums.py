"""Size, MD5 and CRC32C of files."""

import hashlib

import numpy as np
import pytest

from projects.openimages.download import checksums
from projects.openimages.download.checksums import crc32c_of, find_difference
from projects.openimages.download.remote import Remote
from tests.download.server import crc32c


@pytest.fixture
def file(tmp_path):
    return tmp_path / 'file'


@pytest.mark.parametrize(('data', 'expected'), [
    (b'', 0), (b'a', 0xC1D04330), (b'123456789', 0xE3069283),
    (bytes(32), 0x8A9136AA), (b'\xff' * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)])
def test_published_values(file, data, expected):
    file.write_bytes(data)
    assert crc32c_of(file) == expected == crc32c(data)


@pytest.mark.parametrize('size', [3, 4, 5, 127, 128, 129, 131, 132, 256, 1000])
def test_files_of_several_blocks(file, monkeypatch, size):
    for name, value in (('_BLOCK', 128), ('_LANES', 16), ('_PAIRS', 4)):
        monkeypatch.setattr(checksums, name, value)
    checksums._past_a_lane.cache_clear()
    data = np.random.default_rng(size).bytes(size)
    file.write_bytes(data)
    assert crc32c_of(file) == crc32c(data)
    checksums._past_a_lane.cache_clear()


def test_the_first_difference_is_told(file):
    data = b'0123456789'
    file.write_bytes(data)
    md5, crc = hashlib.md5(data).digest(), crc32c(data)
    assert find_difference(file, Remote(10, None, md5, crc)) is None
    assert find_difference(file, Remote()) is None
    assert find_difference(file, Remote(11, None, md5, crc)) == '10 bytes, expected 11'
    assert find_difference(file, Remote(10, None, bytes(16), crc)) \
        == f'MD5 {md5.hex()}, expected {"00" * 16}'
    assert find_difference(file, Remote(10, None, None, 1)) \
        == f'CRC32C {crc:08x}, expected 00000001'
    assert find_difference(file, Remote(10, None, None, crc)) is None
