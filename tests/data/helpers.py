"""Preparing and looking at what was prepared."""

import csv
import zipfile
from pathlib import Path

from projects.openimages.data.index import PreparedIndex
from projects.openimages.data.layout import find_classes, read_classes_of
from projects.openimages.data.prepare.run import Prepared, PrepareOptions, prepare_split


def prepare(root: Path, split: str = 'train', **options) -> Prepared:
    classes = find_classes(root)
    return prepare_split(root, split, read_classes_of(classes), classes.paths,
                         PrepareOptions(**options))


def open_prepared(root: Path, split: str = 'train') -> PreparedIndex:
    return PreparedIndex.open(root / 'prepared' / split / 'index.arrow')


def outputs(root: Path, split: str = 'train') -> dict[str, bytes]:
    """Everything a finished split holds, but the record of its inputs' times."""
    folder = root / 'prepared' / split
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob('*')) if path.is_file() and path.name != '.inputs.json'}


def table(root: Path, name: str, split: str = 'train') -> Path:
    return root / f'challenge-2019-{split}-segmentation-{name}.csv'


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def replace_line(path: Path, row: int, line: str) -> None:
    """Put another line at a row, the header being row 1."""
    lines = path.read_text(encoding='utf-8').splitlines(keepends=True)
    lines[row - 1] = line
    path.write_text(''.join(lines), encoding='utf-8')


def line_of(path: Path, row: int) -> str:
    return path.read_text(encoding='utf-8').splitlines(keepends=True)[row - 1]


def archive_of(root: Path, row: int, split: str = 'train') -> Path:
    """The zip that holds the mask of a row of the masks CSV."""
    character = line_of(table(root, 'masks', split), row)[0]
    return root / 'masks' / f'challenge-2019-{split}-masks-{character}.zip'


def rewrite_archive(path: Path, change) -> None:
    """Write a zip again with ``change(name, data)`` giving the (name, data) of each entry."""
    with zipfile.ZipFile(path) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, 'w') as archive:
        for name, data in entries:
            archive.writestr(*change(name, data))
