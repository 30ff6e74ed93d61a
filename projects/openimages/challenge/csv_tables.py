"""The official evaluator's input files as arrays.

In: the input files of ``oid_challenge_evaluation.py`` (predictions also in Kaggle's format).
Out: :class:`GroundTruthTable` and :class:`PredictionTable`, flat arrays sorted by image, from which
single images are cut for the metric.

What the official script crashes on, or passes over in silence, is a UserError with file and row.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from projects.openimages.common.csv_columns import (
    CsvFile,
    TextColumn,
    distinct,
    guess_types,
    read_header,
)
from projects.openimages.common.errors import UserError
from projects.openimages.labels import read_label_map
from projects.openimages.masks import MaskError, Rle, check_sizes, inflate_text
from projects.openimages.metric import Detections, GroundTruth, join_boxes_and_masks

BOX_COLUMNS = ('XMin', 'XMax', 'YMin', 'YMax')
KEY_COLUMNS = ('ImageID', 'LabelName')
SIZE_COLUMNS = ('ImageWidth', 'ImageHeight')


@dataclass(frozen=True)
class LabelMap:
    """Classes as ``label_map.pbtxt`` numbers them.

    Attributes:
        ids: 1-based id by name (a MID).
    """

    ids: dict[str, int]

    @classmethod
    def read(cls, path: str | os.PathLike) -> LabelMap:
        """Read the file; a UserError if an id is less than 1."""
        ids = read_label_map(path)
        for name, number in ids.items():
            if number < 1:
                raise UserError(f'class {name} has id {number}, expected at least 1', path=path)
        return cls(ids)

    @property
    def num_classes(self) -> int:
        """The largest id; ids may have gaps."""
        return max(self.ids.values())

    @cached_property
    def names(self) -> dict[int, str]:
        """Name by 0-based class id, ascending."""
        return dict(sorted((number - 1, name) for name, number in self.ids.items()))

    def class_ids(self, file: CsvFile, column: pa.ChunkedArray, rows: np.ndarray) -> np.ndarray:
        """Names as 0-based class ids, (N,) int64.

        Args:
            file: where they are from, and ``rows`` (N,) in it, for the error message.
            column: N names.
        """
        values, codes = distinct(column)
        found = np.array([self.ids.get(value, 0) for value in values], np.int64)
        unknown = np.flatnonzero(found[codes] == 0) if len(codes) else codes
        if len(unknown):
            raise file.fail(rows[unknown[0]], f'unknown class {values[codes[unknown[0]]]!r}, '
                            'expected a name of the label map')
        return found[codes] - 1 if len(codes) else codes


# -------------------------------------------------------------------------------------- images

class ImageOrder:
    """The images of the ground truth, in the evaluator's order.

    The official script lets pandas guess what the ids of each file are. Where all of a file's ids
    look like numbers they become numbers, sort as such, and are found only in files that were
    read the same way; so it is here, with a warning.

    Args:
        truth: the ground-truth files.
        predictions: the predictions file.
    """

    def __init__(self, truth: Sequence[CsvFile], predictions: CsvFile) -> None:
        self._keys: dict[int, tuple[list, np.ndarray]] = {}
        kinds: dict[str, CsvFile] = {}
        for file in (*truth, predictions):
            values, codes = distinct(file.required('ImageID'))
            keys = guess_types(values)
            self._keys[id(file)] = keys, codes
            if keys:
                kinds.setdefault('text' if isinstance(keys[0], str) else 'numbers', file)
        if len(kinds) > 1:
            warnings.warn(f'all image ids in {kinds["numbers"].path} are numbers, and those in '
                          f'{kinds["text"].path} are not: the official script does not match '
                          'the two, and neither does this', stacklevel=2)
        keys = {key for file in truth for key in self._keys[id(file)][0]}
        ordered = sorted(keys, key=lambda key: (isinstance(key, str), key))
        self._places = {key: place for place, key in enumerate(ordered)}

    def __len__(self) -> int:
        return len(self._places)

    @property
    def ids(self) -> list[str]:
        """Image ids as text."""
        return [str(key) for key in self._places]

    def rows(self, file: CsvFile) -> np.ndarray:
        """Which image each row of a file is about, (N,) int64; -1 if none."""
        keys, codes = self._keys[id(file)]
        places = np.array([self._places.get(key, -1) for key in keys], np.int64)
        return places[codes] if len(codes) else codes


class _MaskColumn:
    """The masks of a file: text and size by row."""

    def __init__(self, file: CsvFile, texts: pa.ChunkedArray, file_rows: np.ndarray,
                 image_rows: np.ndarray) -> None:
        self._file, self._file_rows = file, file_rows
        self._texts = TextColumn(texts)
        self.present = ~self._texts.is_null & (image_rows >= 0)
        rows = np.flatnonzero(self.present)
        self.sizes = np.zeros((len(image_rows), 2), np.int64)  # height, width
        for column, name in enumerate(reversed(SIZE_COLUMNS)):
            self.sizes[rows, column] = file.whole_numbers(name, file_rows[rows])
        self._image_rows = image_rows

    def check_sizes(self, reference: np.ndarray) -> None:
        """Compare with one size an image, (I, 2) int64; fill it where it is still 0."""
        rows = np.flatnonzero(self.present)[::-1]
        images = self._image_rows[rows]
        missing = reference[images, 0] == 0
        reference[images[missing]] = self.sizes[rows[missing]]  # the last written, so the first
        wrong = rows[(self.sizes[rows] != reference[images]).any(axis=1)]
        if len(wrong):
            row = wrong[-1]
            height, width = reference[self._image_rows[row]]
            raise self._file.fail(self._file_rows[row], f'mask of {self.sizes[row, 1]} x '
                                  f'{self.sizes[row, 0]}, but other masks of its image are '
                                  f'{width} x {height}')

    def read(self, row: int) -> Rle | None:
        """The mask in a row, its run lengths not looked into; row -1 gives None."""
        if row < 0 or not self.present[row]:
            return None
        try:
            counts = inflate_text(self._texts[row], *self.sizes[row].tolist())
        except MaskError as error:
            raise self._file.fail(self._file_rows[row], str(error)) from None
        return {'size': self.sizes[row].tolist(), 'counts': counts}

    def check_runs(self, row: int) -> None:
        """Raise a UserError if the mask in a row is malformed."""
        mask = self.read(row)
        try:
            check_sizes([mask] if mask else [])
        except MaskError as error:
            raise self._file.fail(self._file_rows[row], str(error)) from None


class LazyMasks(Sequence):
    """The masks of an image, each decoded when it is asked for."""

    def __init__(self, column: _MaskColumn, rows: np.ndarray) -> None:
        self._column, self._rows = column, rows.tolist()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number):
        return self._column.read(self._rows[number])

    def explain(self) -> None:
        """Raise a UserError about the first malformed mask, if there is one."""
        for row in self._rows:
            self._column.check_runs(row)


# --------------------------------------------------------------------------------- ground truth

class GroundTruthTable:
    """All ground truth, joined and ordered as the evaluator has it.

    Args:
        boxes, labels: the boxes and labels files.
        segmentations: the masks file; None for box evaluation.
        label_map: the classes.
        images: the images of these files.

    Attributes:
        offsets: (I + 1,) int64, where each image's instances begin.
        class_ids: (M,) int64.
        masks: the masks column; None for box evaluation.
    """

    def __init__(self, boxes: CsvFile, labels: CsvFile, segmentations: CsvFile | None,
                 label_map: LabelMap, images: ImageOrder) -> None:
        keys = _instance_keys(boxes, label_map, images)
        self.masks = None
        if segmentations is None:
            order = np.argsort(keys[:, 0], kind='stable')
            self._mask_rows = np.full(len(keys), -1)
            joined = keys[order]
        else:
            mask_keys = _instance_keys(segmentations, label_map, images)
            box_rows, self._mask_rows = join_boxes_and_masks(keys, mask_keys)
            joined = np.where((box_rows >= 0)[:, None], np.append(keys, [[0.0] * 7], 0)[box_rows],
                              np.append(mask_keys, [[0.0] * 7], 0)[self._mask_rows])
            self.masks = _MaskColumn(segmentations, segmentations.text('Mask'),
                                     np.arange(len(segmentations)), images.rows(segmentations))
        self.class_ids = joined[:, 1].astype(np.int64)
        self._boxes = joined[:, 2:6]
        self._is_group_of = joined[:, 6].astype(int) != 0
        self.offsets = np.searchsorted(joined[:, 0], np.arange(len(images) + 1))
        label_images = images.rows(labels)
        order = np.argsort(label_images, kind='stable')
        labels.numbers('Confidence')
        self._labels = _class_ids(labels, label_map)[order]
        self._label_offsets = np.searchsorted(label_images[order], np.arange(len(images) + 1))

    def verified(self, image: int) -> np.ndarray:
        """Classes with an image label, (V,) int64."""
        return self._labels[self._label_offsets[image]:self._label_offsets[image + 1]]

    def image(self, image: int) -> GroundTruth:
        """One image's ground truth; masks are decoded as they are asked for."""
        rows = slice(self.offsets[image], self.offsets[image + 1])
        masks = None
        if self.masks is not None:
            masks = LazyMasks(self.masks, self._mask_rows[rows])
        return GroundTruth(self.class_ids[rows], self._boxes[rows], self._is_group_of[rows],
                           self.verified(image), masks)


