"""The images a submission is for: their ids, in order, and their sizes where known.

Four kinds of source are understood: a folder of images, a prepared ``index.arrow``, a CSV with an
id and a size in each row (``image_id,image_w,image_h`` or ``ImageID,ImageWidth,ImageHeight``), and
a text file with one id a line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image

from projects.openimages.common.errors import UserError
from projects.openimages.common.progress import progress
from projects.openimages.data.index import PreparedIndex
from projects.openimages.labels import LabelSpace, read_classes
from projects.openimages.submissions.formats import split_row

ImageSizes = dict[str, tuple[int, int] | None]  # width and height by image id

_SUFFIXES = ('.jpg', '.jpeg', '.png')
_ID_NAMES = ('imageid', 'image_id', 'id')
_WIDTH_NAMES = ('imagewidth', 'image_w', 'image_width', 'width')
_HEIGHT_NAMES = ('imageheight', 'image_h', 'image_height', 'height')
_CLASS_LISTS = ('*classes-description-segmentable.csv', '*class-descriptions*segmentable*.csv')


def read_image_list(source: str | os.PathLike, workers: int = 1) -> ImageSizes:
    """Image ids and sizes, in the source's order; a size is None where the source has none.

    Args:
        source: a folder, an ``index.arrow``, a CSV or a text file, see the module.
        workers: processes that read image headers.
    """
    path = Path(source)
    if path.is_dir():
        sizes = _from_folder(path, workers)
    elif not path.exists():
        raise UserError('no such file or folder (the images)', path=path)
    elif path.suffix == '.arrow':
        index = PreparedIndex.open(path)
        sizes = {image_id: (int(width), int(height)) for image_id, width, height in zip(
            index.image_ids, index.widths, index.heights, strict=True)}
    else:
        sizes = _from_text(path)
    if not sizes:
        raise UserError('no images', path=path)
    return sizes


def find_mids(images: str | os.PathLike, classes: str | os.PathLike | None) -> tuple[str, ...]:
    """The classes a submission may name.

    Args:
        images: as for :func:`read_image_list`. An index knows its classes; for other sources the
            official class list is looked for in the folder and the three above it.
        classes: a class list that is used instead.
    """
    if classes is not None:
        return read_classes(classes)[0]
    path = Path(images).resolve()
    if not path.exists():
        raise UserError('no such file or folder (the images)', path=images)
    if path.suffix == '.arrow':
        return label_space_of(path).mids
    for folder in [path, *path.parents][:4]:
        for pattern in _CLASS_LISTS if folder.is_dir() else ():
            for found in sorted(folder.glob(pattern)):
                return read_classes(found)[0]
    raise UserError('no class list found in its folder or above: name it with --classes',
                    path=images)


def label_space_of(index: str | os.PathLike) -> LabelSpace:
    """The label space inside a prepared index."""
    return PreparedIndex.open(index).label_space


def _from_folder(folder: Path, workers: int) -> ImageSizes:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries
                       if Path(entry.name).suffix.lower() in _SUFFIXES)
    paths = [str(folder / name) for name in names]
    bar = {'total': len(paths), 'desc': 'image headers', 'unit': 'image'}
    if workers > 1 and len(paths) > 1000:
        with ProcessPoolExecutor(workers) as pool:
            return _collect(names, progress(pool.map(_image_size, paths, chunksize=200), **bar))
    return _collect(names, progress(map(_image_size, paths), **bar))


def _collect(names: Iterable[str], sizes: Iterable[tuple[int, int]]) -> ImageSizes:
    return {Path(name).stem: size for name, size in zip(names, sizes, strict=True)}


def _image_size(path: str) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, SyntaxError) as error:
        raise UserError(f'not a readable image ({error})', path=path) from None


def _from_text(path: Path) -> ImageSizes:
    sizes: ImageSizes = {}
    columns: list[int] = []
    with open(path, encoding='utf-8-sig', newline='') as file:
        for row, line in enumerate(file, start=1):
            fields = split_row(line)
            if row == 1 and (columns := _columns(fields)):
                continue
            if not any(fields):
                continue
            image_id, size = _text_row(fields, columns, path, row)
            if image_id in sizes:
                raise UserError(f'image {image_id} again', path=path, row=row)
            sizes[image_id] = size
    return sizes


def _text_row(fields: list[str], columns: list[int], path: Path,
              row: int) -> tuple[str, tuple[int, int] | None]:
    try:
        image_id = fields[columns[0] if columns else 0].strip()
        size = (int(fields[columns[1]]), int(fields[columns[2]])) if len(columns) == 3 else None
    except (IndexError, ValueError):
        raise UserError(f'{",".join(fields)[:60]!r} is not an image id, width and height',
                        path=path, row=row) from None
    return image_id, size


def _columns(header: list[str]) -> list[int]:
    """Where id, width and height are; only the id without sizes, nothing without a header."""
    names = [name.strip().lower() for name in header]
    found = [next((names.index(name) for name in known if name in names), None)
             for known in (_ID_NAMES, _WIDTH_NAMES, _HEIGHT_NAMES)]
    if found[0] is None:
        return []
    return [found[0]] if None in found else found
