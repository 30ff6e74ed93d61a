"""``tools/download.py`` from an empty folder, and what it leaves for the commands after it."""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest

from projects.openimages.data.index import PreparedIndex
from projects.openimages.labels import LabelSpace
from tests.download.command import arguments, download, downloaded, images_of, prepared, table
from tests.download.mirror import CHALLENGE, IMAGES, read_rows
from tests.helpers import assert_one_line_error, run_tool, turned_round

EMPTY_ZIP = b'PK\5\6' + bytes(18)


def files_of(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob('*')
            if path.is_file() and not path.is_symlink()}


def times_of(root: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in root.rglob('*') if not path.is_dir()}


def test_the_whole_challenge_is_prepared_as_if_it_had_been_there(challenge, demo, root, tmp_path):
    result = run_tool(*arguments(challenge, root, split=('train', 'validation')))
    assert result.returncode == 0, result.stderr
    assert f'tools/prepare_data.py --data-root {root} --split train validation' in result.stdout
    there = Path(shutil.copytree(demo, tmp_path / 'there'))
    shutil.rmtree(there / 'images' / 'test')
    (there / 'demo_data.json').unlink()
    kept = {name.replace('full_csvs/', ''): data for name, data in files_of(root).items()}
    assert kept == {name: data for name, data in files_of(there).items() if data != EMPTY_ZIP}
    assert all(path.is_symlink() for path in root.glob('*-segmentation-*.csv'))  # kept once
    for folder in (root, there):
        prepared(folder, 'train', 'validation')
    for split in ('train', 'validation'):
        index = Path('prepared') / split / 'index.arrow'
        assert (root / index).read_bytes() == (there / index).read_bytes()


def test_the_full_release_is_prepared_with_the_images_that_have_masks(v7, demo, root):
    downloaded(v7, root, release='v7', split=('train', 'validation'))
    prepared(root, 'train', 'validation')
    for split in ('train', 'validation'):
        masked = {row['ImageID'] for row in read_rows(table(demo, 'masks', split))}
        index = PreparedIndex.open(root / 'prepared' / split / 'index.arrow')
        assert images_of(root, split) == masked == set(index.image_ids)
        assert len(masked) < len(list((demo / 'images' / split).iterdir()))


def test_a_subset_is_the_first_images_with_all_their_rows_and_no_other(challenge, demo, root):
    figures = root.with_name('figures.json')
    downloaded(challenge, root, '--max-images', '5', '--json', figures, split=('train',))
    assert json.loads(figures.read_text()) == {'splits': [{'split': 'train', 'images': 5}]}
    ids = {image.stem for image in sorted((demo / 'images' / 'train').iterdir())[:5]}
    assert images_of(root, 'train') == ids
    for name in ('bbox', 'labels', 'masks'):
        wanted = [row for row in read_rows(table(demo, name, 'train')) if row['ImageID'] in ids]
        assert read_rows(table(root, name, 'train')) == wanted != []
        lines = table(demo, name, 'train').read_bytes().splitlines(keepends=True)
        assert set(table(root, name, 'train').read_bytes().splitlines(keepends=True)) <= {*lines}
    masks = {row['MaskPath'][0] for row in read_rows(table(root, 'masks', 'train'))}
    assert {path.stem[-1] for path in (root / 'masks').iterdir()} == masks
    assert len(masks) < 16
    prepared(root, 'train')
    index = PreparedIndex.open(root / 'prepared' / 'train' / 'index.arrow')
    assert set(index.image_ids) == ids


def test_a_larger_choice_fetches_only_what_is_not_there(challenge, demo, root):
    downloaded(challenge, root, '--max-images', '3')
    first = len(challenge.gets())
    downloaded(challenge, root)
    names = [each.path for each in challenge.gets()]
    assert len(names) == len(set(names)) > first
    for name in ('bbox', 'labels', 'masks'):
        assert table(root, name).read_bytes() == table(demo, name).read_bytes()
    downloaded(challenge, root, '--max-images', '3')
    assert len(challenge.gets()) == len(names)
    assert {row['ImageID'] for row in read_rows(table(root, 'labels'))} == {
        path.stem for path in sorted((demo / 'images' / 'validation').iterdir())[:3]}
    assert (root / 'full_csvs' / table(root, 'masks').name).read_bytes() \
        == table(demo, 'masks').read_bytes()


@pytest.mark.parametrize('more', [(), ('--max-images', '3')])
def test_a_second_run_touches_nothing(challenge, root, more):
    downloaded(challenge, root, *more)
    before, gets = times_of(root), len(challenge.gets())
    downloaded(challenge, root, *more)
    assert times_of(root) == before
    assert len(challenge.gets()) == gets


def test_an_image_that_is_gone_or_empty_is_fetched_again(challenge, demo, root):
    downloaded(challenge, root)
    first, second, *_ = sorted((root / 'images' / 'validation').iterdir())
    first.unlink()
    second.write_bytes(b'')
    downloaded(challenge, root)
    for path in (first, second):
        assert path.read_bytes() == (demo / path.relative_to(root)).read_bytes()


