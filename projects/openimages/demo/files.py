"""Files of a made data set: a whole folder or none, tables, mask archives.

What every world writes in the same way: its parameters beside the data, so that a complete folder
of the same parameters is reused, and CSVs and zips whose bytes depend on their contents only.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import exclusive
from projects.openimages.demo.classes import DemoClasses
from projects.openimages.demo.rows import ImageAnnotations

PARAMETERS_FILE = 'demo_data.json'
JPEG_QUALITY = 90
ARCHIVES = '0123456789abcdef'

BOX_HEADER = ('ImageID', 'LabelName', 'XMin', 'XMax', 'YMin', 'YMax', 'IsGroupOf')
LABEL_HEADER = ('ImageID', 'LabelName', 'Confidence')
MASK_HEADER = ('MaskPath', 'ImageID', 'LabelName', 'BoxID', 'BoxXMin', 'BoxXMax', 'BoxYMin',
               'BoxYMax', 'PredictedIoU', 'Clicks')


def check_parameters(num_images: int, fewest: int, seed: int) -> None:
    """A UserError for too few images or a negative seed."""
    if num_images < fewest:
        raise UserError(f'--images {num_images}: the data set needs at least {fewest}')
    if seed < 0:
        raise UserError(f'--seed {seed}: expected 0 or more')


def make_folder(out: str | os.PathLike, parameters: dict, fill: Callable[[Path], None]) -> bool:
    """Make a data set's folder, or find it already there.

    Args:
        out: the folder; it appears only when it is complete.
        parameters: all that its contents depend on, kept in ``demo_data.json``.
        fill: writes everything else into the folder that it is given.

    Returns:
        False when a complete data set of the same parameters was there and is left as it is.

    Raises:
        UserError: anything else in the folder, or another run at it.
    """
    out = Path(out).absolute()
    if _is_there(out, parameters):
        return False
    with exclusive(out, 'making this data set'):
        if _is_there(out, parameters):  # another run has just made it
            return False
        unfinished = out.with_name(f'.{out.name}.unfinished')
        shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
        unfinished.mkdir()
        try:
            fill(unfinished)
            write_json(unfinished / PARAMETERS_FILE, parameters)
            unfinished.rename(out)  # takes the place of an empty folder, never of another
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    return True


def _is_there(out: Path, parameters: dict) -> bool:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        found = json.loads((out / PARAMETERS_FILE).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        raise UserError('exists and is no demo data set; choose another folder', path=out) from None
    if found != parameters:
        raise UserError(f'holds another demo data set ({found}); expected {parameters}: remove it '
                        'or choose another folder', path=out)
    return True


def split_sizes(num_images: int) -> dict[str, int]:
    """Images in each split for that many training images."""
    fifth = max(8, num_images // 5)
    return {'train': num_images, 'validation': fifth, 'test': fifth}


def image_ids(count: int, rng: np.random.Generator) -> list[str]:
    """Sorted ids of 16 hexadecimal digits, their first digits spread evenly over the archives."""
    return sorted(ARCHIVES[i % 16] + rng.bytes(8).hex()[1:] for i in range(count))


def write_classes(root: Path, classes: DemoClasses) -> None:
    """The class list and the hierarchy."""
    write_csv(root / 'challenge-2019-classes-description-segmentable.csv', None,
              zip(classes.mids, classes.names, strict=True))
    write_json(root / 'challenge-2019-label300-segmentable-hierarchy.json', classes.hierarchy())


def write_tables(root: Path, split: str, tables: ImageAnnotations,
                 rng: np.random.Generator) -> None:
    """A split's three CSVs and its mask archives, the rows of the masks CSV shuffled."""
    stem = f'challenge-2019-{split}'
    write_csv(root / f'{stem}-segmentation-bbox.csv', BOX_HEADER, tables.boxes)
    write_csv(root / f'{stem}-segmentation-labels.csv', LABEL_HEADER, tables.labels)
    shuffled = [tables.masks[i] for i in rng.permutation(len(tables.masks))]
    write_csv(root / f'{stem}-segmentation-masks.csv', MASK_HEADER, shuffled)
    (root / 'masks').mkdir(exist_ok=True)
    for digit in ARCHIVES:
        own = [(path, data) for path, data in tables.pngs if path[0] == digit]
        _write_zip(root / 'masks' / f'{stem}-masks-{digit}.zip', own)


def _write_zip(path: Path, entries: list[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
        for name, data in sorted(entries):
            info = zipfile.ZipInfo(name, date_time=(2019, 7, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, data)


def write_csv(path: Path, header: tuple[str, ...] | None, rows: Iterable) -> None:
    """UTF-8, one line feed a row."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator='\n')
    if header:
        writer.writerow(header)
    writer.writerows(rows)
    path.write_text(buffer.getvalue(), encoding='utf-8', newline='\n')


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=4) + '\n', encoding='utf-8')
