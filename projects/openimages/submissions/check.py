"""Every rule of the submission format, checked in one streaming pass over all cores.

The file is cut into pieces of whole rows that worker processes check on their own; ids are compared
over the whole file afterwards. Masks are inflated to run lengths, many at a time, and the runs are
added up; no pixel is painted.

Rules: the header; the number of fields; image ids known, unique (Kaggle) and complete (Kaggle:
every image has a row); the image size right; ``MID score mask`` complete; MIDs known; scores
numbers from 0 to 1; masks base64, zlib, run lengths, and as many pixels as the image.
"""

from __future__ import annotations

import bisect
import os
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from projects.openimages.common.parallel import run_in_order
from projects.openimages.common.progress import progress
from projects.openimages.masks import MaskError, Rle, area, check_sizes, inflate_text
from projects.openimages.submissions.formats import (
    KAGGLE,
    MAX_INFLATED,
    Detection,
    Header,
    ImageDetections,
    open_submission,
    parse_row,
    parse_score,
    read_rows,
)
from projects.openimages.submissions.image_list import ImageSizes

_PIECE = 1 << 22  # bytes
_BATCH = 512  # masks whose runs are added up together,
_BATCH_BYTES = 1 << 22  # of so many bytes at most: adding up takes several times as many
MAX_SHOWN = 20
BINS = 10


@dataclass
class CheckReport:
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

    def to_dict(self) -> dict[str, Any]:
        """The attributes as plain values, fit for JSON."""
        return {**vars(self), 'per_image': self.per_image.tolist(),
                'histogram': self.histogram.tolist(),
                'errors': [{'row': row, 'message': message} for row, message in self.errors]}


def check_submission(path: str | os.PathLike, images: ImageSizes, mids: tuple[str, ...],
                     workers: int = 1) -> CheckReport:
    """Check a submission of either format.

    Args:
        path: the CSV.
        images: what the submission is for, from ``read_image_list``.
        mids: the classes it may name.
        workers: processes.

    Raises:
        UserError: no such file, or a header of neither format.
    """
    file, header = open_submission(path)
    with file:
        size = os.fstat(file.fileno()).st_size
        spans = list(_spans(file, size))
    report = CheckReport(os.fspath(path), header.format, size)
    rules = _Rules(report.path, header, images, frozenset(mids))
    pieces = run_in_order(_check_piece, spans, workers, len(spans), shared=rules)
    seen: dict[str, int] = {}
    counts: dict[str, int] = {}
    with progress(total=size, desc='check', unit='B') as bar:
        bar.unit_scale = True
        for span, piece in zip(spans, pieces, strict=True):
            _add(report, piece, seen, counts)
            bar.update(span[1] - span[0])
    _finish(report, images, counts)
    return report


def _spans(file: IO[bytes], size: int) -> Iterator[tuple[int, int]]:
    """Byte ranges of whole rows, from where the file stands to ``size``."""
    start = file.tell()
    while start < size:
        file.seek(min(start + _PIECE, size))
        next(read_rows(file), None)
        end = min(file.tell(), size)
        yield start, end
        start = end


@dataclass(frozen=True)
class _Rules:
    """What every piece needs to know."""

    path: str
    header: Header
    images: ImageSizes
    mids: frozenset[str]


@dataclass
class _Piece:
    """One range's findings; rows counted from its first one, 0."""

    rows: int = 0
    ids: list[tuple[int, str, int]] = field(default_factory=list)  # row, image id, detections
    detections: int = 0
    empty_masks: int = 0
    histogram: list[int] = field(default_factory=lambda: [0] * BINS)
    num_errors: int = 0
    errors: list[tuple[int, str]] = field(default_factory=list)

    def error(self, row: int, message: str) -> None:
        """Count an error and keep it if it is among the first; masks come later than their rows."""
        self.num_errors += 1
        bisect.insort(self.errors, (row, message))
        del self.errors[MAX_SHOWN:]


