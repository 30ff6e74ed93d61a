"""From part files to the submission: one streaming pass, two more where the size is limited.

With a limit on the file size the best-scoring detections over the whole set are kept. The
threshold is found without holding the scores: non-negative float32 are ordered as their bit
patterns are, so one pass counts bytes by the upper sixteen bits, a second by the lower sixteen bits
of the one bucket in which the limit falls. The threshold is exact and memory stays flat.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import atomic_write
from projects.openimages.submissions.dump.parts import FinishedImages
from projects.openimages.submissions.formats import (
    HEADERS,
    KAGGLE,
    ImageDetections,
    write_submission,
)

_LOW_BITS = 16


@dataclass(frozen=True)
class FinishedSubmission:
    """What a finished submission holds.

    Attributes:
        images: rows (Kaggle) or images (TF, those without detections included).
        detections: those written.
        size: bytes on disk.
        threshold: the score below which detections were left out to fit ``max_size``; None if
            nothing was.
    """

    images: int
    detections: int
    size: int
    threshold: float | None = None

    def __str__(self) -> str:
        text = (f'{self.images} images, {self.detections} detections, '
                f'{self.size / 1e6:.2f} MB')
        if self.threshold is None:
            return text
        return (f'{text}; those with a score of at least {np.float32(self.threshold)}, '
                'to fit the given size')


def finish_submission(finished: FinishedImages, out: str | os.PathLike, submission_format: str,
                      max_size: int | None = None) -> FinishedSubmission:
    """Write the submission in the order of the test list and give it its name at once.

    Args:
        finished: every image of the test list.
        out: the submission's path.
        submission_format: ``'kaggle'`` or ``'tf'``.
        max_size: bytes that the file may have; the best-scoring detections that fit are kept.
    """
    missing = np.flatnonzero(~finished.done)
    if len(missing):
        raise UserError(f'{len(missing)} of {len(finished.done)} images are not finished, the '
                        f'first is number {missing[0]}: continue with --resume-submission',
                        path=out)
    threshold = None
    if max_size is not None:
        threshold = fit_threshold(finished.images, submission_format, max_size, out)
    images: Iterable[ImageDetections] = finished.images()
    if threshold is not None:
        images = _at_least(images, threshold)
    with atomic_write(out, 'wb') as file:
        num_images, num_detections = write_submission(file, images, submission_format)
    return FinishedSubmission(num_images, num_detections, Path(out).stat().st_size, threshold)


def fit_threshold(images: Callable[[], Iterable[ImageDetections]], submission_format: str,
                  max_size: int, out: str | os.PathLike = 'the submission') -> float | None:
    """The lowest score at which the submission still fits.

    Args:
        images: called for each pass over the images.
        submission_format: ``'kaggle'`` or ``'tf'``.
        max_size: bytes.
        out: named in the error.

    Returns:
        The threshold; None if everything fits.

    Raises:
        UserError: the header and the empty rows alone are larger.
    """
    buckets = np.zeros(1 << (32 - _LOW_BITS), np.int64)
    base = len(HEADERS[submission_format]) + 1
    for empty, keys, costs in _costs(images(), submission_format):
        base += empty
        np.add.at(buckets, keys >> _LOW_BITS, costs)
    if base > max_size:
        raise UserError(f'{max_size} bytes do not even hold the rows without detections, which '
                        f'need {base}', path=out)
    room = max_size - base
    if buckets.sum() <= room:
        return None
    bucket = _first_over(buckets, room)
    room -= int(buckets[bucket + 1:].sum())
    fine = np.zeros(1 << _LOW_BITS, np.int64)
    for _, keys, costs in _costs(images(), submission_format):
        inside = keys >> _LOW_BITS == bucket
        np.add.at(fine, keys[inside] & ((1 << _LOW_BITS) - 1), costs[inside])
    key = (bucket << _LOW_BITS) + _first_over(fine, room) + 1
    # The lowest representable score above the first one that does not fit.
    return float(np.array(key, np.uint32).view(np.float32))


def _first_over(costs: np.ndarray, room: int) -> int:
    """The highest place at which the sum from the top exceeds ``room``."""
    from_top = np.cumsum(costs[::-1])
    return len(costs) - 1 - int(np.searchsorted(from_top, room, side='right'))


def _costs(images: Iterable[ImageDetections],
           submission_format: str) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Per image: bytes without detections, (N,) float32 bit patterns, (N,) bytes of each."""
    for image in images:
        start = len(f'{image.image_id},{image.width},{image.height},')
        scores = np.array([detection.score for detection in image.detections], np.float32)
        costs = np.array([sum(map(len, detection)) + 3 for detection in image.detections], np.int64)
        if submission_format == KAGGLE:
            empty = start + 1
            if len(scores):  # one space fewer than detections; the best one is in whenever any is
                costs[scores.argmax()] -= 1
        else:
            empty = 0
            costs += start
        yield empty, np.maximum(scores, 0).view(np.uint32).astype(np.int64), costs


def _at_least(images: Iterable[ImageDetections], threshold: float) -> Iterator[ImageDetections]:
    for image in images:
        kept = [detection for detection in image.detections
                if np.float32(detection.score) >= threshold]
        yield image._replace(detections=kept)


_UNITS = {'': 1, 'K': 10**3, 'M': 10**6, 'G': 10**9, 'KI': 2**10, 'MI': 2**20, 'GI': 2**30}


def parse_size(text: str) -> int:
    """Bytes from ``500000``, ``500MB``, ``2.5G`` or ``2GiB``."""
    match = re.fullmatch(r'(\d{1,15}(?:\.\d+)?)\s*([KMG]?I?)B?', text.strip().upper())
    if not match or match[2] not in _UNITS:
        raise UserError(f'size {text!r}, expected bytes such as 500000000, 500MB or 2GiB')
    return int(float(match[1]) * _UNITS[match[2]])
