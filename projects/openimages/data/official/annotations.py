"""The official CSVs of one split as flat arrays, checked, joined and in order.

In: the boxes, labels and masks CSVs. Out: :class:`Annotations`: images by ascending id, each with
its instances in the order of the boxes CSV (then the masks that have no box), each instance with
the row of its mask, if it has one, and its verified labels.

Everything here is by column: the full training split has 2.8M boxes, 2.1M masks and 6M labels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from projects.openimages.data.official.joining import join_boxes
from projects.openimages.data.layout import SplitFiles
from projects.openimages.data.problems import Problem, ProblemLog
from projects.openimages.data.official.tables import Names, Table, read_table
from projects.openimages.labels import LabelSpace

_SIDES = ('XMin', 'XMax', 'YMin', 'YMax')
_BOX_COLUMNS = {'ImageID': 'name', 'LabelName': 'name', 'IsGroupOf': 'number',
                **dict.fromkeys(_SIDES, 'number')}
_MASK_SIDES = tuple(f'Box{side}' for side in _SIDES)
_MASK_COLUMNS = {'MaskPath': 'text', 'ImageID': 'name', 'LabelName': 'name',
                 **dict.fromkeys(_MASK_SIDES, 'number')}
_LABEL_COLUMNS = {'ImageID': 'name', 'LabelName': 'name', 'Confidence': 'number'}
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


@dataclass
class _Rows:
    """The good rows of one CSV, R of them.

    Attributes:
        images: (R,) int64 row of the image.
        class_ids: (R,) int64.
        lines: (R,) int64 in the CSV.
        keep: (R,) int64 positions in the table.
    """

    images: np.ndarray
    class_ids: np.ndarray
    lines: np.ndarray
    keep: np.ndarray

    def where(self, good: np.ndarray) -> _Rows:
        return _Rows(self.images[good], self.class_ids[good], self.lines[good], self.keep[good])

    def keys(self, num_classes: int) -> np.ndarray:
        """(R,) int64, equal where image and class are equal."""
        return self.images * num_classes + self.class_ids


def annotations_without_rows(image_ids: Sequence[str]) -> Annotations:
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
    boxes = read_table(files.boxes, _BOX_COLUMNS, log)
    masks = read_table(files.masks, _MASK_COLUMNS, log)
    labels = read_table(files.labels, _LABEL_COLUMNS, log) if files.labels else None
    tables = [table for table in (boxes, masks, labels) if table is not None]
    image_ids, image_codes = _intern_images(tables)
    rows = [_good_rows(table, codes, space, files.is_challenge, log)
            for table, codes in zip(tables, image_codes, strict=True)]
    counts = {f'{name}_rows': len(table) for name, table in
              (('box', boxes), ('mask', masks), ('label', labels)) if table is not None}
    counts['rows_of_other_classes'] = sum(map(len, tables)) - sum(len(r.keep) for r in rows)
    box_rows, box_sides = _check_boxes(boxes, rows[0], _SIDES, log)
    box_rows, box_sides, group_of = _check_box_rows(boxes, box_rows, box_sides, log)
    mask_rows, mask_sides = _check_boxes(masks, rows[1], _MASK_SIDES, log)
    mask_rows, mask_sides = _drop_repeated_masks(masks, mask_rows, mask_sides, log)
    label_rows = _check_labels(labels, rows[2], space, files.is_challenge, log) if labels else None
    used = [r.images for r in (box_rows, mask_rows, label_rows[0] if label_rows else None)
            if r is not None]
    image_ids, renumber = _used_images(image_ids, used)
    for part in (box_rows, mask_rows, *([label_rows[0]] if label_rows else [])):
        part.images = renumber[part.images]
    joined, distances = join_boxes(mask_rows.keys(space.num_classes), mask_sides,
                                   box_rows.keys(space.num_classes), box_sides)
    _report_lone_masks(masks, mask_rows, joined, distances, image_ids, log)
    return _assemble(image_ids, (box_rows, box_sides, group_of), (mask_rows, mask_sides),
                     joined, distances, label_rows, masks, counts)


def _intern_images(tables: list[Table]) -> tuple[np.ndarray, list[np.ndarray]]:
    """All image ids, ascending, and each table's codes into them."""
    parts = [np.array(table['ImageID'].values or [''], object) for table in tables]
    image_ids, inverse = np.unique(np.concatenate(parts), return_inverse=True)
    starts = np.cumsum([0, *map(len, parts)])
    codes = [inverse[starts[n]:starts[n + 1]][table['ImageID'].codes]
             for n, table in enumerate(tables)]
    return image_ids, codes


def _used_images(image_ids: np.ndarray, used: list[np.ndarray]) -> tuple[list[str], np.ndarray]:
    """The images that have a row left, and the new row of every old one."""
    present = np.zeros(len(image_ids), bool)
    for images in used:
        present[images] = True
    return image_ids[present].tolist(), np.cumsum(present) - 1


