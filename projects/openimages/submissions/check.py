"""Every rule of the submission format, checked in one streaming pass over all cores.

The file is cut into pieces of whole rows that worker processes check on their own; ids are compared
over the whole file afterwards. Masks are inflated to run lengths, many at a time, and the runs are
added up; no pixel is painted.

Rules: the header; the number of fields; image ids known, unique (Kaggle) and complete (Kaggle:
every image has a row); the image size right; ``MID score mask`` complete; MIDs known; scores
numbers from 0 to 1; masks base64, zlib, run lengths, and as many pixels as the image.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from projects.openimages.common.errors import UserError
from projects.openimages.common.progress import progress
from projects.openimages.masks import MaskError, Rle, area, check_sizes, inflate_text
from projects.openimages.submissions.formats import (
    KAGGLE,
    Detection,
    ImageDetections,
    parse_header,
    parse_row,
)
from projects.openimages.submissions.image_list import ImageSizes

_PIECE = 1 << 22  # bytes
_BATCH = 512  # masks inflated together
MAX_SHOWN = 20
BINS = 10


@dataclass
class Report:
    """What a check found.

    Attributes:
        path, format, size: the file, its format, bytes on disk.
        rows: rows after the header; images: different ids; detections: all of them.
        per_image: (images,) detections of each image that has a row.
        empty_masks: detections whose mask has no pixel; legal, but the evaluator drops them.
        histogram: (10,) detections by score, in tenths.
        num_errors, errors: how many, and the first as (row, message); row None for the file.
    """

    path: str
    format: str
    size: int
    rows: int = 0
    images: int = 0
    detections: int = 0
    per_image: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    empty_masks: int = 0
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    num_errors: int = 0
    errors: list[tuple[int | None, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.num_errors

    def __str__(self) -> str:
        per_image = self.per_image if len(self.per_image) else np.zeros(1, int)
        lines = [
            f'{self.path}: {self.format} format, {self.size / 1e6:.2f} MB',
            f'rows        {self.rows}',
            f'images      {self.images}, {np.count_nonzero(self.per_image)} with detections',
            f'detections  {self.detections}, an image: mean {per_image.mean():.2f}, '
            f'median {np.median(per_image):g}, most {per_image.max()}',
            f'empty masks {self.empty_masks}',
            'scores      ' + '  '.join(f'{n / BINS:.1f}: {count}'
                                      for n, count in enumerate(self.histogram.tolist()))]
        return '\n'.join(lines)


def check_submission(path: str | os.PathLike, images: ImageSizes, mids: tuple[str, ...],
                     workers: int = 1) -> Report:
    """Check a submission of either format.

    Args:
        path: the CSV.
        images: what the submission is for, from ``read_image_list``.
        mids: the classes it may name.
        workers: processes.

    Raises:
        UserError: no such file, or a header of neither format.
    """
    try:
        with open(path, 'rb') as file:
            header = file.readline()
    except FileNotFoundError:
        raise UserError('no such file (the submission)', path=path) from None
    report = Report(os.fspath(path), parse_header(header, path), Path(path).stat().st_size)
    context = (os.fspath(path), report.format, images, frozenset(mids))
    spans = list(_spans(path, len(header), report.size))
    seen: dict[str, int] = {}
    counts: dict[str, int] = {}
    with progress(total=report.size, desc='check', unit='B') as bar:
        bar.unit_scale = True
        for span, piece in zip(spans, _run(context, spans, workers), strict=True):
            _add(report, piece, seen, counts)
            bar.update(span[1] - span[0])
    _finish(report, images, counts)
    return report


def _run(context: tuple, spans: list[tuple[int, int]], workers: int) -> Iterator[_Piece]:
    if workers < 2 or len(spans) < 2:
        _set_context(*context)
        yield from map(_check_span, spans)
        return
    with ProcessPoolExecutor(workers, initializer=_set_context, initargs=context) as pool:
        yield from pool.map(_check_span, spans)


def _spans(path: str | os.PathLike, start: int, size: int) -> Iterator[tuple[int, int]]:
    """Byte ranges of whole rows."""
    with open(path, 'rb') as file:
        while start < size:
            file.seek(min(start + _PIECE, size))
            file.readline()
            end = min(file.tell(), size)
            yield start, end
            start = end


@dataclass
class _Piece:
    """One range's findings; rows counted from its first one, 0."""

    rows: int = 0
    ids: list[tuple[int, str, int]] = field(default_factory=list)  # row, image id, detections
    detections: int = 0
    empty_masks: int = 0
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    num_errors: int = 0
    errors: list[tuple[int, str]] = field(default_factory=list)

    def error(self, row: int, message: str) -> None:
        self.num_errors += 1
        if len(self.errors) < 4 * MAX_SHOWN:  # masks are looked at later than their rows
            self.errors.append((row, message))


