"""Mask files in zips and folders: found by name, never larger than they say, never half."""

import os
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from projects.openimages.common.errors import UserError
from projects.openimages.data.layout import SplitFiles
from projects.openimages.data.mask_files import archives
from projects.openimages.data.mask_files.archives import EntryError, MaskReader, find_masks
from projects.openimages.data.official.releases import CHALLENGE
from projects.openimages.data.problems import BAD_KINDS, ProblemLog


class Masks:
    """Zips and folders of one split, and what is found and read in them."""

    def __init__(self, zips=(), folders=()) -> None:
        self._files = SplitFiles(Path(), 'train', CHALLENGE, None, None, None, None, (Path(),),
                                 tuple(zips), tuple(folders))
        self.log = ProblemLog(BAD_KINDS)

    def read(self, *names: str) -> list[bytes | None]:
        """The bytes of each mask; None where there is no such file."""
        places = find_masks(self._files, pa.chunked_array([names], pa.large_utf8()), self.log)
        reader = MaskReader(self._files)
        try:
            return [reader.read(source, entry, name) if source >= 0 else None
                    for source, entry, name in zip(places.source.tolist(), places.entry.tolist(),
                                                   names, strict=True)]
        finally:
            reader.close()


def make_zip(path: Path, method: int = zipfile.ZIP_STORED, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, 'w', method) as archive:
        for name, data in entries.items():
            archive.writestr(name.replace('__', '/'), data)
    return path


def patch(path: Path, signature: bytes, offset: int, layout: str, value: int) -> None:
    """Change a field of the first header with a signature."""
    data = bytearray(path.read_bytes())
    struct.pack_into('<' + layout, data, data.index(signature) + offset, value)
    path.write_bytes(data)


LOCAL, DIRECTORY = b'PK\3\4', b'PK\1\2'


