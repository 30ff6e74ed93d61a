"""The two submission formats, row by row and without loss.

Kaggle: ``ImageID,ImageWidth,ImageHeight,PredictionString``, one row an image, the string empty or
``MID score mask`` repeated. TF: ``ImageID,ImageWidth,ImageHeight,LabelName,Score,Mask``, one row a
detection. Both carry the same text for scores and masks (``masks.encode_text``), which is handed
through as text here, so that a conversion there and back gives the same bytes.

In: a CSV of either format. Out: :class:`ImageDetections`, one an image, in the order in which the
images first appear. Memory holds one image (and, for the TF format, where its rows are).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from projects.openimages.common.errors import UserError

KAGGLE, TF = 'kaggle', 'tf'
HEADERS = {KAGGLE: 'ImageID,ImageWidth,ImageHeight,PredictionString',
           TF: 'ImageID,ImageWidth,ImageHeight,LabelName,Score,Mask'}
FORMATS = tuple(HEADERS)


class Detection(NamedTuple):
    """One detection as its text says."""

    mid: str
    score: str
    mask: str


class ImageDetections(NamedTuple):
    """One image's detections.

    Attributes:
        row: 1-based row in the file where the image first stands, the header being row 1.
    """

    image_id: str
    width: int
    height: int
    detections: list[Detection]
    row: int = 0


def score_text(score: float | np.floating) -> str:
    """The shortest text that reads back as the same float32.

    Different float32 give different texts in the same order, so a CSV ranks its detections, ties
    included, exactly as the metric ranked the scores.
    """
    return str(np.float32(score))


def format_rows(image: ImageDetections, submission_format: str) -> Iterator[str]:
    """The image's rows without line ends: one for Kaggle, one a detection for TF."""
    start = f'{image.image_id},{image.width},{image.height},'
    if submission_format == KAGGLE:
        yield start + ' '.join(part for detection in image.detections for part in detection)
    else:
        for detection in image.detections:
            yield start + ','.join(detection)


def write_submission(file: BinaryIO, images: Iterable[ImageDetections],
                     submission_format: str) -> tuple[int, int]:
    """Write a whole submission; returns how many images and detections it had."""
    num_images = num_detections = 0
    file.write(HEADERS[submission_format].encode() + b'\n')
    for image in images:
        file.writelines(row.encode() + b'\n' for row in format_rows(image, submission_format))
        num_images += 1
        num_detections += len(image.detections)
    return num_images, num_detections


def split_row(line: str) -> list[str]:
    """The fields of one row. Quotes are legal CSV but unusual here, and the plain way is fast."""
    line = line.rstrip('\r\n')
    return next(csv.reader([line]), []) if '"' in line else line.split(',')


def parse_header(line: bytes, path: str | os.PathLike) -> str:
    """The format whose header ``line`` is; a UserError if it is neither's."""
    header = line.decode('utf-8-sig', 'replace').strip('\r\n')
    for name, expected in HEADERS.items():
        if [field.strip() for field in split_row(header)] == expected.split(','):
            return name
    shown = header if len(header) <= 80 else header[:77] + '...'
    raise UserError(f'header {shown!r}, expected {HEADERS[KAGGLE]!r} or {HEADERS[TF]!r}',
                    path=path, row=1)


def parse_row(line: bytes, submission_format: str) -> ImageDetections:
    """One row to its detections (one of them for TF); ValueError says what is wrong with it."""
    fields = split_row(line.decode())
    expected = HEADERS[submission_format].count(',') + 1
    if len(fields) != expected:
        raise ValueError(f'{len(fields)} fields, expected {expected}')
    image_id, width, height = fields[0], _size(fields[1], 'width'), _size(fields[2], 'height')
    if not image_id:
        raise ValueError('no image id')
    if submission_format == TF:
        return ImageDetections(image_id, width, height, [Detection(*fields[3:])])
    words = fields[3].split()
    if len(words) % 3:
        raise ValueError(f'PredictionString of {len(words)} words, expected "MID score mask" '
                         'repeated')
    return ImageDetections(image_id, width, height,
                           list(map(Detection, words[::3], words[1::3], words[2::3])))


def _size(text: str, name: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f'image {name} {text!r}, expected a whole number of at least 1')
    return int(text)


class Submission:
    """A submission file, read image by image.

    Images can be read in file order by iterating or one by one with :meth:`image`. The rows of a
    TF file need not be sorted by image.

    Attributes:
        path: the file.
        format: ``'kaggle'`` or ``'tf'``, from the header.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = os.fspath(path)
        self._places: dict[str, list[tuple[int, int]]] | None = None  # (byte offset, row)
        try:
            self._file = open(path, 'rb')  # noqa: SIM115  (closed by close())
        except FileNotFoundError:
            raise UserError('no such file (the submission)', path=path) from None
        header = self._file.readline()
        self.format = parse_header(header, path)
        self._start = len(header)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Submission:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def image_ids(self) -> Iterable[str]:
        """The image ids, in the order in which they first appear."""
        return self._index().keys()

    def image(self, image_id: str) -> ImageDetections | None:
        """One image; None if the file has no row for it."""
        places = self._index().get(image_id)
        if places is None:
            return None
        parts = []
        for offset, row in places:
            self._file.seek(offset)
            parts.append(self._parse(self._file.readline(), row))
        first = parts[0]
        for part in parts[1:]:
            if (part.width, part.height) != (first.width, first.height):
                raise UserError(f'image {image_id} of {part.width}x{part.height}, but '
                                f'{first.width}x{first.height} in row {first.row}',
                                path=self.path, row=part.row)
            first.detections.extend(part.detections)
        return first

    def size(self, image_id: str) -> tuple[int, int]:
        """Width and height of an image that the file has."""
        self._file.seek(self._index()[image_id][0][0])
        fields = self._file.read(256).split(b',', 3)
        try:
            return int(fields[1].strip(b'"')), int(fields[2].strip(b'"'))
        except (IndexError, ValueError):
            image = self.image(image_id)  # says what is wrong with the row
            assert image is not None
            return image.width, image.height

    def __iter__(self) -> Iterator[ImageDetections]:
        for image_id in self.image_ids:
            image = self.image(image_id)
            assert image is not None
            yield image

    def __len__(self) -> int:
        """The number of images."""
        return len(self._index())

    def _parse(self, line: bytes, row: int) -> ImageDetections:
        try:
            return parse_row(line, self.format)._replace(row=row)
        except UnicodeDecodeError:
            raise UserError('not UTF-8 text', path=self.path, row=row) from None
        except ValueError as error:
            raise UserError(str(error), path=self.path, row=row) from None

    def _index(self) -> dict[str, list[tuple[int, int]]]:
        """Where each image's rows are, found in one pass that looks at first fields only."""
        if self._places is not None:
            return self._places
        places: dict[str, list[tuple[int, int]]] = {}
        self._file.seek(self._start)
        offset = self._start
        for row, line in enumerate(self._file, start=2):
            image_id = line.split(b',', 1)[0].strip(b'"\r\n').decode('utf-8', 'replace')
            if image_id:
                here = places.setdefault(image_id, [])
                if here and self.format == KAGGLE:
                    raise UserError(f'image {image_id} again, first in row {here[0][1]}',
                                    path=self.path, row=row)
                here.append((offset, row))
            elif line.strip():
                raise UserError('no image id', path=self.path, row=row)
            offset += len(line)
        self._places = places
        return places
