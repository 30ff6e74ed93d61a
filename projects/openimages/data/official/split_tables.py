"""The three CSVs of a split as tables, without the rows that are of no use.

In: where they are, and the classes in use. Out: boxes, masks and labels with the columns that are
needed. Of the full release there are neither boxes of other classes nor labels of other images
among them, which are many times as many; those are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from projects.openimages.common.csv_files import CsvColumns
from projects.openimages.data.layout import SplitFiles
from projects.openimages.data.official.tables import read_table
from projects.openimages.data.problems import ProblemLog
from projects.openimages.labels import LabelSpace

_NAMES = {'ImageID': 'name', 'LabelName': 'name'}
BOX_NUMBERS = ('XMin', 'XMax', 'YMin', 'YMax', 'IsGroupOf')
MASK_NUMBERS = ('BoxXMin', 'BoxXMax', 'BoxYMin', 'BoxYMax')
LABEL_NUMBERS = ('Confidence',)


def read_split_tables(files: SplitFiles, space: LabelSpace, log: ProblemLog
                      ) -> tuple[CsvColumns, CsvColumns, CsvColumns, Counter[str]]:
    """Read them.

    Args:
        files: where they are; without a labels CSV its table is empty.
        space: the classes in use.
        log: gets every row that cannot be read.

    Returns:
        Boxes, masks and labels, and how many rows each CSV has and how many were of no use.
    """
    assert files.masks  # find_split sees to it, and to the boxes
    masks = _read(files.masks, MASK_NUMBERS, log, MaskPath='text')
    boxes, labels, counts = _read_boxes_and_labels(files, space, masks, log)
    counts['mask_rows'] = len(masks)
    return boxes, masks, labels, counts


def _read(path: Path, numbers: tuple[str, ...], log: ProblemLog, *,
          keep: Callable[[pa.Table], pa.ChunkedArray] | None = None,
          **others: str) -> CsvColumns:
    return read_table(path, {**_NAMES, **dict.fromkeys(numbers, 'number'), **others}, log,
                      needs_line_end=True, keep=keep)


def _read_boxes_and_labels(files: SplitFiles, space: LabelSpace, masks: CsvColumns,
                           log: ProblemLog) -> tuple[CsvColumns, CsvColumns, Counter[str]]:
    """The boxes and labels that can be of use, and how many rows were read.

    The challenge's are of its own classes and images. The full release has boxes of classes without
    masks, and labels of nine million images and 20,000 classes: only what is of the classes in use
    is kept, and of labels what is about an image with a box or a mask of them.
    """
    assert files.boxes
    counts: Counter[str] = Counter(rows_of_other_classes=0)
    if files.is_challenge:
        boxes, labels = _read(files.boxes, BOX_NUMBERS, log), _NO_LABELS
        counts['box_rows'] = len(boxes)
        if files.labels:
            labels = _read(files.labels, LABEL_NUMBERS, log)
            counts['label_rows'] = len(labels)
        return boxes, labels, counts
    mids = pa.array(space.mids, pa.string())

    def keep(kind: str, image_ids: pa.Array | None, rows: pa.Table) -> pa.ChunkedArray:
        counts[f'{kind}_rows'] += len(rows)
        kept = pc.is_in(rows['LabelName'], value_set=mids)
        if image_ids is not None:
            of_images = pc.is_in(rows['ImageID'], value_set=image_ids)
            counts['rows_of_other_images'] += len(rows) - (pc.sum(of_images).as_py() or 0)
            counts['rows_of_other_classes'] += pc.sum(pc.and_not(of_images, kept)).as_py() or 0
            return pc.and_(kept, of_images)
        counts['rows_of_other_classes'] += len(rows) - (pc.sum(kept).as_py() or 0)
        return kept

    boxes = _read(files.boxes, BOX_NUMBERS, log, keep=partial(keep, 'box', None))
    if files.labels is None:
        return boxes, _NO_LABELS, counts
    image_ids = pa.chunked_array([chunk for table in (boxes, masks) for chunk in
                                  table['ImageID'].cast(pa.string()).chunks], pa.string()).unique()
    labels = _read(files.labels, LABEL_NUMBERS, log, keep=partial(keep, 'label', image_ids))
    return boxes, labels, counts


_NO_LABELS = CsvColumns('', pa.table({name: pa.array([], pa.string()) for name in _NAMES}
                                     | {name: pa.array([], pa.float64())
                                        for name in LABEL_NUMBERS}))
