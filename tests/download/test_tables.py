"""CSVs cut to the chosen images, and put where preparing looks."""

import os
from pathlib import Path

import pytest

from projects.openimages.download.tables import full_path, place

TABLE = b'MaskPath,ImageID,Name\r\na.png,1a,x\r\n"b,1a.png",2b,y\r\nc.png,3d,"1a, z"\r\nd.png,1a,w'


@pytest.fixture
def target(tmp_path) -> Path:
    path = tmp_path / 'masks.csv'
    full_path(path).parent.mkdir()
    full_path(path).write_bytes(TABLE)
    return path


def test_rows_are_cut_as_they_are(target):
    place(target, ['1a'])
    assert target.read_bytes() == b'MaskPath,ImageID,Name\r\na.png,1a,x\r\nd.png,1a,w'
    place(target, ['2b', '3d'])
    assert target.read_bytes() == (b'MaskPath,ImageID,Name\r\n"b,1a.png",2b,y\r\n'
                                   b'c.png,3d,"1a, z"\r\n')


def test_a_whole_csv_is_a_link_that_moves_with_the_folder(target):
    place(target, None)
    assert target.read_bytes() == TABLE
    moved = target.parent.rename(target.parent.with_name('moved'))
    assert os.readlink(moved / target.name) == f'full_csvs/{target.name}'
    assert (moved / target.name).read_bytes() == TABLE


def test_a_choice_after_the_whole_leaves_the_whole(target):
    place(target, None)
    place(target, ['2b'])
    assert not target.is_symlink()
    assert full_path(target).read_bytes() == TABLE != target.read_bytes()
    place(target, None)
    assert target.is_symlink()


def test_without_links_the_whole_is_a_copy_and_made_once(target, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(1, 'Operation not permitted')

    monkeypatch.setattr(Path, 'symlink_to', refuse)
    place(target, ['2b'])
    place(target, None)
    assert target.read_bytes() == TABLE
    before = target.stat()
    place(target, None)
    assert (target.stat().st_mtime_ns, target.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_only_the_table_and_the_official_ones_are_left(target):
    for image_ids in (['1a'], ['1a'], None, None, ['2b']):
        place(target, image_ids)
    assert {path.name for path in target.parent.rglob('*')} == {'full_csvs', target.name}
