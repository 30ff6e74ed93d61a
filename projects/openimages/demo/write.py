"""Writes the demo data set: pictures, tables and mask archives, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from projects.openimages.common.progress import progress
from projects.openimages.demo.annotate import annotate
from projects.openimages.demo.classes import DemoClasses, demo_classes
from projects.openimages.demo.files import (
    JPEG_QUALITY,
    check_parameters,
    image_ids,
    make_folder,
    split_sizes,
    write_classes,
    write_tables,
)
from projects.openimages.demo.rows import ImageAnnotations
from projects.openimages.demo.scenes import paint_scene, plan_split

DEFAULT_IMAGES = 500
FEWEST_IMAGES = 16
GENERATOR_VERSION = 1  # raised whenever the same parameters would give other bytes
TAIL_RATIOS = {'train': 60.0, 'validation': 6.0, 'test': 6.0}


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
    check_parameters(num_images, FEWEST_IMAGES, seed)
    parameters = {'generator_version': GENERATOR_VERSION, 'images': num_images, 'seed': seed}
    return make_folder(out, parameters, lambda root: _write_all(root, num_images, seed))


def _write_all(root: Path, num_images: int, seed: int) -> None:
    classes = demo_classes()
    write_classes(root, classes)
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
    for number, (image_id, plan) in enumerate(zip(image_ids(size, rng), plans, strict=True)):
        own_rng = np.random.default_rng((*stream, number))
        image, objects = paint_scene(plan, own_rng)
        image.save(folder / f'{image_id}.jpg', quality=JPEG_QUALITY)
        if split != 'test':
            tables.extend(annotate(image_id, plan, objects, classes, own_rng))
        bar.update()
    if split != 'test':
        write_tables(root, split, tables, rng)