def test_classes_choose_images_by_their_masks_and_those_of_classes_below(challenge, demo, root):
    space = LabelSpace.read(demo / 'challenge-2019-classes-description-segmentable.csv',
                            demo / 'challenge-2019-label300-segmentable-hierarchy.json')
    rows = read_rows(table(demo, 'masks'))
    present = {space.ids[row['LabelName']] for row in rows}
    parent = next(a for c in present for a in space.ancestors(c) if a not in present)
    below = {space.mids[c] for c in (parent, *space.descendants(parent))}
    wanted = {row['ImageID'] for row in rows if row['LabelName'] in below}
    assert wanted and len(wanted) < len({row['ImageID'] for row in rows})
    downloaded(challenge, root, '--classes', space.names[parent].upper())
    assert images_of(root) == wanted
    other = {row['LabelName'] for row in read_rows(table(root, 'masks'))} - below
    assert other  # rows of the other classes stay with their images


def test_an_unknown_class_names_those_like_it_before_the_csvs_come(challenge, demo, root):
    text = (demo / 'challenge-2019-classes-description-segmentable.csv').read_text(encoding='utf-8')
    name = next(name for _, name in csv.reader(text.splitlines()) if len(name) > 8)
    assert_one_line_error(download(challenge, root, '--classes', f'{name[:-1]}7'),
                          f'no class \'{name[:-1]}7\'; near: ', name)
    assert not challenge.gets('segmentation-masks')


@pytest.mark.parametrize('line', ['{}', 'validation/{}', '{}.jpg'])
def test_a_list_chooses_images(challenge, demo, root, tmp_path, line):
    ids = [path.stem for path in (demo / 'images' / 'validation').iterdir()][:3]
    listing = tmp_path / 'list.txt'
    listing.write_text('\n'.join(line.format(each) for each in [*ids, '0' * 16]))
    downloaded(challenge, root, '--image-list', listing)
    assert images_of(root) == set(ids)
    prepared(root, 'validation')


def test_columns_may_stand_in_any_order(challenge, demo, root, tmp_path):
    ids = sorted(path.stem for path in (demo / 'images' / 'validation').iterdir())[:3]
    listing = tmp_path / 'list.csv'
    listing.write_text('ImageID,Subset\n' + ''.join(f'{each},validation\n' for each in ids))
    turned_round(listing, listing)
    for name in ('bbox', 'labels', 'masks'):
        served = challenge.folder / CHALLENGE / table(root, name).name
        whole = served.read_text()
        served.unlink()  # it is a link to the demo's
        served.write_text(whole)
        turned_round(served, served)
    downloaded(challenge, root, '--image-list', listing)
    assert images_of(root) == set(ids)
    for name in ('bbox', 'labels', 'masks'):
        wanted = [row for row in read_rows(table(demo, name)) if row['ImageID'] in ids]
        assert read_rows(table(root, name)) == wanted != []


def test_the_test_images_are_those_of_the_sample_submission(challenge, demo, root, tmp_path):
    ids = sorted(path.stem for path in (demo / 'images' / 'test').iterdir())
    sample = tmp_path / 'sample_submission.csv'
    with open(sample, 'w', newline='') as file:
        csv.writer(file).writerows([
            ('ImageID', 'ImageWidth', 'ImageHeight', 'PredictionString'),
            *((each, 10, 10, '') for each in ids)])
    downloaded(challenge, root, '--image-list', sample, split=('challenge2018',))
    for each in ids:
        assert ((root / 'images' / 'challenge2018' / f'{each}.jpg').read_bytes()
                == (demo / 'images' / 'test' / f'{each}.jpg').read_bytes())
    assert not (root / 'masks').exists()
    fewer = root.with_name('fewer')
    downloaded(challenge, fewer, '--image-list', sample, '--max-images', '2',
               split=('challenge2018',))
    assert images_of(fewer, 'challenge2018') == set(ids[:2])


@pytest.mark.parametrize(('more', 'split', 'words'), [
    ((), 'test', 'the release challenge has train, validation, challenge2018'),
    ((), 'challenge2018', '--image-list sample_submission.csv'),
    (('--max-images', '0'), 'train', '--max-images 0, expected at least 1'),
    (('--connections', '0'), 'train', '--connections 0, expected at least 1'),
    (('--image-list', 'none.txt'), 'train', 'none.txt: no such file'),
    (('--base-url', 'ftp://x'), 'train', "--base-url 'ftp://x', expected http")])
def test_what_cannot_be_is_said_before_anything_is_asked(server, root, more, split, words):
    assert_one_line_error(download(server, root, *more, split=(split,)), words)
    assert not server.requests and not root.exists()


def test_a_list_without_an_image_of_the_split_is_an_error(challenge, root, tmp_path):
    listing = tmp_path / 'list.txt'
    listing.write_text('train/0123456789abcdef\n')
    result = download(challenge, root, '--image-list', listing)
    assert_one_line_error(result, '--split validation: no image is left')


