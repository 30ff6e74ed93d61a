"""The official CSVs of one split as flat arrays, checked, joined and in order.

In: the boxes, labels and masks CSVs. Out: :class:`Annotations`: images by ascending id, each with
its instances in the order of the boxes CSV (then the masks that have no box), each instance with
the row of its mask, if it has one, and its verified labels.

Everything here is by column: the full training split has 2.8M boxes, 2.1M masks and 6M labels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from projects.openimages.common.csv_files import CsvColumns, distinct
from projects.openimages.data.layout import SplitFiles
from projects.openimages.data.official.joining import join_boxes
from projects.openimages.data.official.split_tables import (
    BOX_NUMBERS,
    LABEL_NUMBERS,
    MASK_NUMBERS,
    read_split_tables,
)
from projects.openimages.data.problems import Problem, ProblemLog
from projects.openimages.labels import LabelSpace

_IMAGE_ID = re.compile(r'[\w-]+', re.ASCII)


@dataclass
class Annotations:
    """A split's rows; I images, N instances, L labels.

    Attributes:
        image_ids: I strings, ascending.
        instance_offsets: (I + 1,) int64.
        class_ids: (N,) int16.
        boxes: (N, 4) float64 XMin, XMax, YMin, YMax.
        is_group_of: (N,) bool.
        mask_rows: (N,) int64 into ``mask_names`` and ``mask_lines``; -1 without a mask.
        join_distances: (N,) float64 between the boxes of the two CSVs; nan without a mask or a box.
        box_lines: (N,) int64 line in the boxes CSV; 0 for a mask without a box.
        mask_names: an Arrow string array of file names.
        mask_lines: line in the masks CSV of each name.
        label_offsets: (I + 1,) int64.
        label_class_ids: (L,) int16.
        label_present: (L,) bool.
        label_lines: (L,) int64 line in the labels CSV.
        counts: other numbers for the report.
    """

    image_ids: Sequence[str]
    instance_offsets: np.ndarray
    class_ids: np.ndarray
    boxes: np.ndarray
    is_group_of: np.ndarray
    mask_rows: np.ndarray
    join_distances: np.ndarray
    box_lines: np.ndarray
    mask_names: pa.Array
    mask_lines: np.ndarray
    label_offsets: np.ndarray
    label_class_ids: np.ndarray
    label_present: np.ndarray
    label_lines: np.ndarray
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def instance_images(self) -> np.ndarray:
        """(N,) int64, the image row of every instance."""
        return np.repeat(np.arange(len(self.image_ids)), np.diff(self.instance_offsets))


@dataclass(frozen=True)
class _Rows:
    """The good rows of one CSV, R of them.

    Attributes:
        table: the CSV.
        image_ids: all images' ids.
        images: (R,) int64 row of the image.
        class_ids: (R,) int64.
        numbers: (R, K) float64, the K numbers of a row: a box has its sides first.
        keep: (R,) int64 positions in the table.
    """

    table: CsvColumns
    image_ids: Sequence[str]
    images: np.ndarray
    class_ids: np.ndarray
    numbers: np.ndarray
    keep: np.ndarray

    @property
    def boxes(self) -> np.ndarray:
        """(R, 4) float64."""
        return self.numbers[:, :4]

    @property
    def lines(self) -> np.ndarray:
        """(R,) int64 in the CSV."""
        return self.table.lines[self.keep]

    def where(self, good: np.ndarray) -> _Rows:
        """Some of the rows, by (R,) bool."""
        if good.all():
            return self
        return replace(self, images=self.images[good], class_ids=self.class_ids[good],
                       numbers=self.numbers[good], keep=self.keep[good])

    def keys(self, num_classes: int) -> np.ndarray:
        """(R,) int64, equal where image and class are equal."""
        return self.images * num_classes + self.class_ids

    def problem(self, kind: str, row: int, message: str) -> Problem:
        """A finding about one of the rows."""
        return Problem(kind, message, str(self.table.path),
                       int(self.table.lines[self.keep[row]]), self.image_ids[self.images[row]])

    def without(self, bad: np.ndarray, kind: str, message: Callable[[int], str],
                log: ProblemLog) -> _Rows:
        """The other rows; each bad one, by (R,) bool, goes to the log."""
        for row in np.flatnonzero(bad).tolist():
            log.add(self.problem(kind, row, message(row)))
        return self.where(~bad)


def annotations_without_rows(image_ids: Iterable[str]) -> Annotations:
    """A split of which only the images are known."""
    image_ids = sorted(image_ids)
    offsets, ints = np.zeros(len(image_ids) + 1, np.int64), np.zeros(0, np.int64)
    return Annotations(image_ids, offsets, ints.astype(np.int16), np.zeros((0, 4)),
                       ints.astype(bool), ints, np.zeros(0), ints, pa.array([], pa.large_utf8()),
                       ints, offsets, ints.astype(np.int16), ints.astype(bool), ints)


def read_annotations(files: SplitFiles, space: LabelSpace, log: ProblemLog) -> Annotations:
    """Read, check and join a split's CSVs.

    Args:
        files: where they are; the labels CSV may be missing in the full release.
        space: the classes.
        log: gets everything that is wrong.
    """
    *tables, counts = read_split_tables(files, space, log)
    rows = _known_rows(tables, (BOX_NUMBERS, MASK_NUMBERS, LABEL_NUMBERS), space,
                       files.is_challenge, log)
    counts['rows_of_other_classes'] += sum(map(len, tables)) - sum(len(r.keep) for r in rows)
    del tables  # the rows hold what is still needed of them
    boxes = _check_boxes(_check_sides(rows[0], BOX_NUMBERS, log), log)
    masks = _check_masks(_check_sides(rows[1], MASK_NUMBERS, log), log)
    labels = _check_labels(rows[2], space, files.is_challenge, log)
    boxes, masks, labels = _of_used_images((boxes, masks, labels))
    joined, distances = join_boxes(masks.keys(space.num_classes), masks.boxes,
                                   boxes.keys(space.num_classes), boxes.boxes)
    _note_lone_masks(masks, joined, distances, log)
    return _in_image_order(boxes, masks, labels, joined, distances, dict(counts))


def _known_rows(tables: Sequence[CsvColumns], numbers: Sequence[Sequence[str]], space: LabelSpace,
                is_challenge: bool, log: ProblemLog) -> list[_Rows]:
    """For each table the rows with a sane image id and a known class, all images interned."""
    names = [distinct(table['ImageID']) for table in tables]
    image_ids, inverse = np.unique(
        np.concatenate([np.array(ids.values, object) for ids in names]), return_inverse=True)
    is_sane = np.array([_IMAGE_ID.fullmatch(image_id) is not None for image_id in image_ids], bool)
    starts = np.cumsum([0, *(len(ids.values) for ids in names)])
    found = []
    for table, ids, start, columns in zip(tables, names, starts, numbers, strict=False):
        images = inverse[start:start + len(ids.values)][ids.codes]
        mids, codes = distinct(table['LabelName'])
        class_ids = np.array([space.ids.get(mid, -1) for mid in mids], np.int64)[codes]
        rows = _Rows(_lean(table), image_ids, images, class_ids, table.numbers(*columns),
                     np.arange(len(table)))
        for n in np.flatnonzero(~is_sane[images]):
            log.bad('broken_row', f'image id {image_ids[images[n]]!r} is not letters and digits',
                    path=table.path, row=int(table.lines[n]))
        unknown = is_sane[images] & (class_ids < 0)
        for n in np.flatnonzero(unknown) if is_challenge else ():
            log.add(rows.problem('unknown_class', n, f'unknown class {mids[codes[n]]!r}, expected '
                                 f'one of the {space.num_classes} MIDs of the class list'))
        found.append(rows.where(is_sane[images] & (class_ids >= 0)))
    return found


def _lean(table: CsvColumns) -> CsvColumns:
    """A table without the columns that are arrays by now; of full size they take a gigabyte."""
    kept = [name for name in table.table.column_names if name == 'MaskPath']
    return replace(table, table=table.table.select(kept), uneven_lines=table.lines)


def _check_sides(rows: _Rows, names: Sequence[str], log: ProblemLog) -> _Rows:
    """Leave out rows whose box is not inside 0..1."""
    boxes = rows.boxes
    inside = ((boxes >= 0) & (boxes <= 1)).all(axis=1)  # False for nan
    ordered = (boxes[:, 0] <= boxes[:, 1]) & (boxes[:, 2] <= boxes[:, 3])

    def message(n: int) -> str:
        shown = ', '.join(f'{name} {value}' for name, value in
                          zip(names, boxes[n].tolist(), strict=False))
        return f'box {"with its sides swapped" if inside[n] else "outside 0..1"}: {shown}'

    return rows.without(~(inside & ordered), 'box_outside_image', message, log)


def _check_boxes(rows: _Rows, log: ProblemLog) -> _Rows:
    """Leave out repeated boxes and flags that are none."""
    flags = rows.numbers[:, 4]
    rows = rows.without(~np.isin(flags, (-1, 0, 1)), 'broken_row',  # -1 is "nobody looked"
                        lambda n: f'IsGroupOf {flags[n]:g}, expected 0 or 1', log)
    sides = np.ascontiguousarray(rows.boxes).view(np.int64)
    rows = _without_repeats(rows, np.column_stack((rows.images, rows.class_ids, sides)),
                            rows.numbers[:, 4:] == 1, 'the same box with another IsGroupOf', log)
    boxes = rows.boxes
    flat = (boxes[:, 0] == boxes[:, 1]) | (boxes[:, 2] == boxes[:, 3])
    log.notes('box_without_area', int(flat.sum()), (
        rows.problem('box_without_area', n, f'box without area: {boxes[n].tolist()}')
        for n in np.flatnonzero(flat)))
    return rows


def _check_masks(rows: _Rows, log: ProblemLog) -> _Rows:
    """Leave out repeated masks."""
    codes = distinct(rows.table['MaskPath'].take(pa.array(rows.keep))).codes
    sides = np.ascontiguousarray(rows.boxes).view(np.int64)
    return _without_repeats(rows, codes[:, None],
                            np.column_stack((rows.images, rows.class_ids, sides)),
                            'the same mask file with another image, class or box', log)


def _check_labels(rows: _Rows, space: LabelSpace, is_challenge: bool, log: ProblemLog) -> _Rows:
    """Leave out repeated labels and values that are neither 0 nor 1.

    The full release gives a class several labels by different sources; any positive one counts.
    """
    values = rows.numbers[:, 0]
    rows = rows.without(~np.isin(values, (0, 1)), 'broken_row',
                        lambda n: f'Confidence {values[n]:g}, expected 0 or 1', log)
    keys = rows.keys(space.num_classes)
    if is_challenge:
        return _without_repeats(rows, keys[:, None], rows.numbers == 1,
                                'the same label with another Confidence', log)
    strongest = np.lexsort((-rows.numbers[:, 0], keys))
    fresh = np.zeros(len(keys), bool)
    fresh[strongest[np.diff(keys[strongest], prepend=-1) != 0]] = True
    return rows.where(fresh)


def _without_repeats(rows: _Rows, keys: np.ndarray, values: np.ndarray, contradiction: str,
                     log: ProblemLog) -> _Rows:
    """Leave out rows with the (R, K) int64 keys of an earlier one.

    Where the (R, V) values are the same as well that is a repetition, otherwise a contradiction;
    ``contradiction`` says of what.
    """
    first = _first_of_equal(keys)
    lines = rows.lines
    again = first != np.arange(len(first))
    differs = again & (values != values[first]).any(axis=1)
    agreeing = np.flatnonzero(again & ~differs)
    log.notes('repeated_row', len(agreeing), (
        rows.problem('repeated_row', n, f'says again what row {lines[first[n]]} says')
        for n in agreeing))
    for n in np.flatnonzero(differs).tolist():
        log.add(rows.problem('contradicting_row', n,
                             f'{contradiction} than row {lines[first[n]]}'))
    return rows.where(~again)


def _first_of_equal(columns: np.ndarray) -> np.ndarray:
    """For each row of (R, K) int64 the first row equal to it, (R,) int64."""
    mixed = np.zeros(len(columns), np.uint64)
    for column in columns.T:
        mixed = (mixed ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    order = np.argsort(mixed, kind='stable')
    same = np.zeros(len(columns), bool)
    same[1:] = ((mixed[order][1:] == mixed[order][:-1])
                & (columns[order][1:] == columns[order][:-1]).all(axis=1))
    starts = np.maximum.accumulate(np.where(same, 0, np.arange(len(columns))))
    first = np.empty(len(columns), np.int64)
    first[order] = order[starts]
    return first


def _of_used_images(parts: Sequence[_Rows]) -> list[_Rows]:
    """The same rows, with only those images that have any."""
    image_ids = np.asarray(parts[0].image_ids)
    used = np.zeros(len(image_ids), bool)
    for rows in parts:
        used[rows.images] = True
    kept, number = image_ids[used].tolist(), np.cumsum(used) - 1
    return [replace(rows, image_ids=kept, images=number[rows.images]) for rows in parts]


def _note_lone_masks(rows: _Rows, joined: np.ndarray, distances: np.ndarray,
                     log: ProblemLog) -> None:
    lone = np.flatnonzero(joined < 0)

    def message(n: int) -> str:
        name = rows.table['MaskPath'][int(rows.keep[n])].as_py()
        if np.isinf(distances[n]):
            return f'mask {name}: the image has no box of its class'
        return f'mask {name}: no free box of its class, the nearest is {distances[n]:.4g} away'

    log.notes('mask_without_box', len(lone), (
        rows.problem('mask_without_box', n, message(n)) for n in lone))


def _in_image_order(boxes: _Rows, masks: _Rows, labels: _Rows, joined: np.ndarray,
                    distances: np.ndarray, counts: dict[str, int]) -> Annotations:
    """Instances by image: the boxes in their order, then the masks without a box."""
    lone, paired = np.flatnonzero(joined < 0), np.flatnonzero(joined >= 0)
    mask_of_box = np.full(len(boxes.keep), -1, np.int64)
    mask_of_box[joined[paired]] = paired
    distance_of_box = np.full(len(boxes.keep), np.nan)
    distance_of_box[joined[paired]] = distances[paired]
    images = np.concatenate((boxes.images, masks.images[lone]))
    order = np.argsort(images, kind='stable')

    def merge(of_boxes: np.ndarray, of_masks: np.ndarray) -> np.ndarray:
        return np.concatenate((of_boxes, of_masks))[order]

    label_order = np.argsort(labels.images, kind='stable')
    names = masks.table['MaskPath'].take(pa.array(masks.keep))
    return Annotations(
        image_ids=boxes.image_ids, instance_offsets=_offsets(images, len(boxes.image_ids)),
        class_ids=merge(boxes.class_ids, masks.class_ids[lone]).astype(np.int16),
        boxes=merge(boxes.boxes, masks.boxes[lone]),
        is_group_of=merge(boxes.numbers[:, 4] == 1, np.zeros(len(lone), bool)),
        mask_rows=merge(mask_of_box, lone),
        join_distances=merge(distance_of_box, np.full(len(lone), np.nan)),
        box_lines=merge(boxes.lines, np.zeros(len(lone), np.int64)),
        mask_names=names.combine_chunks(), mask_lines=masks.lines,
        label_offsets=_offsets(labels.images, len(boxes.image_ids)),
        label_class_ids=labels.class_ids[label_order].astype(np.int16),
        label_present=labels.numbers[label_order, 0] == 1,
        label_lines=labels.lines[label_order], counts=counts)


def _offsets(images: np.ndarray, num_images: int) -> np.ndarray:
    """(num_images + 1,) int64, where each image's rows begin once they are sorted by image."""
    return np.concatenate(([0], np.cumsum(np.bincount(images, minlength=num_images)))
                          ).astype(np.int64)
