"""The two submission formats, row by row and without loss.

Kaggle: ``ImageID,ImageWidth,ImageHeight,PredictionString``, one row an image, the string empty or
``MID score mask`` repeated. TF: ``ImageID,ImageWidth,ImageHeight,LabelName,Score,Mask``, one row a
detection. Both carry the same text for scores and masks (``masks.encode_text``), which is handed
through as text here, so that a conversion there and back gives the same bytes.

In: a CSV of either format. Out: :class:`ImageDetections`, one an image, in the order in which the
images first appear. Memory holds one image (and where each image's rows are). Rows, sizes and
inflated masks have limits far above what a model writes, so that no file can take all memory.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import reprlib
from collections.abc import Iterable, Iterator, KeysView
from typing import IO, Any, NamedTuple

import numpy as np

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import open_regular
from projects.openimages.masks import MAX_PIXELS, Rle, inflate_text

KAGGLE, TF = 'kaggle', 'tf'
HEADERS = {KAGGLE: 'ImageID,ImageWidth,ImageHeight,PredictionString',
           TF: 'ImageID,ImageWidth,ImageHeight,LabelName,Score,Mask'}
FORMATS = tuple(HEADERS)

MAX_ROW = 1 << 26
"""Bytes of a row; a thousand detailed masks need a tenth of it."""
MAX_INFLATED = 1 << 25
"""Bytes of run lengths of one image's detections; noise all over the largest original has 25M."""
_MAX_ID = 255  # characters, as of a file name


class Header(NamedTuple):
    """What a file's first row says.

    Attributes:
        format: ``'kaggle'`` or ``'tf'``.
        places: where the fields of ``HEADERS[format]`` stand in a row; None where in this order.
    """

    format: str
    places: tuple[int, ...] | None = None

    @property
    def id_place(self) -> int:
        """Where the image id stands."""
        return 0 if self.places is None else self.places[0]


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


# ---------------------------------------------------------------------------------- writing

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


def write_submission(file: IO[bytes], images: Iterable[ImageDetections],
                     submission_format: str) -> tuple[int, int]:
    """Write a whole submission; returns how many images and detections it had."""
    num_images = num_detections = 0
    file.write(HEADERS[submission_format].encode() + b'\n')
    for image in images:
        file.writelines(row.encode() + b'\n' for row in format_rows(image, submission_format))
        num_images += 1
        num_detections += len(image.detections)
    return num_images, num_detections


# ------------------------------------------------------------------------------ reading a row

def read_rows(file: IO[bytes], end: int | None = None) -> Iterator[bytes]:
    """The rows from the file's position to its end, or to the byte ``end`` where a row begins.

    Of a row that is longer than ``MAX_ROW`` only the start comes; :func:`split_row` refuses it.
    The file then stands at the next row all the same.
    """
    while (end is None or file.tell() < end) and (row := file.readline(MAX_ROW)):
        rest = row
        while len(rest) == MAX_ROW and not rest.endswith(b'\n'):
            rest = file.readline(MAX_ROW)
        yield row


def split_row(row: bytes) -> list[str]:
    """The fields of one row; ValueError where it is none. Quotes are legal CSV but unusual."""
    if len(row) >= MAX_ROW:
        raise ValueError(f'a row of {MAX_ROW} bytes or more')
    if b'\0' in row:
        raise ValueError('a NUL byte')
    try:
        text = row.decode().rstrip('\r\n')
    except UnicodeDecodeError:
        raise ValueError('not UTF-8 text') from None
    if '"' not in text:
        return text.split(',')
    parts = text.split('"')  # the csv module takes no field of more than 128 KiB
    if not len(parts) % 2:
        raise ValueError('a quote without its end')
    fields = ['']
    for n, part in enumerate(parts):
        first, *others = [part] if n % 2 else part.split(',')
        doubled = not n % 2 and not part and 0 < n < len(parts) - 1
        fields[-1] += '"' if doubled else first
        fields += others
    return fields