def test_dry_run_says_how_much_and_writes_nothing(challenge, demo, root):
    size = sum(path.stat().st_size for pattern in ('*.csv', '*.json')
               for path in demo.glob(pattern) if 'train' not in path.name
               and path.name != 'demo_data.json')
    figures = root.with_name('figures.json')
    out = downloaded(challenge, root, '--dry-run', '--json', figures)
    assert not root.exists()
    come = {each['kind']: each for each in json.loads(figures.read_text())['to_come']}
    assert come['class files, CSVs'] == {'kind': 'class files, CSVs', 'files': 5, 'size': size,
                                         'is_size_known': True, 'is_most': False}
    assert come['images, validation']['files'] == 12_965
    assert out.splitlines()[0] == f'class files, CSVs               5 files  {size / 1e6:.1f} MB'
    assert out.splitlines()[1].startswith('mask archives                  16 files  0.')
    assert out.splitlines()[2:4] == ['images, validation         12,965 files  about 3.7 GB',
                                     'to come                    12,986 files  about 3.7 GB']
    assert not challenge.gets()
    capped = downloaded(challenge, root, '--dry-run', '--max-images', '100')
    assert 'images, validation            100 files  about 28.8 MB at most\n' in capped


def test_dry_run_counts_exactly_once_the_csvs_are_there(challenge, demo, root):
    downloaded(challenge, root, '--max-images', '3')
    out = downloaded(challenge, root, '--dry-run', '--max-images', '5')
    assert 'class files, CSVs               0 files  0.0 MB\n' in out
    assert 'images, validation              2 files  about 0.6 MB\n' in out
    assert 'at most' not in out


def test_a_csv_that_the_server_does_not_have_is_one_line(challenge, root):
    (challenge.folder / CHALLENGE / table(root, 'labels').name).unlink()
    assert_one_line_error(download(challenge, root),
                          f'{challenge.url}/{CHALLENGE}/{table(root, "labels").name}: HTTP 404')


def test_an_image_that_the_server_does_not_have_is_told_when_all_else_is_there(
        challenge, demo, root):
    lost = sorted((challenge.folder / IMAGES / 'validation').iterdir())[2]
    lost.unlink()
    result = download(challenge, root)
    assert_one_line_error(result, 'does not have 1 of the images', f'{lost.name}: HTTP 404')
    assert images_of(root) == {path.stem for path in (demo / 'images' / 'validation').iterdir()} \
        - {lost.stem}
    assert table(root, 'masks').exists()


def test_official_csvs_that_are_there_already_are_taken(challenge, demo, root):
    root.mkdir()
    shutil.copy(table(demo, 'masks'), root)
    outside = root.parent / 'elsewhere.csv'
    shutil.copy(table(demo, 'bbox'), outside)
    table(root, 'bbox').symlink_to(Path('..') / outside.name)
    downloaded(challenge, root, '--max-images', '3')
    assert {each.path.rpartition('-')[2] for each in challenge.gets('segmentation-')} == {
        'labels.csv'}
    assert outside.read_bytes() == table(demo, 'bbox').read_bytes()
    assert len(read_rows(table(root, 'bbox'))) < len(read_rows(outside))


@pytest.mark.parametrize('change', [lambda data: data + b'x', lambda data: data[:-2] + b'9\n'])
def test_other_files_of_official_names_are_refused_and_left_alone(challenge, demo, root, change):
    root.mkdir()
    own = change(table(demo, 'masks').read_bytes())
    table(root, 'masks').write_bytes(own)
    assert_one_line_error(download(challenge, root), str(table(root, 'masks')),
                          'not the official file')
    assert table(root, 'masks').read_bytes() == own


def test_an_archive_that_somebody_fetched_half_is_refused(challenge, demo, root):
    name = next(row['MaskPath'][0] for row in read_rows(table(demo, 'masks')))
    archive = root / 'masks' / f'challenge-2019-validation-masks-{name}.zip'
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b'half')
    assert_one_line_error(download(challenge, root), str(archive), 'not the official file (4 bytes')


def test_without_the_client_the_command_says_how_to_get_it(server, root, tmp_path):
    (tmp_path / 'sitecustomize.py').write_text('''
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == 'aiohttp':
            raise ModuleNotFoundError("No module named 'aiohttp'", name=name)

sys.meta_path.insert(0, Missing())''')
    result = run_tool(*arguments(server, root), env={**os.environ, 'PYTHONPATH': str(tmp_path)})
    assert_one_line_error(result, 'pip install -e ".[download]"')


def test_a_disk_that_is_too_small_is_told_beforehand(challenge, root, monkeypatch):
    enough = downloaded(challenge, root, '--dry-run')
    usage = shutil.disk_usage(root.parent)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=2_500_000_000))
    assert 'not enough' not in enough
    assert f'{root}: 2.5 GB free, which is not enough' in downloaded(challenge, root, '--dry-run')