def _good_rows(table: Table, images: np.ndarray, space: LabelSpace, is_challenge: bool,
               log: ProblemLog) -> _Rows:
    """Rows of a known class and a sane image id."""
    labels: Names = table['LabelName']
    ids: Names = table['ImageID']
    by_label = np.array([space.ids.get(mid, -1) for mid in labels.values] or [-1], np.int64)
    class_ids = by_label[labels.codes]
    sane = np.array([_IMAGE_ID.fullmatch(name) is not None for name in ids.values] or [False])
    good_id = sane[ids.codes]
    for n in np.flatnonzero(~good_id):
        log.bad('broken_row', f'image id {ids.values[ids.codes[n]]!r} is not letters and digits',
                path=table.path, row=int(table.lines[n]))
    if is_challenge:
        for n in np.flatnonzero(good_id & (class_ids < 0)):
            log.bad('unknown_class', f'unknown class {labels.values[labels.codes[n]]!r}, expected '
                    f'one of the {space.num_classes} MIDs of the class list', path=table.path,
                    row=int(table.lines[n]), image_id=ids.values[ids.codes[n]])
    keep = np.flatnonzero(good_id & (class_ids >= 0))
    return _Rows(images[keep], class_ids[keep], table.lines[keep], keep)


def _check_boxes(table: Table, rows: _Rows, sides: tuple[str, ...],
                 log: ProblemLog) -> tuple[_Rows, np.ndarray]:
    """Leave out rows whose box is not inside 0..1; returns also the boxes, (R, 4)."""
    boxes = table.numbers(*sides)[rows.keep]
    inside = ((boxes >= 0) & (boxes <= 1)).all(axis=1)  # False for nan
    ordered = (boxes[:, 0] <= boxes[:, 1]) & (boxes[:, 2] <= boxes[:, 3])
    good = inside & ordered
    for n in np.flatnonzero(~good):
        shown = ', '.join(f'{side} {value}' for side, value in
                          zip(sides, boxes[n].tolist(), strict=True))
        reason = 'with its sides swapped' if inside[n] else 'outside 0..1'
        log.bad('box_outside_image', f'box {reason}: {shown}', path=table.path,
                row=int(rows.lines[n]), image_id=_image_id(table, rows.keep[n]))
    return rows.where(good), boxes[good]


def _check_box_rows(table: Table, rows: _Rows, boxes: np.ndarray, log: ProblemLog
                    ) -> tuple[_Rows, np.ndarray, np.ndarray]:
    """Leave out repeated boxes and flags that are none; returns also IsGroupOf, (R,) bool."""
    flags = table['IsGroupOf'][rows.keep]
    legal = np.isin(flags, (-1, 0, 1))  # the full release has -1 for "nobody looked"
    for n in np.flatnonzero(~legal):
        log.bad('broken_row', f'IsGroupOf {flags[n]:g}, expected 0 or 1', path=table.path,
                row=int(rows.lines[n]), image_id=_image_id(table, rows.keep[n]))
    rows, boxes, flags = rows.where(legal), boxes[legal], flags[legal]
    first = _first_of_equal(np.column_stack((rows.images, rows.class_ids, boxes.view(np.int64))))
    fresh = _report_repeats(table, rows, first, log)
    rows, boxes, flags = rows.where(fresh), boxes[fresh], flags[fresh]
    flat = (boxes[:, 0] == boxes[:, 1]) | (boxes[:, 2] == boxes[:, 3])
    log.notes('box_without_area', int(flat.sum()), (
        Problem('box_without_area', f'box without area: {boxes[n].tolist()}', table.path,
                int(rows.lines[n]), _image_id(table, rows.keep[n]))
        for n in np.flatnonzero(flat)))
    return rows, boxes, flags == 1


def _drop_repeated_masks(table: Table, rows: _Rows, boxes: np.ndarray,
                         log: ProblemLog) -> tuple[_Rows, np.ndarray]:
    codes = table['MaskPath'].take(pa.array(rows.keep)).dictionary_encode().indices.to_numpy()
    fresh = _report_repeats(table, rows, _first_of_equal(codes[:, None].astype(np.int64)), log)
    return rows.where(fresh), boxes[fresh]


