"""The images a submission is for: their ids, in order, and their sizes where known.

Four kinds of source are understood: a folder of images, a prepared ``index.arrow``, a CSV with an
id and a size in each row (``image_id,image_w,image_h`` or ``ImageID,ImageWidth,ImageHeight``, as in
Kaggle's sample submission, which is the challenge's own list), and a text file with one id a line.
"""

from __future__ import annotations

import codecs
import os
import reprlib
from itertools import chain
from pathlib import Path

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import open_regular
from projects.openimages.common.parallel import run_in_order
from projects.openimages.common.progress import progress
from projects.openimages.data.official.releases import (
    CHALLENGE,
    CHALLENGE_TEST,
    RELEASE_TEST_IMAGES,
)
from projects.openimages.labels import read_classes
from projects.openimages.submissions.formats import (
    image_size,
    is_image_id,
    read_rows,
    split_row,
)

ImageSizes = dict[str, tuple[int, int] | None]  # width and height by image id

_IMAGES_A_TASK = 500
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
        sizes = _from_index(path)
    else:
        sizes = _from_text(path)
    if not sizes:
        raise UserError('no images', path=path)
    return sizes


def count_warning(count: int) -> str | None:
    """What is odd about the number of images of a submission to the challenge; None if nothing."""
    expected = CHALLENGE.published[CHALLENGE_TEST].images
    if count == expected:
        return None
    hint = (', and these are as many as the test images of the full release'
            if count == RELEASE_TEST_IMAGES else '')
    return (f'{count:,} images; the challenge has {expected:,} test images, those called '
            f'{CHALLENGE_TEST}{hint}')


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
        from projects.openimages.data.index import PreparedIndex
        return PreparedIndex.open(path).label_space.mids
    for folder in [path, *path.parents][:4]:
        for pattern in _CLASS_LISTS if folder.is_dir() else ():
            for found in sorted(folder.glob(pattern)):
                return read_classes(found)[0]
    raise UserError('no class list found in its folder or above: name it with --classes',
                    path=images)


def _from_index(path: Path) -> ImageSizes:
    from projects.openimages.data.index import PreparedIndex  # where there is one: it takes Arrow

    open_regular(path).close()
    index = PreparedIndex.open(path)
    return {image_id: (int(width), int(height)) for image_id, width, height in zip(
        index.image_ids, index.widths, index.heights, strict=True)}


def _from_folder(folder: Path, workers: int) -> ImageSizes:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries
                       if Path(entry.name).suffix.lower() in _SUFFIXES)
    of_id: dict[str, str] = {}
    for name in names:
        image_id = Path(name).stem
        if not is_image_id(image_id):  # nor are bytes that are no UTF-8, lone surrogates here
            raise UserError(f'the name {name!a} is no image id', path=folder)
        if of_id.setdefault(image_id, name) != name:
            raise UserError(f'image {image_id} twice, {of_id[image_id]} and {name}', path=folder)
    paths = [str(folder / name) for name in names]
    chunks = [paths[n:n + _IMAGES_A_TASK] for n in range(0, len(paths), _IMAGES_A_TASK)]
    sizes = chain.from_iterable(run_in_order(_image_sizes, chunks, workers, len(chunks)))
    return dict(zip(of_id, progress(sizes, total=len(paths), desc='image headers', unit='image'),
                    strict=True))


def _image_sizes(paths: list[str]) -> list[tuple[int, int]]:
    return [_image_size(path) for path in paths]


def _image_size(path: str) -> tuple[int, int]:
    from projects.openimages.data.official.image_sizes import ImageError, read_image_size

    try:
        open_regular(path).close()
        return read_image_size(path)[:2]
    except (OSError, ImageError) as error:
        raise UserError(f'not a readable image ({error})', path=path) from None


def _from_text(path: Path) -> ImageSizes:
    sizes: ImageSizes = {}
    columns: list[int] = []
    with open_regular(path) as file:
        for row, line in enumerate(read_rows(file), start=1):
            try:
                fields = split_row(line.removeprefix(codecs.BOM_UTF8) if row == 1 else line)
                if (row == 1 and (columns := _columns(fields))) or not any(fields):
                    continue
                image_id, size = _text_row(fields, columns or [0])
            except ValueError as error:
                raise UserError(str(error), path=path, row=row) from None
            if image_id in sizes:
                raise UserError(f'image {image_id} again', path=path, row=row)
            sizes[image_id] = size
    return sizes


def _text_row(fields: list[str], columns: list[int]) -> tuple[str, tuple[int, int] | None]:
    if len(fields) <= max(columns):
        raise ValueError(f'{len(fields)} fields, expected {max(columns) + 1} or more')
    image_id, *size = [fields[column].strip() for column in columns]
    if not is_image_id(image_id):
        raise ValueError(f'image id {reprlib.repr(image_id)}')
    return image_id, image_size(*size) if size else None


def _columns(header: list[str]) -> list[int]:
    """Where id, width and height are; only the id without sizes, nothing without a header."""
    names = [name.strip().lower() for name in header]
    found = [next((names.index(name) for name in known if name in names), -1)
             for known in (_ID_NAMES, _WIDTH_NAMES, _HEIGHT_NAMES)]
    if found[0] < 0:
        return []
    return found[:1] if -1 in found else found
