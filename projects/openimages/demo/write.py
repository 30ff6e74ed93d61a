"""Writes the demo data set: pictures, tables and mask archives, whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import exclusive
from projects.openimages.common.progress import progress
from projects.openimages.demo.annotate import ImageAnnotations, annotate
from projects.openimages.demo.classes import DemoClasses, demo_classes
from projects.openimages.demo.scenes import paint_scene, plan_split

DEFAULT_IMAGES = 500
FEWEST_IMAGES = 16
PARAMETERS_FILE = 'demo_data.json'
GENERATOR_VERSION = 1  # raised whenever the same parameters would give other bytes
TAIL_RATIOS = {'train': 60.0, 'validation': 6.0, 'test': 6.0}
JPEG_QUALITY = 90
ARCHIVES = '0123456789abcdef'

BOX_HEADER = ('ImageID', 'LabelName', 'XMin', 'XMax', 'YMin', 'YMax', 'IsGroupOf')
LABEL_HEADER = ('ImageID', 'LabelName', 'Confidence')
MASK_HEADER = ('MaskPath', 'ImageID', 'LabelName', 'BoxID', 'BoxXMin', 'BoxXMax', 'BoxYMin',
               'BoxYMax', 'PredictedIoU', 'Clicks')


def make_demo_data(out: str | os.PathLike, num_images: int = DEFAULT_IMAGES, seed: int = 0) -> bool:
    """Write a demo data set, or find it already there.

    Args:
        out: the folder to make; it appears only when it is complete.
        num_images: training pictures; validation and test get a fifth of that each, but 8 at least.
        seed: same seed, same bytes.

    Returns:
        False when a complete data set of the same parameters was there and is left as it is.

    Raises:
        UserError: parameters out of range, anything else in the folder, or another run at it.
    """
    if num_images < FEWEST_IMAGES:
        raise UserError(f'--images {num_images}: the data set needs at least {FEWEST_IMAGES}')
    if seed < 0:
        raise UserError(f'--seed {seed}: expected 0 or more')
    out = Path(out).absolute()
    parameters = {'generator_version': GENERATOR_VERSION, 'images': num_images, 'seed': seed}
    if _is_there(out, parameters):
        return False
    with exclusive(out, 'making this data set'):
        if _is_there(out, parameters):  # another run has just made it
            return False
        unfinished = out.with_name(f'.{out.name}.unfinished')
        shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
        unfinished.mkdir()
        try:
            _write_all(unfinished, num_images, seed)
            _write_json(unfinished / PARAMETERS_FILE, parameters)
            unfinished.rename(out)  # takes the place of an empty folder, never of another
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    return True


def split_sizes(num_images: int) -> dict[str, int]:
    """Pictures in each split for that many training pictures."""
    fifth = max(8, num_images // 5)
    return {'train': num_images, 'validation': fifth, 'test': fifth}


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


def _write_all(root: Path, num_images: int, seed: int) -> None:
    classes = demo_classes()
    _write_csv(root / 'challenge-2019-classes-description-segmentable.csv', None,
               zip(classes.mids, classes.names, strict=True))
    _write_json(root / 'challenge-2019-label300-segmentable-hierarchy.json', classes.hierarchy())
    sizes = split_sizes(num_images)
    with progress(total=sum(sizes.values()), desc='painting', unit='image') as bar:
        for number, (split, size) in enumerate(sizes.items()):
            _write_split(root, split, size, classes, (seed, number), bar)


def _write_split(root: Path, split: str, size: int, classes: DemoClasses, stream: tuple[int, int],
                 bar) -> None:
    rng = np.random.default_rng(stream)
    plans = plan_split(size, TAIL_RATIOS[split], classes, rng)
    folder = root / 'images' / split
    folder.mkdir(parents=True)
    tables = ImageAnnotations()
    for number, (image_id, plan) in enumerate(zip(_image_ids(size, rng), plans, strict=True)):
        own_rng = np.random.default_rng((*stream, number))
        image, objects = paint_scene(plan, own_rng)
        image.save(folder / f'{image_id}.jpg', quality=JPEG_QUALITY)
        if split != 'test':
            rows = annotate(image_id, plan, objects, classes, own_rng)
            for name in ('boxes', 'labels', 'masks', 'pngs'):
                getattr(tables, name).extend(getattr(rows, name))
        bar.update()
    if split != 'test':
        _write_tables(root, split, tables, rng)


def _image_ids(count: int, rng: np.random.Generator) -> list[str]:
    """Sorted ids of 16 hexadecimal digits, their first digits spread evenly over the archives."""
    return sorted(ARCHIVES[i % 16] + rng.bytes(8).hex()[1:] for i in range(count))


def _write_tables(root: Path, split: str, tables: ImageAnnotations,
                  rng: np.random.Generator) -> None:
    stem = f'challenge-2019-{split}'
    _write_csv(root / f'{stem}-segmentation-bbox.csv', BOX_HEADER, tables.boxes)
    _write_csv(root / f'{stem}-segmentation-labels.csv', LABEL_HEADER, tables.labels)
    shuffled = [tables.masks[i] for i in rng.permutation(len(tables.masks))]
    _write_csv(root / f'{stem}-segmentation-masks.csv', MASK_HEADER, shuffled)
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


def _write_csv(path: Path, header: tuple[str, ...] | None, rows: Iterable) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator='\n')
    if header:
        writer.writerow(header)
    writer.writerows(rows)
    path.write_text(buffer.getvalue(), encoding='utf-8', newline='\n')


def _write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=4) + '\n', encoding='utf-8')