def _check_labels(table: Table, rows: _Rows, space: LabelSpace, is_challenge: bool,
                  log: ProblemLog) -> tuple[_Rows, np.ndarray]:
    """Leave out repeated labels and values that are neither 0 nor 1; also (R,) bool present.

    The full release gives a class several labels by different sources; any positive one counts.
    """
    values = table['Confidence'][rows.keep]
    legal = np.isin(values, (0, 1))
    for n in np.flatnonzero(~legal):
        log.bad('broken_row', f'Confidence {values[n]:g}, expected 0 or 1', path=table.path,
                row=int(rows.lines[n]), image_id=_image_id(table, rows.keep[n]))
    rows, present = rows.where(legal), values[legal] == 1
    if is_challenge:
        first = _first_of_equal(rows.keys(space.num_classes)[:, None])
        fresh = _report_repeats(table, rows, first, log)
    else:
        strongest = np.lexsort((~present, rows.keys(space.num_classes)))
        keys = rows.keys(space.num_classes)[strongest]
        fresh = np.zeros(len(keys), bool)
        fresh[strongest[np.diff(keys, prepend=-1) != 0]] = True
    return rows.where(fresh), present[fresh]


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


def _report_repeats(table: Table, rows: _Rows, first: np.ndarray, log: ProblemLog) -> np.ndarray:
    """(R,) bool: the rows that do not repeat an earlier one."""
    fresh = first == np.arange(len(first))
    for n in np.flatnonzero(~fresh):
        log.bad('duplicate_row', f'says again what row {rows.lines[first[n]]} says',
                path=table.path, row=int(rows.lines[n]),
                image_id=_image_id(table, rows.keep[n]))
    return fresh


def _image_id(table: Table, position: int) -> str:
    ids: Names = table['ImageID']
    return ids.values[ids.codes[position]]


def _report_lone_masks(table: Table, rows: _Rows, joined: np.ndarray, distances: np.ndarray,
                       image_ids: list[str], log: ProblemLog) -> None:
    lone = np.flatnonzero(joined < 0)

    def message(n: int) -> str:
        name = table['MaskPath'][rows.keep[n]].as_py()
        if np.isinf(distances[n]):
            return f'mask {name}: the image has no box of its class'
        return f'mask {name}: no free box of its class, the nearest is {distances[n]:.4g} away'

    log.notes('mask_without_box', len(lone), (
        Problem('mask_without_box', message(n), table.path, int(rows.lines[n]),
                image_ids[rows.images[n]]) for n in lone))


def _assemble(image_ids: list[str], boxes: tuple[_Rows, np.ndarray, np.ndarray],
              masks: tuple[_Rows, np.ndarray], joined: np.ndarray, distances: np.ndarray,
              labels: tuple[_Rows, np.ndarray] | None, mask_table: Table,
              counts: dict[str, int]) -> Annotations:
    """Instances by image: the boxes in their order, then the masks without a box."""
    box_rows, box_sides, group_of = boxes
    mask_rows, mask_sides = masks
    lone, paired = np.flatnonzero(joined < 0), np.flatnonzero(joined >= 0)
    mask_of_box = np.full(len(box_rows.keep), -1, np.int64)
    mask_of_box[joined[paired]] = paired
    distance_of_box = np.full(len(box_rows.keep), np.nan)
    distance_of_box[joined[paired]] = distances[paired]
    images = np.concatenate((box_rows.images, mask_rows.images[lone]))
    order = np.argsort(images, kind='stable')
    offsets = _offsets(images, len(image_ids))

    def merge(of_boxes: np.ndarray, of_masks: np.ndarray) -> np.ndarray:
        return np.concatenate((of_boxes, of_masks))[order]

    label_order = np.argsort(labels[0].images, kind='stable') if labels else np.zeros(0, np.int64)
    label_images = labels[0].images if labels else label_order
    label_classes = labels[0].class_ids if labels else label_order
    label_present = labels[1] if labels else label_order.astype(bool)
    label_lines = labels[0].lines if labels else label_order
    return Annotations(
        image_ids=image_ids, instance_offsets=offsets,
        class_ids=merge(box_rows.class_ids, mask_rows.class_ids[lone]).astype(np.int16),
        boxes=merge(box_sides, mask_sides[lone]),
        is_group_of=merge(group_of, np.zeros(len(lone), bool)),
        mask_rows=merge(mask_of_box, lone),
        join_distances=merge(distance_of_box, np.full(len(lone), np.nan)),
        box_lines=merge(box_rows.lines, np.zeros(len(lone), np.int64)),
        mask_names=mask_table['MaskPath'].take(pa.array(mask_rows.keep)),
        mask_lines=mask_rows.lines,
        label_offsets=_offsets(label_images, len(image_ids)),
        label_class_ids=label_classes[label_order].astype(np.int16),
        label_present=label_present[label_order], label_lines=label_lines[label_order],
        counts=counts)


def _offsets(images: np.ndarray, num_images: int) -> np.ndarray:
    """(num_images + 1,) int64, where each image's rows begin once they are sorted by image."""
    return np.concatenate(([0], np.cumsum(np.bincount(images, minlength=num_images)))
                          ).astype(np.int64)
