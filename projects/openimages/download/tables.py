"""The CSVs under the data root: the official ones kept whole, those to prepare cut to the images.

The official CSVs of a split lie in ``full_csvs/``. Under the data root, where preparing looks, is
a link to them or, where only some of the images were chosen, a CSV with the rows of those images,
each row as it was, to the last byte. So another choice needs no second download.
"""

from __future__ import annotations

import csv
import filecmp
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from projects.openimages.common.csv_files import read_header
from projects.openimages.common.errors import UserError
from projects.openimages.common.files import atomic_write, open_regular
from projects.openimages.common.progress import progress
from projects.openimages.download.checksums import find_difference
from projects.openimages.download.remote import Remote

FULL_CSVS = 'full_csvs'


def full_path(target: Path) -> Path:
    """Where the official CSV is kept of which ``target`` is made."""
    return target.parent / FULL_CSVS / target.name


def adopt(target: Path, remote: Remote) -> None:
    """Take an official CSV that somebody put under the data root already.

    Args:
        target: its place.
        remote: the official file.

    Raises:
        UserError: there is something else of that name.
    """
    full = full_path(target)
    if full.exists() or not target.exists():
        return
    difference = find_difference(target, remote)
    if difference is not None:
        raise UserError(f'not the official file ({difference}); move it away', path=target)
    full.parent.mkdir(exist_ok=True)
    if target.is_symlink():
        full.symlink_to(target.resolve())
        target.unlink()
    else:
        target.rename(full)


def check_official(path: Path, remote: Remote) -> None:
    """Raise a UserError if a file that is there has another size than the official one."""
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        raise UserError(f'not the official file ({size} bytes, expected {remote.size}); '
                        'move it away', path=path)


def place(target: Path, image_ids: Collection[str] | None) -> None:
    """Put a CSV where preparing looks for it; one that is right already is not touched.

    Args:
        target: its place.
        image_ids: the images whose rows it shall have; None for the whole official CSV.
    """
    full = full_path(target)
    if image_ids is None:
        _link(full, target)
        return
    new = full.with_name(f'.{target.name}.chosen')
    with atomic_write(new, 'wb') as file:
        file.writelines(_rows_of(full, frozenset(image_id.encode() for image_id in image_ids)))
    if target.exists() and filecmp.cmp(new, target, shallow=False):
        new.unlink()
    else:
        os.replace(new, target)


def _link(full: Path, target: Path) -> None:
    if target.exists() and (os.path.samefile(full, target)
                            or filecmp.cmp(full, target, shallow=False)):
        return
    link = full.with_name(f'.{target.name}.link')
    link.unlink(missing_ok=True)
    try:
        link.symlink_to(Path(FULL_CSVS) / full.name)
        os.replace(link, target)
    except OSError:  # a file system without links
        with open_regular(full) as source, atomic_write(target, 'wb') as copy:
            shutil.copyfileobj(source, copy)


def _rows_of(path: Path, image_ids: Collection[bytes]) -> Iterator[bytes]:
    """The header, and the lines with one of the ids."""
    column = read_header(path).index('ImageID')
    with open_regular(path) as file, progress(
            total=path.stat().st_size, desc=path.name, unit='B', scaled=True) as bar:
        yield file.readline()
        for line in file:
            bar.update(len(line))
            fields = line.split(b',', column + 1)
            if b'"' in line:  # official CSVs have no quoted field, but a comma may be in one
                texts = next(csv.reader([line.decode(errors='replace')]))
                fields = [text.encode() for text in texts]
            if len(fields) > column and fields[column].strip() in image_ids:
                yield line
