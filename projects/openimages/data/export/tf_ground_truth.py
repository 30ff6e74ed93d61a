"""A prepared index as ground truth for the TF Object Detection API's challenge evaluator.

Three CSVs, expanded over the hierarchy, and ``label_map.pbtxt``, so that
``oid_challenge_evaluation.py`` runs on them as they are. The evaluator joins boxes and masks by
the text of the box, so both files write it alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from projects.openimages.common.files import atomic_write
from projects.openimages.common.parallel import run_in_order
from projects.openimages.common.progress import progress
from projects.openimages.data.index import PreparedIndex
from projects.openimages.labels import write_label_map
from projects.openimages.masks import encode_text

BOXES, LABELS, SEGMENTATIONS = 'tf_boxes.csv', 'tf_labels.csv', 'tf_segmentations.csv'
LABEL_MAP = 'label_map.pbtxt'
_HEADERS = {
    BOXES: 'ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\n',
    LABELS: 'ImageID,LabelName,Confidence\n',
    SEGMENTATIONS: 'ImageID,LabelName,ImageWidth,ImageHeight,XMin,XMax,YMin,YMax,IsGroupOf,Mask\n',
}
_IMAGES_PER_TASK = 1000


def write_tf_ground_truth(folder: str | os.PathLike, index_path: str | os.PathLike, *,
                          workers: int = 1) -> None:
    """Write the three CSVs and the label map of a prepared index into a folder."""
    index = PreparedIndex.open(index_path)
    tasks = _tasks(os.fspath(index_path), index.num_images)
    batches = -(-index.num_images // _IMAGES_PER_TASK)
    with ExitStack() as stack:
        files = [stack.enter_context(atomic_write(Path(folder) / name)) for name in _HEADERS]
        for file, header in zip(files, _HEADERS.values(), strict=True):
            file.write(header)
        for texts in progress(run_in_order(_rows, tasks, workers, batches), total=batches,
                              desc='TF ground truth', unit='batch'):
            for file, text in zip(files, texts, strict=True):
                file.write(text)
    write_label_map(Path(folder) / LABEL_MAP, index.label_space)


def _tasks(index_path: str, num_images: int) -> Iterator[tuple[str, int, int]]:
    for start in range(0, num_images, _IMAGES_PER_TASK):
        yield index_path, start, min(start + _IMAGES_PER_TASK, num_images)


def _rows(task: tuple[str, int, int]) -> tuple[str, str, str]:
    """The rows of a range of images, for each file in the order of ``_HEADERS``."""
    index_path, start, stop = task
    index = PreparedIndex.open(index_path)  # anew, so that pages read before are let go of
    boxes: list[str] = []
    masks: list[str] = []
    for row in range(start, stop):
        _add_instances(index, row, boxes, masks)
    return ''.join(boxes), ''.join(_label_rows(index, start, stop)), ''.join(masks)


def _add_instances(index: PreparedIndex, row: int, boxes: list[str], masks: list[str]) -> None:
    rows = index.instance_rows(row)
    mids = index.label_space.mids
    image_id = index.image_ids[row]
    size = f'{index.widths[row]},{index.heights[row]}'
    box_texts = [f'{",".join(map(repr, box))},{int(group_of)}' for box, group_of in
                 zip(index.boxes[rows].tolist(), index.is_group_of[rows].tolist(), strict=True)]
    mask_texts = [encode_text(rle['counts']) if rle else None for rle in index.masks(row)]
    instances, class_ids = index.label_space.expand_instances(index.class_ids[rows])
    for instance, class_id in zip(instances.tolist(), class_ids.tolist(), strict=True):
        box = box_texts[instance]
        boxes.append(f'{image_id},{mids[class_id]},{box}\n')
        if mask_texts[instance]:
            masks.append(f'{image_id},{mids[class_id]},{size},{box},{mask_texts[instance]}\n')


def _label_rows(index: PreparedIndex, start: int, stop: int) -> Iterator[str]:
    """Expanded labels; where a label and an expanded one meet, present goes before absent."""
    space = index.label_space
    rows = slice(index.label_offsets[start], index.label_offsets[stop])
    images = np.repeat(np.arange(start, stop), np.diff(index.label_offsets[start:stop + 1]))
    present = index.label_present[rows]
    sources, class_ids = space.expand_labels(index.label_class_ids[rows], present)
    keys = images[sources] * space.num_classes + class_ids
    order = np.lexsort((~present[sources], keys))
    order = order[np.diff(keys[order], prepend=-1) != 0]
    for image, class_id, sign in zip(images[sources][order].tolist(), class_ids[order].tolist(),
                                     present[sources][order].tolist(), strict=True):
        yield f'{index.image_ids[image]},{space.mids[class_id]},{int(sign)}\n'
