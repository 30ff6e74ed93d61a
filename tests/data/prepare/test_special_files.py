"""What is no file where one should be, and options that are none: one line, and nobody waits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from projects.openimages.common.errors import UserError, run_command
from tests.data.helpers import archive_of, line_of, outputs, prepare, table
from tests.helpers import assert_one_line_error, run_tool
from tools import prepare_data

PATIENCE = 60  # seconds; who opens a FIFO without a writer waits for ever


def first_image(root: Path) -> Path:
    return root / 'images' / 'train' / f'{line_of(table(root, "bbox"), 2).split(",")[0]}.jpg'


def image_fifo(root: Path) -> None:
    first_image(root).unlink()
    os.mkfifo(first_image(root))


def image_of_links_in_a_circle(root: Path) -> None:
    path = first_image(root)
    path.unlink()
    path.symlink_to(path.name)


def image_folder(root: Path) -> None:
    first_image(root).unlink()
    first_image(root).mkdir()


def image_device(root: Path) -> None:
    first_image(root).unlink()
    first_image(root).symlink_to('/dev/zero')


def extracted_mask_fifo(root: Path) -> None:
    folder = root / 'masks' / 'train' / 'train-masks-0'
    folder.mkdir(parents=True)
    os.mkfifo(folder / line_of(table(root, 'masks'), 2).split(',')[0])


def archive_fifo(root: Path) -> None:
    path = archive_of(root, 2)
    path.unlink()
    os.mkfifo(path)


def sizes_fifo(root: Path) -> None:
    os.mkfifo(root / 'sizes.csv')


def sizes_device(root: Path) -> None:
    (root / 'sizes.csv').symlink_to('/dev/zero')


SPECIAL = {  # what to make, further arguments, and the words of the error
    image_fifo: ((), ('bbox.csv, row 2: ', '.jpg: a FIFO, expected a file')),
    image_device: ((), ('bbox.csv, row 2: ', '.jpg: a device, expected a file')),
    image_folder: ((), ('bbox.csv, row 2: ', '.jpg: a folder, expected a file')),
    image_of_links_in_a_circle: ((), ('bbox.csv, row 2: ', '.jpg: Too many levels of symbolic')),
    extracted_mask_fifo: ((), ('masks.csv, row 2: ', '.png: a FIFO, expected a file')),
    archive_fifo: ((), ('.zip: a FIFO, expected a file',)),
    sizes_fifo: (('--sizes', 'sizes.csv'), ('sizes.csv: a FIFO, expected a file',)),
    sizes_device: (('--sizes', 'sizes.csv'), ('sizes.csv: a device, expected a file',)),
}


@pytest.mark.parametrize('make', SPECIAL, ids=lambda make: make.__name__)
def test_what_is_no_file_is_told_in_one_line_and_nobody_waits(data_root, make):
    make(data_root)
    arguments, words = SPECIAL[make]
    arguments = [data_root / a if a.endswith('.csv') else a for a in arguments]
    result = run_tool('tools/prepare_data.py', '--data-root', data_root, '--split', 'train',
                      '--workers', 1, *arguments, timeout=PATIENCE)
    assert_one_line_error(result, *words)


def test_image_that_is_no_file_can_be_skipped(data_root):
    image_of_links_in_a_circle(data_root)
    prepare(data_root, skip_bad=True)
    report = json.loads((data_root / 'prepared/train/report.json').read_text(encoding='utf-8'))
    assert {kind: found['count'] for kind, found in report['problems'].items()
            if found['stops']} == {'broken_image': 1}


@pytest.mark.parametrize('folder', ['images/train', 'images/test', 'masks/train/train-masks-0'])
def test_name_that_is_not_utf8_is_told_in_one_line(data_root, folder):
    (data_root / folder).mkdir(parents=True, exist_ok=True)
    suffix = b'.png' if 'masks' in folder else b'.jpg'
    with open(os.fsencode(data_root / folder) + b'/caf\xe9' + suffix, 'wb'):
        pass
    with pytest.raises(UserError, match=rf"{folder}: file name b'caf\\xe9\{suffix.decode()}' is "
                                        'not UTF-8'):
        prepare(data_root, 'test' if 'test' in folder else 'train')


def test_other_names_that_are_not_utf8_harm_nobody(data_root, prepared_data):
    for folder in ('images/train', 'masks', 'prepared/train'):
        (data_root / folder).mkdir(parents=True, exist_ok=True)
        with open(os.fsencode(data_root / folder) + b'/caf\xe9.txt', 'wb'):
            pass
    prepare(data_root)
    made = outputs(data_root)
    assert {name: made[name] for name in outputs(prepared_data)} == outputs(prepared_data)


def sizes_file(content: bytes):
    def make(root: Path) -> list[str]:
        (root / 'sizes.csv').write_bytes(content)
        return ['--sizes', str(root / 'sizes.csv')]
    return make


def options(*arguments: str):
    return lambda root: list(arguments)


HEADER = b'ImageID,ImageWidth,ImageHeight\n'


@pytest.mark.parametrize(('arguments', 'words'), [
    (options('--workers', '0'), '0 workers, expected at least 1'),
    (options('--workers', '-1'), '-1 workers, expected at least 1'),
    (options('--format', 'polygon', '--polygon-tolerance', '1e308'), 'tolerance 1e+308, expected'),
    (options('--format', 'polygon', '--polygon-tolerance', '1001'), 'tolerance 1001, expected'),
    (options('--format', 'polygon', '--polygon-tolerance', 'nan'), 'tolerance nan, expected'),
    (options('--format', 'polygon', '--polygon-tolerance', 'inf'), 'tolerance inf, expected'),
    (options('--format', 'polygon', '--polygon-tolerance', '-0.5'), 'tolerance -0.5, expected'),
    (options('--polygon-tolerance', '1'), '--polygon-tolerance is for --format polygon'),
    (options('--num-classes', '0'), '--num-classes 0, expected at least 1'),
    (options('--sizes', 'nowhere.csv'), 'nowhere.csv: no such file'),
    (sizes_file(b''), 'sizes.csv: '),
    (sizes_file(b'\xff\xd8\xff\xe0\0\x10JFIF' * 99), 'sizes.csv'),
    (sizes_file(bytes(5000)), 'sizes.csv'),
    (sizes_file(HEADER + b'\x80\x81\xfe,3,4\n'), 'sizes.csv'),
    (sizes_file(HEADER + bytes(range(256)) * 9), 'sizes.csv'),
    (sizes_file(HEADER + b'a,20,10\nb,4,3\na,21,10\n'),
     'sizes.csv, row 4: image a has 21x10 pixels here and 20x10 in row 2'),
])
def test_bad_option_is_told_in_one_line(data_root, monkeypatch, capsys, arguments, words):
    monkeypatch.setattr(sys, 'argv', ['prepare_data.py', '--data-root', str(data_root), '--split',
                                      'train', *arguments(data_root)])
    with pytest.raises(SystemExit) as end:
        run_command(prepare_data.main)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert end.value.code == 2 and len(errors) == 1 and words in errors[0], errors
    assert not (data_root / 'prepared' / 'train' / 'index.arrow').exists()


def test_polygon_tolerance_of_nothing_and_the_largest_are_taken(data_root):
    for tolerance in (0.0, 1000.0):
        prepare(data_root, 'validation', polygon_tolerance=tolerance)
        report = (data_root / 'prepared/validation/report.txt').read_text(encoding='utf-8')
        assert f'Polygons at most {tolerance:g} pixels' in report


def test_data_root_that_is_not_utf8_is_told_in_one_line(data_root, tmp_path):
    root = os.fsencode(tmp_path) + b'/caf\xe9'
    os.rename(data_root, root)
    result = subprocess.run([sys.executable, prepare_data.__file__, '--data-root', root],
                            capture_output=True, text=True, check=False)
    assert_one_line_error(result, 'not UTF-8')
