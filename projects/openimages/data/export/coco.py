"""A prepared index as COCO JSON, for any other framework.

Ids: image = index row + 1, category = class id + 1, annotation = instance + 1. ``bbox`` and
``area`` are the mask's. Group-of instances and boxes without a mask have ``iscrowd`` 1, which
trainers take as "neither object nor background"; a box without a mask keeps its box, and as its
segmentation a mask without pixels, since loaders insist on one.

Format: https://cocodataset.org/#format-data
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from projects.openimages.common.files import atomic_write
from projects.openimages.common.parallel import run_in_order
from projects.openimages.common.progress import progress
from projects.openimages.data.index import PreparedIndex
from projects.openimages.data.mask_files.polygons import mask_to_polygons
from projects.openimages.masks import compress_counts

_IMAGES_PER_TASK = 1000


@dataclass(frozen=True)
class PolygonQuality:
    """How well the polygons of a split show its masks.

    Attributes:
        tolerance: pixels by which an outline may leave its mask.
        masks: number of masks.
        mean_iou, least_iou: of polygon and mask; nan without masks.
        as_rle: masks of which nothing is left as a polygon, kept as RLE.
    """

    tolerance: float
    masks: int
    mean_iou: float
    least_iou: float
    as_rle: int


def write_coco(path: str | os.PathLike, index_path: str | os.PathLike, *,
               polygon_tolerance: float | None = None,
               workers: int = 1) -> PolygonQuality | None:
    """Write the JSON.

    Args:
        path: the file to write.
        index_path: the prepared index.
        polygon_tolerance: write masks as polygons that leave the outline by at most so many
            pixels; None for compressed RLE.
        workers: processes.
    """
    index = PreparedIndex.open(index_path)
    space = index.label_space
    categories = [{'id': class_id + 1, 'name': name, 'mid': mid} for class_id, (mid, name)
                  in enumerate(zip(space.mids, space.names, strict=True))]
    ious: list[np.ndarray] = []
    batches = -(-index.num_images // _IMAGES_PER_TASK)
    with atomic_write(path) as file:
        info = {'description': f'Open Images, prepared, {index.split}'}
        file.write(f'{{"info": {json.dumps(info)},\n"licenses": [],\n"categories": '
                   f'{json.dumps(categories, ensure_ascii=False)},\n"images": [')
        for row in range(index.num_images):
            file.write((',\n' if row else '\n') + _image_json(index, row))
        file.write('],\n"annotations": [')
        separator = '\n'
        tasks = _tasks(os.fspath(index_path), index.num_images, polygon_tolerance)
        results = run_in_order(_annotations_json, tasks, workers, batches)
        for text, quality in progress(results, total=batches, desc='coco.json', unit='batch'):
            if text:
                file.write(separator + text)
                separator = ',\n'
            ious.append(quality)
        file.write(']}\n')
    return None if polygon_tolerance is None else _summary(np.concatenate([np.zeros(0), *ious]),
                                                           polygon_tolerance)


def _summary(ious: np.ndarray, tolerance: float) -> PolygonQuality:
    """``ious`` holds -1 where the mask stayed RLE."""
    drawn = ious[ious >= 0]
    return PolygonQuality(tolerance, len(ious), float(drawn.mean()) if len(drawn) else float('nan'),
                          float(drawn.min()) if len(drawn) else float('nan'),
                          len(ious) - len(drawn))


def _tasks(index_path: str, num_images: int,
           tolerance: float | None) -> Iterator[tuple[str, int, int, float | None]]:
    for start in range(0, num_images, _IMAGES_PER_TASK):
        yield index_path, start, min(start + _IMAGES_PER_TASK, num_images), tolerance


def _image_json(index: PreparedIndex, row: int) -> str:
    image_id = index.image_ids[row]
    return (f'{{"id": {row + 1}, "file_name": "{image_id}.jpg", '
            f'"width": {index.widths[row]}, "height": {index.heights[row]}}}')


def _annotations_json(task: tuple[str, int, int, float | None]) -> tuple[str, np.ndarray]:
    """The annotations of a range of images, and each mask's IoU with its polygon."""
    index_path, start, stop, tolerance = task
    index = PreparedIndex.open(index_path)  # anew, so that pages read before are let go of
    lines: list[str] = []
    ious: list[float] = []
    for row in range(start, stop):
        rows = index.instance_rows(row)
        columns = (index.class_ids, index.boxes, index.is_group_of, index.mask_area,
                   index.mask_box)
        size = [int(index.heights[row]), int(index.widths[row])]
        for n, rle, class_id, box, group_of, area, mask_box in zip(
                range(rows.start, rows.stop), index.masks(row),
                *(column[rows].tolist() for column in columns), strict=True):
            if rle is None:
                bbox = _box_in_pixels(box, *size)
                area = bbox[2] * bbox[3]
                shape = _rle_json(size, _counts_without_pixels(size[0] * size[1]))
            else:
                bbox = mask_box
                shape = _rle_json(size, rle['counts'])
                if tolerance is not None:
                    polygons, iou = mask_to_polygons(rle, tolerance)
                    ious.append(iou)
                    shape = json.dumps(polygons) if polygons else shape
            crowd = int(group_of or rle is None)
            lines.append(f'{{"id": {n + 1}, "image_id": {row + 1}, "category_id": {class_id + 1}, '
                         f'"iscrowd": {crowd}, "area": {area}, "bbox": {bbox}, '
                         f'"segmentation": {shape}}}')
    return ',\n'.join(lines), np.array(ious, float)


def _rle_json(size: list[int], counts: bytes) -> str:
    return f'{{"size": {size}, "counts": {json.dumps(counts.decode("ascii"))}}}'


@lru_cache(maxsize=4096)
def _counts_without_pixels(pixels: int) -> bytes:
    return compress_counts(np.array([pixels]))


def _box_in_pixels(box: list[float], height: int, width: int) -> list[float]:
    """XMin, XMax, YMin, YMax in 0..1 to x, y, w, h in pixels."""
    left, right, top, bottom = box[0] * width, box[1] * width, box[2] * height, box[3] * height
    return [left, top, right - left, bottom - top]