def _class_ids(file: CsvFile, label_map: LabelMap) -> np.ndarray:
    return label_map.class_ids(file, file.required('LabelName'), np.arange(len(file)))


def _instance_keys(file: CsvFile, label_map: LabelMap, images: ImageOrder) -> np.ndarray:
    """(N, 7) float64: image, class id, XMin, XMax, YMin, YMax, IsGroupOf."""
    boxes = _boxes(file)
    for low, high in ((0, 1), (2, 3)):
        wrong = np.flatnonzero(boxes[:, low] > boxes[:, high])
        if len(wrong):
            raise file.fail(wrong[0], f'{BOX_COLUMNS[low]} {boxes[wrong[0], low]} is greater than '
                            f'{BOX_COLUMNS[high]} {boxes[wrong[0], high]}')
    return np.column_stack((images.rows(file), _class_ids(file, label_map), boxes,
                            file.numbers('IsGroupOf')))


def _boxes(file: CsvFile) -> np.ndarray:
    return np.column_stack([file.numbers(name) for name in BOX_COLUMNS])


# ---------------------------------------------------------------------------------- predictions

class PredictionTable:
    """All detections on images of the ground truth, in file order within each image.

    Args:
        file: the predictions, with columns as :func:`open_predictions` asks for.
        label_map: the classes.
        images: the images of the ground truth.

    Attributes:
        offsets: (I + 1,) int64, where each image's detections begin.
        class_ids: (D,) int64.
        scores: (D,) float64.
        masks: the masks column; None where the file has boxes.
    """

    def __init__(self, file: CsvFile, label_map: LabelMap, images: ImageOrder) -> None:
        columns = _split_prediction_strings(file) if 'PredictionString' in file else _plain(file)
        image_rows = images.rows(file)[columns.file_rows]
        class_ids = label_map.class_ids(file, columns.names, columns.file_rows)
        scores = file.parse('Score', columns.scores, columns.file_rows)
        outside = np.flatnonzero((scores < 0) | (scores > 1))
        if len(outside):
            raise file.fail(columns.file_rows[outside[0]],
                            f'score {scores[outside[0]]} is not within 0..1')
        order = np.argsort(image_rows, kind='stable')
        self._rows = order[np.searchsorted(image_rows[order], 0):]
        self.class_ids = class_ids[self._rows]
        self.scores = scores[self._rows]
        self.offsets = np.searchsorted(image_rows[self._rows], np.arange(len(images) + 1))
        self.masks = self._boxes = None
        if columns.masks is not None:
            self.masks = _MaskColumn(file, columns.masks, columns.file_rows, image_rows)
        else:
            self._boxes = _boxes(file)

    def image(self, image: int) -> Detections:
        """One image's detections; masks are decoded as they are asked for."""
        place = slice(self.offsets[image], self.offsets[image + 1])
        rows = self._rows[place]
        if self.masks is None:
            return Detections(self.class_ids[place], self.scores[place], boxes=self._boxes[rows])
        return Detections(self.class_ids[place], self.scores[place], LazyMasks(self.masks, rows))


