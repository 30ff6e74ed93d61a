"""The official evaluator's input files as arrays.

In: the input files of ``oid_challenge_evaluation.py`` (predictions also in Kaggle's format).
Out: :class:`GroundTruthTable` and :class:`PredictionTable`, flat arrays sorted by image, from which
single images are cut for the metric.

What the official script crashes on, or passes over in silence, is a UserError with file and row.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from projects.openimages.challenge.csv_masks import SIZE_COLUMNS, MaskColumn
from projects.openimages.challenge.evaluator_csv import EvaluatorCsv, guess_types
from projects.openimages.common.csv_files import distinct, read_header
from projects.openimages.common.errors import UserError
from projects.openimages.labels import read_label_map
from projects.openimages.metric import Detections, GroundTruth, join_boxes_and_masks

BOX_COLUMNS = ('XMin', 'XMax', 'YMin', 'YMax')
KEY_COLUMNS = ('ImageID', 'LabelName')
_MOST_PLACES = 10_000


@dataclass(frozen=True)
class LabelMap:
    """Classes as ``label_map.pbtxt`` numbers them.

    Attributes:
        ids: 0-based class id by name (a MID), ascending; there may be gaps.
    """

    ids: dict[str, int]

    @classmethod
    def read(cls, path: str | os.PathLike) -> LabelMap:
        """Read the file; a UserError if an id is less than 1."""
        numbers = read_label_map(path)
        for name, number in numbers.items():
            if number < 1:
                raise UserError(f'class {name} has id {number}, expected at least 1', path=path)
        names = sorted(numbers, key=numbers.__getitem__)
        # The official script keeps a place for every number up to the largest, and the last digit
        # of its mean depends on the places. Numbers too large for that are drawn together.
        if numbers[names[-1]] > _MOST_PLACES:
            return cls({name: place for place, name in enumerate(names)})
        return cls({name: numbers[name] - 1 for name in names})

    @property
    def num_classes(self) -> int:
        """The largest class id and one."""
        return max(self.ids.values()) + 1

    @cached_property
    def names(self) -> dict[int, str]:
        """Name by class id, ascending."""
        return {class_id: name for name, class_id in self.ids.items()}

    def class_ids(self, file: EvaluatorCsv, column: pa.ChunkedArray,
                  records: np.ndarray) -> np.ndarray:
        """Names as class ids, (N,) int64.

        Args:
            file: where they are from, and ``records`` (N,) in it, for the error message.
            column: N names.
        """
        values, codes = distinct(column)
        found = np.array([self.ids.get(value, -1) for value in values], np.int64)[codes]
        unknown = np.flatnonzero(found < 0)
        if len(unknown):
            raise file.error(records[unknown[0]], f'unknown class {values[codes[unknown[0]]]!r}, '
                             'expected a name of the label map')
        return found


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

    def __init__(self, truth: Sequence[EvaluatorCsv], predictions: EvaluatorCsv) -> None:
        self._keys: dict[int, tuple[list, np.ndarray]] = {}
        kinds: dict[str, EvaluatorCsv] = {}
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
        ordered = sorted({key for file in truth for key in self._keys[id(file)][0]},
                         key=lambda key: (isinstance(key, str), key))
        self._places = {key: place for place, key in enumerate(ordered)}
        self._check_overlap(truth[0], predictions)

    def _check_overlap(self, truth: EvaluatorCsv, predictions: EvaluatorCsv) -> None:
        """Scored on another split's ground truth, predictions would get 0 without a word."""
        found = self._keys[id(predictions)][0]
        shared = sum(key in self._places for key in found)
        if found and not shared:
            raise UserError(f'none of its {len(found):,} images is among the {len(self):,} of the '
                            f'ground truth {os.fspath(truth.path)}: is it of another split?',
                            path=predictions.path)
        if 2 * shared < max(len(found), len(self)):
            print(f'warning: {os.fspath(predictions.path)}: {shared:,} of its {len(found):,} '
                  f'images are among the {len(self):,} of the ground truth '
                  f'{os.fspath(truth.path)}', file=sys.stderr)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def ids(self) -> list[str]:
        """Image ids as text."""
        return [str(key) for key in self._places]

    def rows(self, file: EvaluatorCsv) -> np.ndarray:
        """Which image each row of a file is about, (N,) int64; -1 if none."""
        keys, codes = self._keys[id(file)]
        places = np.array([self._places.get(key, -1) for key in keys], np.int64)
        return places[codes] if len(codes) else codes


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

    def __init__(self, boxes: EvaluatorCsv, labels: EvaluatorCsv,
                 segmentations: EvaluatorCsv | None, label_map: LabelMap,
                 images: ImageOrder) -> None:
        keys = _instance_keys(boxes, label_map, images)
        self.masks: MaskColumn | None = None
        if segmentations is None:
            order = np.argsort(keys[:, 0], kind='stable')
            self._mask_rows = np.full(len(keys), -1)
            joined = keys[order]
        else:
            mask_keys = _instance_keys(segmentations, label_map, images)
            box_rows, self._mask_rows = join_boxes_and_masks(keys, mask_keys)
            joined = np.where((box_rows >= 0)[:, None], np.append(keys, [[0.0] * 7], 0)[box_rows],
                              np.append(mask_keys, [[0.0] * 7], 0)[self._mask_rows])
            self.masks = MaskColumn(segmentations, segmentations.text('Mask'),
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
            masks = self.masks.cut(self._mask_rows[rows])
        return GroundTruth(self.class_ids[rows], self._boxes[rows], self._is_group_of[rows],
                           self.verified(image), masks)


def _class_ids(file: EvaluatorCsv, label_map: LabelMap) -> np.ndarray:
    return label_map.class_ids(file, file.required('LabelName'), np.arange(len(file)))


def _instance_keys(file: EvaluatorCsv, label_map: LabelMap, images: ImageOrder) -> np.ndarray:
    """(N, 7) float64: image, class id, XMin, XMax, YMin, YMax, IsGroupOf."""
    boxes = _boxes(file)
    for low, high in ((0, 1), (2, 3)):
        wrong = np.flatnonzero(boxes[:, low] > boxes[:, high])
        if len(wrong):
            raise file.error(wrong[0], f'{BOX_COLUMNS[low]} {boxes[wrong[0], low]} is greater than '
                             f'{BOX_COLUMNS[high]} {boxes[wrong[0], high]}')
    return np.column_stack((images.rows(file), _class_ids(file, label_map), boxes,
                            file.numbers('IsGroupOf')))


def _boxes(file: EvaluatorCsv) -> np.ndarray:
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

    def __init__(self, file: EvaluatorCsv, label_map: LabelMap, images: ImageOrder) -> None:
        columns = _split_prediction_strings(file) if 'PredictionString' in file else _plain(file)
        image_rows = images.rows(file)[columns.file_rows]
        class_ids = label_map.class_ids(file, columns.names, columns.file_rows)
        scores = file.parse('Score', columns.scores, columns.file_rows)
        outside = np.flatnonzero((scores < 0) | (scores > 1))
        if len(outside):
            raise file.error(columns.file_rows[outside[0]],
                             f'score {scores[outside[0]]} is not within 0..1')
        order = np.argsort(image_rows, kind='stable')
        self._rows = order[np.searchsorted(image_rows[order], 0):]
        self.class_ids = class_ids[self._rows]
        self.scores = scores[self._rows]
        self.offsets = np.searchsorted(image_rows[self._rows], np.arange(len(images) + 1))
        self.masks: MaskColumn | None = None
        self._boxes = np.zeros((0, 4))
        if columns.masks is not None:
            self.masks = MaskColumn(file, columns.masks, columns.file_rows, image_rows)
        else:
            self._boxes = _boxes(file)

    def image(self, image: int) -> Detections:
        """One image's detections; masks are decoded as they are asked for."""
        place = slice(self.offsets[image], self.offsets[image + 1])
        rows = self._rows[place]
        if self.masks is None:
            return Detections(self.class_ids[place], self.scores[place], boxes=self._boxes[rows])
        return Detections(self.class_ids[place], self.scores[place], self.masks.cut(rows))


@dataclass(frozen=True)
class _DetectionColumns:
    """(D,) row in the file, and D names, scores and masks (None where the file has boxes)."""

    file_rows: np.ndarray
    names: pa.ChunkedArray
    scores: pa.ChunkedArray
    masks: pa.ChunkedArray | None


def _plain(file: EvaluatorCsv) -> _DetectionColumns:
    return _DetectionColumns(np.arange(len(file)), file.required('LabelName'),
                             file.required('Score'),
                             file.required('Mask') if 'Mask' in file else None)


def _split_prediction_strings(file: EvaluatorCsv) -> _DetectionColumns:
    words = pc.ascii_split_whitespace(pc.ascii_trim_whitespace(file.text('PredictionString')))
    counts = pc.fill_null(pc.list_value_length(words), 0).to_numpy().astype(np.int64)
    bad = np.flatnonzero(counts % 3)
    if len(bad):
        raise file.error(bad[0], f'PredictionString of {counts[bad[0]]} words, expected "MID score '
                         'mask" repeated')
    parts = [[chunk.flatten()[place::3] for chunk in words.chunks] for place in range(3)]
    return _DetectionColumns(np.repeat(np.arange(len(file)), counts // 3),
                             *(pa.chunked_array(part, pa.string()) for part in parts))


def open_predictions(path: str | os.PathLike, with_masks: bool) -> EvaluatorCsv:
    """The predictions file of either format, with the columns that the evaluation needs.

    Box evaluation takes the boxes of the masks where there are masks, as the evaluator does.
    """
    head = read_header(path)
    columns = [*KEY_COLUMNS, *BOX_COLUMNS, 'Score']
    if 'PredictionString' in head:
        columns = ['ImageID', *SIZE_COLUMNS, 'PredictionString']
    elif with_masks or 'Mask' in head:
        columns = [*KEY_COLUMNS, *SIZE_COLUMNS, 'Score', 'Mask']
    return EvaluatorCsv(path, columns, needs_line_end=False)


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
        box_file = EvaluatorCsv(boxes, instance_columns, needs_line_end=True)
        label_file = EvaluatorCsv(labels, [*KEY_COLUMNS, 'Confidence'], needs_line_end=True)
        mask_file = None
        if segmentations is not None:
            mask_file = EvaluatorCsv(segmentations, [*instance_columns, *SIZE_COLUMNS, 'Mask'],
                                     needs_line_end=True)
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