def _check_piece(rules: _Rules, span: tuple[int, int]) -> _Piece:
    piece = _Piece()
    masks = _Masks(piece)
    with open(rules.path, 'rb') as file:
        file.seek(span[0])
        for row, line in enumerate(read_rows(file, span[1])):
            piece.rows += 1
            try:
                image = parse_row(line, rules.header)
            except ValueError as error:
                piece.error(row, str(error))
                continue
            piece.ids.append((row, image.image_id, len(image.detections)))
            piece.detections += len(image.detections)
            _check_image(piece, row, image, rules.images)
            for detection in image.detections:
                _check_detection(piece, row, detection, rules.mids)
                masks.add(row, image, detection)
    masks.check()
    return piece


def _check_image(piece: _Piece, row: int, image: ImageDetections, images: ImageSizes) -> None:
    if image.image_id not in images:
        piece.error(row, f'unknown image {image.image_id!r}')
        return
    size = images[image.image_id]
    if size is not None and size != (image.width, image.height):
        piece.error(row, f'image {image.image_id} of {image.width}x{image.height}, '
                         f'expected {size[0]}x{size[1]}')


def _check_detection(piece: _Piece, row: int, detection: Detection, mids: frozenset[str]) -> None:
    """Check one detection but for its mask."""
    if detection.mid not in mids:
        piece.error(row, f'unknown class {reprlib.repr(detection.mid)}')
    try:
        score = parse_score(detection.score)
    except ValueError as error:
        piece.error(row, str(error))
    else:
        piece.histogram[min(int(score * BINS), BINS - 1)] += 1


class _Masks:
    """Masks that wait to have their runs looked at together, which is many times as fast."""

    def __init__(self, piece: _Piece) -> None:
        self._piece = piece
        self._waiting: list[tuple[int, str, Rle]] = []
        self._bytes = 0

    def add(self, row: int, image: ImageDetections, detection: Detection) -> None:
        try:
            counts = inflate_text(detection.mask, image.height, image.width)
        except MaskError as error:
            self._piece.error(row, str(error))
            return
        if len(counts) > MAX_INFLATED:
            self._piece.error(row, f'mask of {len(counts)} bytes, expected at most {MAX_INFLATED}')
            return
        self._waiting.append((row, image.image_id, {'size': [image.height, image.width],
                                                    'counts': counts}))
        self._bytes += len(counts)
        if len(self._waiting) >= _BATCH or self._bytes >= _BATCH_BYTES:
            self.check()

    def check(self) -> None:
        """Look at those that wait."""
        self._check(self._waiting)
        self._waiting, self._bytes = [], 0

    def _check(self, masks: list[tuple[int, str, Rle]]) -> None:
        """Look at all together; where something is wrong, at each half, to find which."""
        rles = [rle for _, _, rle in masks]
        try:
            check_sizes(rles)
        except MaskError as error:
            if len(masks) == 1:
                self._piece.error(masks[0][0], f'image {masks[0][1]}: {error}')
                return
            self._check(masks[:len(masks) // 2])
            self._check(masks[len(masks) // 2:])
        else:
            self._piece.empty_masks += int((area(rles) == 0).sum())


def _add(report: CheckReport, piece: _Piece, seen: dict[str, int], counts: dict[str, int]) -> None:
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
    report.histogram += np.array(piece.histogram)


def _finish(report: CheckReport, images: ImageSizes, counts: dict[str, int]) -> None:
    report.images = len(counts)
    report.per_image = np.array(list(counts.values()), np.int64)
    if report.format != KAGGLE:  # an image without detections has no row there
        return
    missing = [image_id for image_id in images if image_id not in counts]
    if missing:
        report.num_errors += len(missing)
        report.errors.append((None, f'{len(missing)} of {len(images)} images have no row, the '
                                    f'first is {missing[0]}'))
