"""Merging whole submissions: read image by image from all files, merged in several processes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import atomic_write
from projects.openimages.common.progress import progress
from projects.openimages.labels import LabelSpace
from projects.openimages.masks import Rle, check_sizes, encode_text, inflate_text
from projects.openimages.submissions.formats import (
    Detection,
    ImageDetections,
    Submission,
    score_text,
    write_submission,
)
from projects.openimages.submissions.merge import MergeOptions, merge_class
from projects.openimages.submissions.selection import select_detections

_IMAGES_A_TASK = 32


@dataclass(frozen=True)
class Output:
    """What is done with the merged detections.

    Attributes:
        score_thr, max_per_img: as in the dump, after merging.
        label_space: expand over its hierarchy; None leaves the classes.
    """

    score_thr: float = 0.001
    max_per_img: int | None = None
    label_space: LabelSpace | None = None


def merge_submissions(paths: Sequence[str], out: str | os.PathLike, options: MergeOptions,
                      output: Output, submission_format: str | None = None,
                      workers: int = 1) -> tuple[int, int]:
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
    """
    global _context, _opened
    _context, _opened = (tuple(map(os.fspath, paths)), options, output), None
    image_ids: dict[str, None] = {}
    with ExitStack() as stack:
        files = [stack.enter_context(Submission(path)) for path in paths]
        for file in files:
            image_ids.update(dict.fromkeys(file.image_ids))
        submission_format = submission_format or files[0].format
    merged = progress(_run(list(image_ids), workers), total=len(image_ids), desc='merge',
                      unit='img')
    with atomic_write(out, 'wb') as file:
        return write_submission(file, merged, submission_format)


def _run(image_ids: list[str], workers: int) -> Iterator[ImageDetections]:
    if workers < 2 or len(image_ids) <= _IMAGES_A_TASK:
        yield from map(_merge_image, image_ids)
        return
    with ProcessPoolExecutor(workers, get_context('fork')) as pool:
        # In rounds: what waits to be written stays small however slow the disk is.
        for start in range(0, len(image_ids), 64 * _IMAGES_A_TASK):
            yield from pool.map(_merge_image, image_ids[start:start + 64 * _IMAGES_A_TASK],
                                chunksize=_IMAGES_A_TASK)


_context: tuple[tuple[str, ...], MergeOptions, Output]
_opened: tuple[int, list[Submission]] | None = None


def _files() -> list[Submission]:
    """Each process opens the files for itself: a shared file position would be moved by others."""
    global _opened
    if _opened is None or _opened[0] != os.getpid():
        _opened = (os.getpid(), [Submission(path) for path in _context[0]])
    return _opened[1]


def _merge_image(image_id: str) -> ImageDetections:
    _, options, output = _context
    images = [(model, file, file.image(image_id)) for model, file in enumerate(_files())]
    present = [(model, file, image) for model, file, image in images if image is not None]
    _, _, first = present[0]
    found: dict[str, list[tuple[int, float, Rle]]] = {}
    for model, file, image in present:
        if (image.width, image.height) != (first.width, first.height):
            raise UserError(f'image {image_id} of {image.width}x{image.height}, but '
                            f'{first.width}x{first.height} in {present[0][1].path}',
                            path=file.path, row=image.row)
        for detection, (score, mask) in zip(image.detections, _read(image, file), strict=True):
            found.setdefault(detection.mid, []).append((model, score, mask))
    detections = [item for mid, items in found.items() for item in _merge_mid(mid, items, options)]
    detections.sort(key=lambda item: -item[1])
    return ImageDetections(image_id, first.width, first.height, _finish(detections, output))


def _read(image: ImageDetections, file: Submission) -> list[tuple[float, Rle]]:
    """Scores and masks, checked together, which is several times faster than one by one."""
    where = {'path': file.path, 'row': image.row}
    try:
        scores = [float(detection.score) for detection in image.detections]
        masks: list[Rle] = [{'size': [image.height, image.width],
                             'counts': inflate_text(detection.mask, image.height, image.width)}
                            for detection in image.detections]
        check_sizes(masks)
    except ValueError as error:  # MaskError is one
        raise UserError(f'image {image.image_id}: {error}', **where) from None
    return list(zip(scores, masks, strict=True))


def _merge_mid(mid: str, items: list[tuple[int, float, Rle]],
               options: MergeOptions) -> list[tuple[str, float, bytes]]:
    models, scores, masks = zip(*items, strict=True)
    merged = merge_class(masks, np.array(scores), np.array(models), options)
    return [(mid, score, mask['counts'])
            for mask, score in zip(merged.masks, merged.scores.tolist(), strict=True)]


def _finish(detections: list[tuple[str, float, bytes]], output: Output) -> list[Detection]:
    """Threshold, cap and expansion by the dump's rule."""
    space = output.label_space
    if space is None:
        mids = sorted({mid for mid, _, _ in detections})
        ids = {mid: n for n, mid in enumerate(mids)}
    else:
        mids, ids = list(space.mids), space.ids
    kept = select_detections(
        [space.class_id(mid) if space else ids[mid] for mid, _, _ in detections],
        np.array([score for _, score, _ in detections], np.float32),
        [counts for _, _, counts in detections], label_space=space, score_thr=output.score_thr,
        max_per_img=output.max_per_img)
    return [Detection(mids[class_id], score_text(score), encode_text(detections[row][2]))
            for row, class_id, score in zip(kept.rows.tolist(), kept.class_ids.tolist(),
                                            kept.scores, strict=True)]