@pytest.mark.parametrize('method', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_masks_are_found_by_name_in_any_zip_at_any_depth(tmp_path, method):
    first = make_zip(tmp_path / '0.zip', method, a=b'first', deep__er__b=b'second' * 99)
    second = make_zip(tmp_path / '1.zip', method, folder__=b'', c=b'third')
    masks = Masks([first, second])
    assert masks.read('c', 'b', 'nobody', 'a') == [b'third', b'second' * 99, None, b'first']
    assert masks.log.counts == {}


def test_extracted_file_goes_before_an_archive(tmp_path):
    folder = tmp_path / 'folder'
    folder.mkdir()
    (folder / 'a.png').write_bytes(b'extracted')
    archive = make_zip(tmp_path / '0.zip', **{'a.png': b'zipped', 'b.png': b'other'})
    assert Masks([archive], [folder]).read('a.png', 'b.png') == [b'extracted', b'other']


@pytest.mark.parametrize('name', ['../a.png', 'x/../../a.png', '/a.png', '..\\a.png', 'C:/a.png',
                                  'a.png\0.txt'])
def test_names_that_leave_the_archive_are_left_out(tmp_path, name):
    path = tmp_path / '0.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('other.png', b'good')
        info = zipfile.ZipInfo('placeholder')
        info.filename = name
        archive.writestr(info, b'evil')
    masks = Masks([path])
    assert masks.read('a.png', 'other.png') == [None, b'good']
    assert masks.log.counts == {'unsafe_archive_name': 1}


def test_wrong_checksum_is_noticed(tmp_path):
    path = make_zip(tmp_path / '0.zip', a=b'content')
    path.write_bytes(path.read_bytes().replace(b'content', b'cantent'))
    with pytest.raises(EntryError, match='wrong checksum'):
        Masks([path]).read('a')


@pytest.mark.parametrize('size', [7, 99])
def test_wrong_size_is_noticed_even_where_the_checksum_agrees(tmp_path, size):
    """Eight bytes that are said to be fewer or more."""
    path = make_zip(tmp_path / '0.zip', zipfile.ZIP_DEFLATED, a=b'contents')
    patch(path, DIRECTORY, 24, 'I', size)
    with pytest.raises(EntryError, match='damaged zip'):
        Masks([path]).read('a')


def test_giant_is_refused_by_its_size(tmp_path):
    path = make_zip(tmp_path / '0.zip', zipfile.ZIP_DEFLATED, a=bytes(archives.MAX_FILE_BYTES + 1))
    with pytest.raises(EntryError, match='larger than 67108864 bytes'):
        Masks([path]).read('a')
    folder = tmp_path / 'folder'
    folder.mkdir()
    (folder / 'a.png').touch()
    os.truncate(folder / 'a.png', archives.MAX_FILE_BYTES + 1)
    with pytest.raises(EntryError, match='larger than 67108864 bytes'):
        Masks([], [folder]).read('a.png')


def test_giant_that_says_it_is_small_is_not_inflated(tmp_path):
    path = make_zip(tmp_path / '0.zip', zipfile.ZIP_DEFLATED, a=bytes(archives.MAX_FILE_BYTES))
    patch(path, DIRECTORY, 24, 'I', 100)
    tracemalloc.start()
    with pytest.raises(EntryError, match='damaged zip'):
        Masks([path]).read('a')
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize(('signature', 'offset', 'value'), [
    (DIRECTORY, 8, 1), (DIRECTORY, 10, 99), (LOCAL, 0, 0), (LOCAL, 26, 3)],
    ids=['encrypted', 'unknown method', 'no header', 'another name in the header'])
def test_entry_that_cannot_be_unpacked_says_so(tmp_path, signature, offset, value):
    path = make_zip(tmp_path / '0.zip', a=b'content', b=b'good')
    patch(path, signature, offset, 'H', value)
    with pytest.raises(EntryError, match='damaged zip'):
        Masks([path]).read('a')
    assert Masks([path]).read('b') == [b'good']


@pytest.mark.parametrize('keep', [0, 10, -30])
def test_truncated_archive_is_told_and_the_others_are_read(tmp_path, keep):
    broken, whole = make_zip(tmp_path / '0.zip', a=b'x' * 99), make_zip(tmp_path / '1.zip', b=b'y')
    broken.write_bytes(broken.read_bytes()[:keep])
    masks = Masks([broken, whole])
    assert masks.read('a', 'b') == [None, b'y']
    assert masks.log.counts == {'broken_archive': 1}


def test_archive_of_other_data_behind_a_prefix_is_read(tmp_path):
    """As a self-extracting zip has it: every offset in it is off by the same amount."""
    path = make_zip(tmp_path / '0.zip', a=b'first', b=b'second')
    path.write_bytes(b'MZ' * 500 + path.read_bytes())
    assert Masks([path]).read('b', 'a') == [b'second', b'first']


def test_archive_that_vanishes_in_mid_work_is_told(tmp_path):
    path = make_zip(tmp_path / '0.zip', a=b'first')
    reader = MaskReader(SplitFiles(tmp_path, 'train', CHALLENGE, None, None, None, None,
                                   (tmp_path,), (path,), ()))
    path.unlink()
    with pytest.raises(EntryError, match=r'cannot read .*0\.zip: No such file'):
        reader.read(0, 0, 'a')


def test_last_archive_stays_open_and_is_closed_at_the_end(tmp_path, monkeypatch):
    paths = [make_zip(tmp_path / f'{n}.zip', **{f'a{n}': b'x', f'b{n}': b'y'}) for n in range(2)]
    opened = []

    class Zip(zipfile.ZipFile):
        def __init__(self, file) -> None:
            super().__init__(file)
            opened.append(self)

    masks = Masks(paths)
    monkeypatch.setattr(archives.zipfile, 'ZipFile', Zip)
    assert masks.read('a0', 'b0', 'a1', 'b1') == [b'x', b'y', b'x', b'y']
    listed, read = opened[:2], opened[2:]
    assert len(listed) == len(read) == 2
    assert all(archive.fp is None for archive in opened)


def test_folder_name_that_is_not_utf8_is_told(tmp_path):
    (tmp_path / os.fsdecode(b'\xff.png')).touch()
    with pytest.raises(UserError, match=r"file name b'\\xff\.png' is not UTF-8"):
        Masks([], [tmp_path]).read('a.png')
