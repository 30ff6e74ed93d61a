"""Whole submissions into one: read image by image from all files, merged in several processes.

In: submissions of either format and a weight for each. Out: one submission. How the masks of one
class in one image are merged is in :mod:`merge_masks`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain

import numpy as np

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import atomic_write, refuse_to_overwrite
from projects.openimages.common.parallel import run_in_order
from projects.openimages.common.progress import progress
from projects.openimages.labels import LabelSpace
from projects.openimages.masks import Rle, check_sizes, encode_text
from projects.openimages.submissions.formats import (
    Detection,
    ImageDetections,
    Submission,
    score_text,
    scores_and_masks,
    write_submission,
)
from projects.openimages.submissions.merge_masks import MergeOptions, merge_class
from projects.openimages.submissions.selection import check_options, select_detections

_IMAGES_A_TASK = 32
_MAX_A_CLASS = 5000  # detections in one image: their overlaps are a square of numbers, 200 MB


@dataclass(frozen=True)
class MergeOutput:
    """What is done with the merged detections.

    Attributes:
        score_thr, max_per_img: as in the dump, after merging.
        label_space: expand over its hierarchy; None leaves the classes.

    Raises:
        UserError: a threshold outside 0 to 1, or a cap below 1.
    """

    score_thr: float = 0.001
    max_per_img: int | None = None
    label_space: LabelSpace | None = None

    def __post_init__(self) -> None:
        check_options(self.score_thr, self.max_per_img)


def merge_submissions(paths: Sequence[str | os.PathLike], out: str | os.PathLike,
                      options: MergeOptions, output: MergeOutput,
                      submission_format: str | None = None, workers: int = 1) -> tuple[int, int]:
    """Merge submissions into one.

    Args:
        paths: CSVs of either format; the first one's images come first, in its order.
        out: the CSV to write.
        options: how to merge.
        output: threshold, cap and expansion of the result.
        submission_format: of ``out``; None takes the first one's.
        workers: processes.

    Returns:
        How many images and detections it has.

    Raises:
        UserError: not one weight a file, a file that shares no image with the others, a broken
            row, an image of two sizes, or ``out`` is one of ``paths``.
    """
    if len(options.weights) != len(paths):
        raise UserError(f'weights {" ".join(map(str, options.weights))}, expected {len(paths)} '
                        'numbers, one a submission')
    refuse_to_overwrite(out, *paths)
    with ExitStack() as stack:
        files = [stack.enter_context(Submission(path)) for path in paths]
        image_ids = _shared_images(files)
        tasks = [image_ids[n:n + _IMAGES_A_TASK]
                 for n in range(0, len(image_ids), _IMAGES_A_TASK)]
        merged = chain.from_iterable(run_in_order(_merge_images, tasks, workers, len(tasks),
                                                  shared=_Work(files, options, output)))
        with atomic_write(out, 'wb') as file:
            return write_submission(file, progress(merged, total=len(image_ids), desc='merge',
                                                   unit='img'),
                                    submission_format or files[0].format)


def _shared_images(files: list[Submission]) -> list[str]:
    """All images' ids, in the order of the files; each file must have one with another file."""
    holders = Counter(chain.from_iterable(file.image_ids for file in files))
    for n, file in enumerate(files):
        if len(files) > 1 and all(holders[image_id] == 1 for image_id in file.image_ids):
            others = ', '.join(other.path for other in files[:n] + files[n + 1:])
            raise UserError(f'none of its {len(file)} images is in {others}: are they of the same '
                            'split?', path=file.path)
    return list(holders)


@dataclass(frozen=True)
class _Work:
    """What every process needs."""

    files: list[Submission]
    options: MergeOptions
    output: MergeOutput


def _merge_images(work: _Work, image_ids: list[str]) -> list[ImageDetections]:
    return [_merge_image(work, image_id) for image_id in image_ids]


def _merge_image(work: _Work, image_id: str) -> ImageDetections:
    images = [(model, file, file.image(image_id)) for model, file in enumerate(work.files)]
    present = [(model, file, image) for model, file, image in images if image is not None]
    _, first_file, first = present[0]
    found: dict[str, list[tuple[int, float, Rle]]] = {}
    for model, file, image in present:
        if (image.width, image.height) != (first.width, first.height):
            raise UserError(f'image {image_id} of {image.width}x{image.height}, but '
                            f'{first.width}x{first.height} in {first_file.path}',
                            path=file.path, row=image.row)
        for detection, score, mask in zip(image.detections, *_read(image, file), strict=True):
            found.setdefault(detection.mid, []).append((model, score, mask))
    detections = []
    for mid, items in found.items():
        if len(items) > _MAX_A_CLASS:
            raise UserError(f'image {image_id}: {len(items)} detections of {mid}, expected at most '
                            f'{_MAX_A_CLASS}', path=first_file.path, row=first.row)
        detections += _merge_mid(mid, items, work.options)
    detections.sort(key=lambda item: -item[1])
    return first._replace(detections=_selected(detections, work.output))


def _read(image: ImageDetections, file: Submission) -> tuple[list[float], list[Rle]]:
    """Scores and masks, checked together, which is several times faster than one by one."""
    scores, masks = scores_and_masks(image, file.path)
    try:
        check_sizes(masks)
    except ValueError as error:
        raise UserError(f'image {image.image_id}: {error}', path=file.path,
                        row=image.row) from None
    return scores.tolist(), masks


def _merge_mid(mid: str, items: list[tuple[int, float, Rle]],
               options: MergeOptions) -> list[tuple[str, float, bytes]]:
    models, scores, masks = zip(*items, strict=True)
    merged = merge_class(masks, np.array(scores), np.array(models), options)
    return [(mid, score, mask['counts'])
            for mask, score in zip(merged.masks, merged.scores.tolist(), strict=True)]


def _selected(detections: list[tuple[str, float, bytes]], output: MergeOutput) -> list[Detection]:
    """Threshold, cap and expansion by the dump's rule."""
    space = output.label_space
    if space is None:
        mids = sorted({mid for mid, _, _ in detections})
        ids = {mid: n for n, mid in enumerate(mids)}
    else:
        mids, ids = list(space.mids), space.ids
    kept = select_detections(
        np.array([space.class_id(mid) if space else ids[mid] for mid, _, _ in detections],
                 np.int64),
        np.array([score for _, score, _ in detections], np.float32),
        [counts for _, _, counts in detections], label_space=space, score_thr=output.score_thr,
        max_per_img=output.max_per_img)
    return [Detection(mids[class_id], score_text(score), encode_text(detections[row][2]))
            for row, class_id, score in zip(kept.rows.tolist(), kept.class_ids.tolist(),
                                            kept.scores, strict=True)]