@dataclass(frozen=True)
class _DetectionColumns:
    """(D,) row in the file, and D names, scores and masks (None where the file has boxes)."""

    file_rows: np.ndarray
    names: pa.ChunkedArray
    scores: pa.ChunkedArray
    masks: pa.ChunkedArray | None


def _plain(file: CsvFile) -> _DetectionColumns:
    return _DetectionColumns(np.arange(len(file)), file.required('LabelName'),
                             file.required('Score'), file.text('Mask') if 'Mask' in file else None)


def _split_prediction_strings(file: CsvFile) -> _DetectionColumns:
    words = pc.ascii_split_whitespace(pc.ascii_trim_whitespace(file.text('PredictionString')))
    counts = pc.fill_null(pc.list_value_length(words), 0).to_numpy().astype(np.int64)
    bad = np.flatnonzero(counts % 3)
    if len(bad):
        raise file.fail(bad[0], f'PredictionString of {counts[bad[0]]} words, expected "MID score '
                        'mask" repeated')
    parts = [[chunk.flatten()[place::3] for chunk in words.chunks] for place in range(3)]
    return _DetectionColumns(np.repeat(np.arange(len(file)), counts // 3),
                             *(pa.chunked_array(part, pa.string()) for part in parts))


def open_predictions(path: str | os.PathLike, with_masks: bool) -> CsvFile:
    """The predictions file of either format, with the columns that the evaluation needs.

    Box evaluation takes the boxes of the masks where there are masks, as the evaluator does.
    """
    head = read_header(path)
    if 'PredictionString' in head:
        return CsvFile(path, ['ImageID', *SIZE_COLUMNS, 'PredictionString'])
    if with_masks or 'Mask' in head:
        return CsvFile(path, [*KEY_COLUMNS, *SIZE_COLUMNS, 'Score', 'Mask'])
    return CsvFile(path, [*KEY_COLUMNS, *BOX_COLUMNS, 'Score'])


# ------------------------------------------------------------------------------------ all files

@dataclass(frozen=True)
class ChallengeTables:
    """Everything one evaluation needs."""

    label_map: LabelMap
    images: ImageOrder
    truth: GroundTruthTable
    predictions: PredictionTable

    @property
    def with_masks(self) -> bool:
        """False for box evaluation."""
        return self.truth.masks is not None

    @classmethod
    def read(cls, boxes: str | os.PathLike, labels: str | os.PathLike,
             label_map: str | os.PathLike, predictions: str | os.PathLike,
             segmentations: str | os.PathLike | None = None) -> ChallengeTables:
        """Read and check the files, named as the evaluator's flags are; no masks yet."""
        classes = LabelMap.read(label_map)
        instance_columns = [*KEY_COLUMNS, *BOX_COLUMNS, 'IsGroupOf']
        box_file = CsvFile(boxes, instance_columns)
        label_file = CsvFile(labels, [*KEY_COLUMNS, 'Confidence'])
        mask_file = None
        if segmentations is not None:
            mask_file = CsvFile(segmentations, [*instance_columns, *SIZE_COLUMNS, 'Mask'])
        found_file = open_predictions(predictions, mask_file is not None)
        truth_files = [file for file in (box_file, label_file, mask_file) if file is not None]
        images = ImageOrder(truth_files, found_file)
        truth = GroundTruthTable(box_file, label_file, mask_file, classes, images)
        found = PredictionTable(found_file, classes, images)
        sizes = np.zeros((len(images), 2), np.int64)
        for table in (truth, found):
            if table.masks is not None:
                table.masks.check_sizes(sizes)
        return cls(classes, images, truth, found)