def parse_row(row: bytes, header: Header) -> ImageDetections:
    """One row to its detections (one of them for TF); ValueError says what is wrong with it."""
    fields = split_row(row)
    submission_format, places = header
    expected = HEADERS[submission_format].count(',') + 1
    if len(fields) != expected:
        raise ValueError(f'{len(fields)} fields, expected {expected}')
    if places is not None:
        fields = [fields[place] for place in places]
    image_id, (width, height) = fields[0], image_size(fields[1], fields[2])
    if not is_image_id(image_id):
        raise ValueError(f'image id {reprlib.repr(image_id)}' if image_id else 'no image id')
    words = [word for field in fields[3:] for word in field.split()]
    if submission_format == TF and not all(len(field.split()) == 1 for field in fields[3:]):
        raise ValueError('expected LabelName, Score and Mask, each without spaces')
    if len(words) % 3:
        raise ValueError(f'PredictionString of {len(words)} words, expected "MID score mask" '
                         'repeated')
    return ImageDetections(image_id, width, height,
                           list(map(Detection, words[::3], words[1::3], words[2::3])))


def is_image_id(text: str) -> bool:
    """Whether a text can stand as an image id in both formats, without quotes."""
    return 0 < len(text) <= _MAX_ID and text.isprintable() and not {',', '"'} & {*text}


def image_size(width: str, height: str) -> tuple[int, int]:
    """An image's width and height in pixels; ValueError where they are none."""
    for name, text in (('width', width), ('height', height)):
        if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text)):
            raise ValueError(f'image {name} {reprlib.repr(text)}, expected a whole number from 1 '
                             f'to {MAX_PIXELS}')
    if int(width) * int(height) > MAX_PIXELS:
        raise ValueError(f'an image of {width}x{height}, expected at most {MAX_PIXELS} pixels')
    return int(width), int(height)


def parse_score(text: str) -> float:
    """A detection's score; ValueError where it is none. (Python reads 0_1 as a number as well.)"""
    try:
        score = float(text) if text.isascii() and '_' not in text else np.nan
    except ValueError:
        score = np.nan
    if not 0 <= score <= 1:
        raise ValueError(f'score {reprlib.repr(text)}, expected a number from 0 to 1')
    return score


def scores_and_masks(image: ImageDetections,
                     path: str | os.PathLike) -> tuple[np.ndarray, list[Rle]]:
    """An image's scores, (N,) float64, and N masks, of which the runs are not looked at.

    Raises:
        UserError: a score that is none, a broken mask text, or masks of more than
            ``MAX_INFLATED`` bytes; it names ``path``, the image's file.
    """
    masks: list[Rle] = []
    room = MAX_INFLATED
    try:
        scores = np.array([parse_score(detection.score) for detection in image.detections])
        for detection in image.detections:
            counts = inflate_text(detection.mask, image.height, image.width)
            masks.append({'size': [image.height, image.width], 'counts': counts})
            room -= len(counts)
            if room < 0:
                raise ValueError(f'masks that inflate to more than {MAX_INFLATED} bytes')
    except ValueError as error:  # MaskError is one
        raise UserError(f'image {image.image_id}: {error}', path=path, row=image.row) from None
    return scores, masks


# ------------------------------------------------------------------------------ a whole file

def open_submission(path: str | os.PathLike) -> tuple[IO[bytes], Header]:
    """The file, its first row read, and what that says; columns may stand in any order.

    Raises:
        UserError: no such file, no regular file, or a header of neither format.
    """
    try:
        file = open_regular(path)
    except FileNotFoundError:
        raise UserError('no such file (the submission)', path=path) from None
    header = file.readline(1 << 16).removeprefix(codecs.BOM_UTF8)
    try:
        fields = [field.strip() for field in split_row(header)]
    except ValueError:
        fields = []
    for name, text in HEADERS.items():
        expected = text.split(',')
        if fields == expected:
            return file, Header(name)
        if sorted(fields) == sorted(expected):
            return file, Header(name, tuple(map(fields.index, expected)))
    file.close()
    raise UserError(f'header {header[:80].decode("utf-8", "replace").rstrip()!r}, expected '
                    f'{HEADERS[KAGGLE]!r} or {HEADERS[TF]!r}, in any order', path=path, row=1)