def _set_context(path: str, submission_format: str, images: ImageSizes,
                 mids: frozenset[str]) -> None:
    global _context
    _context = (path, submission_format, images, mids)


def _check_span(span: tuple[int, int]) -> _Piece:
    path, submission_format, images, mids = _context
    piece = _Piece()
    waiting: list[tuple[int, str, Rle]] = []
    with open(path, 'rb') as file:
        file.seek(span[0])
        lines = file.read(span[1] - span[0]).split(b'\n')
    if not lines[-1]:
        lines.pop()
    for row, line in enumerate(lines):
        piece.rows += 1
        try:
            image = parse_row(line, submission_format)
        except ValueError as error:  # UnicodeDecodeError is one
            piece.error(row, str(error))
            continue
        piece.ids.append((row, image.image_id, len(image.detections)))
        _check_image(piece, row, image, images)
        scores = [_check_detection(piece, row, image, detection, mids, waiting)
                  for detection in image.detections]
        piece.histogram += np.bincount([min(int(score * BINS), BINS - 1) for score in scores
                                        if score is not None], minlength=BINS)
        piece.detections += len(scores)
        if len(waiting) >= _BATCH:
            _check_masks(piece, waiting)
            waiting = []
    _check_masks(piece, waiting)
    piece.errors.sort(key=lambda error: error[0])
    return piece


def _check_image(piece: _Piece, row: int, image: ImageDetections, images: ImageSizes) -> None:
    if image.image_id not in images:
        piece.error(row, f'unknown image {image.image_id!r}')
        return
    size = images[image.image_id]
    if size is not None and size != (image.width, image.height):
        piece.error(row, f'image {image.image_id} of {image.width}x{image.height}, '
                         f'expected {size[0]}x{size[1]}')


def _check_detection(piece: _Piece, row: int, image: ImageDetections, detection: Detection,
                     mids: frozenset[str], waiting: list[tuple[int, str, Rle]]) -> float | None:
    """Check one detection but for its mask's runs, which go to ``waiting``; returns its score."""
    if detection.mid not in mids:
        piece.error(row, f'unknown class {detection.mid!r}')
    score = None
    try:
        score = float(detection.score)
    except ValueError:
        piece.error(row, f'score {detection.score!r}, expected a number from 0 to 1')
    else:
        if not 0 <= score <= 1:
            piece.error(row, f'score {detection.score}, expected 0 to 1')
            score = None
    try:
        waiting.append((row, image.image_id, {'size': [image.height, image.width],
                                              'counts': inflate_text(
                                                  detection.mask, image.height, image.width)}))
    except MaskError as error:
        piece.error(row, str(error))
    return score


def _check_masks(piece: _Piece, waiting: list[tuple[int, str, Rle]]) -> None:
    """Check run lengths together; where something is wrong, one by one to find which."""
    if not waiting:
        return
    rles = [rle for _, _, rle in waiting]
    try:
        check_sizes(rles)
    except MaskError as error:
        if len(waiting) == 1:
            piece.error(waiting[0][0], f'image {waiting[0][1]}: {error}')
            return
        middle = len(waiting) // 2
        _check_masks(piece, waiting[:middle])
        _check_masks(piece, waiting[middle:])
    else:
        piece.empty_masks += int((area(rles) == 0).sum())


def _add(report: Report, piece: _Piece, seen: dict[str, int], counts: dict[str, int]) -> None:
    """Add a piece to the report; ``seen`` has the first row of each id, ``counts`` detections."""
    first_row = report.rows + 2
    errors = [(row + first_row, message) for row, message in piece.errors]
    for row, image_id, count in piece.ids:
        if seen.setdefault(image_id, row + first_row) != row + first_row and (
                report.format == KAGGLE):
            report.num_errors += 1
            errors.append((row + first_row,
                           f'image {image_id} again, first in row {seen[image_id]}'))
        counts[image_id] = counts.get(image_id, 0) + count
    report.errors += sorted(errors)[:max(0, MAX_SHOWN - len(report.errors))]
    report.num_errors += piece.num_errors
    report.rows += piece.rows
    report.detections += piece.detections
    report.empty_masks += piece.empty_masks
    report.histogram += piece.histogram


def _finish(report: Report, images: ImageSizes, counts: dict[str, int]) -> None:
    report.images = len(counts)
    report.per_image = np.array(list(counts.values()), np.int64)
    if report.format != KAGGLE:  # an image without detections has no row there
        return
    missing = [image_id for image_id in images if image_id not in counts]
    if missing:
        report.num_errors += len(missing)
        report.errors.append((None, f'{len(missing)} of {len(images)} images have no row, the '
                                    f'first is {missing[0]}'))
