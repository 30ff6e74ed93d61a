"""Matching all images of the evaluator's files, in several processes.

Processes start by importing this module, so it imports no more than they need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from projects.openimages.challenge.lazy_masks import LazyMasks
from projects.openimages.common.errors import UserError
from projects.openimages.common.parallel import run_in_order
from projects.openimages.common.progress import progress
from projects.openimages.masks import MaskError
from projects.openimages.metric import (
    DROPPED,
    Detections,
    GroundTruth,
    Matches,
    count_positives,
    match_images,
    measure,
)

if TYPE_CHECKING:
    from projects.openimages.challenge.csv_tables import ChallengeTables

_IMAGES_A_TASK = 128
_FEW_DETECTIONS = 20_000  # for so many, starting processes costs more than it saves

_Image = tuple[int, GroundTruth, Detections]


def match_tables(tables: ChallengeTables, workers: int) -> tuple[Matches, np.ndarray]:
    """Match all images in so many processes.

    Returns:
        The matches of all detections that count, ``image`` being the place in ``tables.images``,
        and the (C,) instances to be found.
    """
    number = len(tables.images)
    tasks = [range(start, min(start + _IMAGES_A_TASK, number))
             for start in range(0, number, _IMAGES_A_TASK)]
    if len(tables.predictions.scores) < _FEW_DETECTIONS:
        workers = 1
    num_classes = tables.label_map.num_classes
    positives = np.zeros(num_classes, np.int64)
    parts = []
    results = run_in_order(_match_images, (_cut(tables, images) for images in tasks), workers,
                           len(tasks), shared=num_classes)
    with progress(total=number, desc='images', unit='img') as bar:
        for images, (matches, found) in zip(tasks, results, strict=True):
            parts.append(matches)
            positives += found
            bar.update(len(images))
    return Matches.concatenate(parts), positives


def _cut(tables: ChallengeTables, images: range) -> list[_Image]:
    """Some images with all that matching needs of them, mask texts as they are in the files."""
    return [(image, tables.truth.image(image), tables.predictions.image(image))
            for image in images]


def _match_images(num_classes: int, images: list[_Image]) -> tuple[Matches, np.ndarray]:
    try:
        GroundTruth.measure_together(truth for _, truth, _ in images)
        positives = sum((count_positives(truth, num_classes) for _, truth, _ in images),
                        np.zeros(num_classes, np.int64))
        matches, = match_images(images)
    except MaskError:
        raise _explained(images) from None
    return matches.select(matches.outcome != DROPPED), positives


def _explained(images: list[_Image]) -> UserError:
    """The error with file and row, found by matching image by image."""
    for image in images:
        try:
            match_images([image])
        except MaskError as error:
            _, truth, detections = image
            for masks in (truth.masks, detections.masks):
                if isinstance(masks, LazyMasks):
                    try:
                        measure(masks)
                    except MaskError as found:
                        return masks.explain(found)
            return UserError(str(error))
    raise AssertionError('images with an error together have none alone')
