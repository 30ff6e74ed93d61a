"""Writes a hard world: images, tables and mask archives, its oracle and its truth."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from projects.openimages.common.errors import UserError
from projects.openimages.common.parallel import run_in_order, worker_count
from projects.openimages.common.progress import progress
from projects.openimages.demo.files import (
    check_parameters,
    image_ids,
    make_folder,
    split_sizes,
    write_classes,
    write_csv,
    write_tables,
)
from projects.openimages.demo.hard.annotate import (
    MASK,
    TRUTH_HEADER,
    annotate,
    choose_annotations,
    exact,
    truth_rows,
)
from projects.openimages.demo.hard.classes import VARIANTS, HardClasses, hard_classes
from projects.openimages.demo.hard.knobs import Knobs
from projects.openimages.demo.hard.plan import ImagePlan, plan_split
from projects.openimages.demo.hard.scenes import PaintedImage, paint_image
from projects.openimages.demo.hard.verification import full_verdict, verify_split
from projects.openimages.demo.rows import ImageAnnotations

DEFAULT_IMAGES = 2000
FEWEST_IMAGES = 40
GENERATOR_VERSION = 1  # raised whenever the same parameters would give other bytes
ORACLE = 'oracle'


@dataclass(frozen=True)
class _Painter:
    """What every process needs to paint any image of a split."""

    classes: HardClasses
    knobs: Knobs
    stream: tuple[int, int, int]


def make_hard_world(out: str | os.PathLike, num_images: int = DEFAULT_IMAGES, seed: int = 0,
                    variant: str = 'A', knobs: Knobs | None = None,
                    workers: int | None = None) -> bool:
    """Write a hard world, or find it already there.

    Beside the official files of train, validation and test there is the split ``oracle`` (the
    images of validation with everything labelled), and ``truth/`` with a row for every visible
    object of train and validation, which no command reads.

    Args:
        out: the folder to make; it appears only when it is complete.
        num_images: training images; validation and test get a fifth of that each.
        seed: same seed, same bytes.
        variant: ``'A'`` or ``'B'``: other classes with other looks.
        knobs: how hard it is.
        workers: processes; they change the time, never the bytes. None takes one a core.

    Returns:
        False when a complete world of the same parameters was there and is left as it is.
    """
    check_parameters(num_images, FEWEST_IMAGES, seed)
    if variant not in VARIANTS:
        raise UserError(f'variant {variant!r}, expected {" or ".join(VARIANTS)}')
    knobs = knobs or Knobs()
    parameters = {'world': 'hard', 'generator_version': GENERATOR_VERSION, 'images': num_images,
                  'seed': seed, 'variant': variant, 'knobs': asdict(knobs)}
    return make_folder(out, parameters, lambda root: _write_all(
        root, split_sizes(num_images), seed, hard_classes(variant), knobs, worker_count(workers)))


def _write_all(root: Path, sizes: dict[str, int], seed: int, classes: HardClasses, knobs: Knobs,
               workers: int) -> None:
    write_classes(root, classes.space)
    (root / 'truth').mkdir()
    with progress(total=sum(sizes.values()), desc='painting', unit='image') as bar:
        for number, (split, size) in enumerate(sizes.items()):
            painter = _Painter(classes, knobs, (classes.stream, seed, number))
            rng = np.random.default_rng(painter.stream)
            tail = knobs.tail if split == 'train' else math.sqrt(knobs.tail)
            plans = plan_split(size, tail, classes, knobs, rng)
            ids = image_ids(size, rng)
            images = []
            for image_id, image in zip(ids, _paint_all(painter, plans, workers), strict=True):
                _write_jpeg(root, split, image_id, image)
                images.append(image)
                bar.update()
            if split != 'test':
                _write_annotations(root, split, dict(zip(ids, images, strict=True)), classes,
                                   knobs, rng)
            if split == 'validation':
                _write_oracle(root, dict(zip(ids, images, strict=True)), classes, rng)


def _paint_all(painter: _Painter, plans: list[ImagePlan], workers: int) -> Iterator[PaintedImage]:
    return run_in_order(_paint_one, enumerate(plans), workers, len(plans), shared=painter)


def _paint_one(painter: _Painter, task: tuple[int, ImagePlan]) -> PaintedImage:
    number, plan = task
    rng = np.random.default_rng((*painter.stream, number))  # its own: any process may paint it
    return paint_image(plan, painter.classes, painter.knobs, rng)


def _write_jpeg(root: Path, split: str, image_id: str, image: PaintedImage) -> None:
    folder = root / 'images' / split
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f'{image_id}.jpg').write_bytes(image.jpeg)


def _write_annotations(root: Path, split: str, images: dict[str, PaintedImage],
                       classes: HardClasses, knobs: Knobs, rng: np.random.Generator) -> None:
    """The official files of a split, and its truth."""
    verdicts = verify_split(list(images.values()), classes, knobs, rng)
    kinds = choose_annotations(list(images.values()), verdicts, knobs, rng)
    tables, truth = ImageAnnotations(), []
    for (image_id, image), verdict, own in zip(images.items(), verdicts, kinds, strict=True):
        tables.extend(annotate(image_id, image, verdict, own, classes))
        truth += truth_rows(image_id, image, verdict, own, classes)
    write_tables(root, split, tables, rng)
    write_csv(root / 'truth' / f'{split}.csv', TRUTH_HEADER, truth)


def _write_oracle(root: Path, images: dict[str, PaintedImage], classes: HardClasses,
                  rng: np.random.Generator) -> None:
    """The same images as a split of their own with everything labelled."""
    tables = ImageAnnotations()
    for image_id, image in images.items():
        _write_jpeg(root, ORACLE, image_id, image)
        tables.extend(annotate(image_id, exact(image), full_verdict(image, classes),
                               [MASK] * len(image.things), classes))
    write_tables(root, ORACLE, tables, rng)