class Submission:
    """A submission file, read image by image.

    Images can be read in file order by iterating or one by one with :meth:`image`. The rows of a
    TF file need not be sorted by image. Another process to which it is handed opens the file for
    itself, and knows where the rows are if they were looked up before.

    Attributes:
        path: the file.
        format: ``'kaggle'`` or ``'tf'``, from the header.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = os.fspath(path)
        self._places: dict[str, list[tuple[int, int]]] | None = None  # (byte offset, row)
        self._file, self._header = open_submission(path)
        self.format = self._header.format

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_file': None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._file, _ = open_submission(self.path)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Submission:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def image_ids(self) -> KeysView[str]:
        """The image ids, in the order in which they first appear."""
        return self._index().keys()

    def image(self, image_id: str) -> ImageDetections | None:
        """One image; None if the file has no row for it."""
        places = self._index().get(image_id)
        if places is None:
            return None
        first, *others = [self._read(*place) for place in places]
        for part in others:
            if (part.width, part.height) != (first.width, first.height):
                raise UserError(f'image {image_id} of {part.width}x{part.height}, but '
                                f'{first.width}x{first.height} in row {first.row}',
                                path=self.path, row=part.row)
            first.detections.extend(part.detections)
        return first

    def size(self, image_id: str) -> tuple[int, int]:
        """Width and height of an image that the file has."""
        offset, row = self._index()[image_id][0]
        if self._header.places is None:  # then it need not read what may be megabytes of masks
            self._file.seek(offset)
            fields = self._file.read(256).decode('utf-8', 'replace').split(',', 3)
            with contextlib.suppress(IndexError, ValueError):
                return image_size(fields[1].strip('"'), fields[2].strip('"'))
        image = self._read(offset, row)  # says what is wrong with the row
        return image.width, image.height

    def __iter__(self) -> Iterator[ImageDetections]:
        for image_id in self.image_ids:
            image = self.image(image_id)
            assert image is not None
            yield image

    def __len__(self) -> int:
        """The number of images."""
        return len(self._index())

    def _read(self, offset: int, row: int) -> ImageDetections:
        self._file.seek(offset)
        try:
            return parse_row(self._file.readline(MAX_ROW), self._header)._replace(row=row)
        except ValueError as error:
            raise UserError(str(error), path=self.path, row=row) from None

    def _index(self) -> dict[str, list[tuple[int, int]]]:
        """Where each image's rows are, found in one pass that looks at their ids only."""
        if self._places is not None:
            return self._places
        places: dict[str, list[tuple[int, int]]] = {}
        self._file.seek(0)
        self._file.readline()
        offset = self._file.tell()
        for row, line in enumerate(read_rows(self._file), start=2):
            image_id = self._image_id(line, row)
            if image_id:
                here = places.setdefault(image_id, [])
                if here and self.format == KAGGLE:
                    raise UserError(f'image {image_id} again, first in row {here[0][1]}',
                                    path=self.path, row=row)
                here.append((offset, row))
            elif line.strip():
                raise UserError('no image id', path=self.path, row=row)
            offset = self._file.tell()
        self._places = places
        return places

    def _image_id(self, line: bytes, row: int) -> str:
        """The id that a row begins with, or has in its column; ``''`` where it has none."""
        place = self._header.id_place
        if not place:
            start = line[:4 * _MAX_ID].split(b',', 1)[0]
            return start.strip(b'"\r\n').decode('utf-8', 'replace')
        try:
            return (split_row(line)[place:place + 1] or [''])[0]
        except ValueError as error:
            raise UserError(str(error), path=self.path, row=row) from None
