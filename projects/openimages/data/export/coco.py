"""A prepared index as COCO JSON, for any other framework.

Ids: image = :func:`coco_image_id` of its ImageID, category = class id + 1, annotation = instance
+ 1. ``bbox`` and ``area`` are the mask's. Group-of instances and boxes without a mask have
``iscrowd`` 1, which trainers take as "neither object nor background" and the COCO metric as a place
where detections are ignored; a box without a mask has its box, filled, as segmentation, so that a
detection of the object in it lies inside. Group-of instances say so by ``IsGroupOf``, FiftyOne's
name for it.

Verified labels are in the images, as LVIS has them: ``neg_category_ids`` are verified absent,
``pos_category_ids`` present, and ``not_exhaustive_category_ids`` are those present of which not
each object has a mask. They are not expanded over the hierarchy.

Formats: https://cocodataset.org/#format-data and https://www.lvisdataset.org/dataset
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import atomic_write
from projects.openimages.common.parallel import run_in_order
from projects.openimages.common.progress import progress
from projects.openimages.data.index import PreparedIndex
from projects.openimages.data.mask_files.polygons import mask_to_polygons
from projects.openimages.masks import rle_from_edges

_IMAGES_PER_TASK = 1000
_ID_BITS = 53


def coco_image_id(image_id: str) -> int:
    """The image's number in ``coco.json``, the same in every split, release and choice of classes.

    53 bits of a hash of the ImageID, which JSON readers that compute in float64 keep as well. (The
    ImageID itself, 16 hexadecimal digits, is too large for them, and for int64.)

    Example:
        >>> coco_image_id('0001eeaf4aed83f9')
        7088850023488201
    """
    digest = hashlib.blake2b(image_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'big') >> (64 - _ID_BITS)


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


def write_coco(path: str | os.PathLike, index_path: str | os.PathLike,
               file_name: Callable[[str], str] = '{}.jpg'.format, *,
               polygon_tolerance: float | None = None,
               workers: int = 1) -> PolygonQuality | None:
    """Write the JSON.

    Args:
        path: the file to write.
        index_path: the prepared index.
        file_name: of an ImageID.
        polygon_tolerance: write masks as polygons that leave the outline by at most so many
            pixels; None for compressed RLE.
        workers: processes.

    Raises:
        UserError: two images have the same :func:`coco_image_id`; one in 20,000 data sets of a
            million images has such a pair.
    """
    index = PreparedIndex.open(index_path)
    _check_ids(index)
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
            file.write((',\n' if row else '\n') + _image_json(index, row, file_name))
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


def _check_ids(index: PreparedIndex) -> None:
    ids = np.array([coco_image_id(image_id) for image_id in index.image_ids], np.int64)
    order = np.argsort(ids)
    same = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(same):
        first, second = (index.image_ids[int(order[same[0] + n])] for n in (0, 1))
        raise UserError(f'the images {first} and {second} would get the same id in coco.json; '
                        '--no-coco prepares without it')


def _image_json(index: PreparedIndex, row: int, file_name: Callable[[str], str]) -> str:
    image_id = index.image_ids[row]
    labels, instances = index.label_rows(row), index.instance_rows(row)
    class_ids = (index.label_class_ids[labels] + 1).tolist()
    present = {c for c, sign in zip(class_ids, index.label_present[labels].tolist(), strict=True)
               if sign}
    boxed = (index.class_ids[instances] + 1).tolist()
    without_mask = {c for c, group_of, has_mask in zip(
        boxed, index.is_group_of[instances].tolist(), index.has_mask[instances].tolist(),
        strict=True) if group_of or not has_mask}
    lists = {'neg': set(class_ids) - present, 'pos': present,
             'not_exhaustive': without_mask | (present - set(boxed))}
    texts = ', '.join(f'"{name}_category_ids": {sorted(ids)}' for name, ids in lists.items())
    return (f'{{"id": {coco_image_id(image_id)}, "file_name": {json.dumps(file_name(image_id))}, '
            f'"width": {index.widths[row]}, "height": {index.heights[row]}, {texts}}}')


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
        image_number = coco_image_id(index.image_ids[row])
        for n, rle, class_id, box, group_of, area, mask_box in zip(
                range(rows.start, rows.stop), index.masks(row),
                *(column[rows].tolist() for column in columns), strict=True):
            if rle is None:
                bbox = _box_in_pixels(box, *size)
                area = bbox[2] * bbox[3]
                shape = _rle_json(size, _filled(bbox, *size))
            else:
                bbox = mask_box
                shape = _rle_json(size, rle['counts'])
                if tolerance is not None:
                    polygons, iou = mask_to_polygons(rle, tolerance)
                    ious.append(iou)
                    shape = json.dumps(polygons) if polygons else shape
            crowd = int(group_of or rle is None)
            group = '"IsGroupOf": true, ' if group_of else ''
            lines.append(f'{{"id": {n + 1}, "image_id": {image_number}, '
                         f'"category_id": {class_id + 1}, "iscrowd": {crowd}, {group}'
                         f'"area": {area}, "bbox": {bbox}, "segmentation": {shape}}}')
    return ',\n'.join(lines), np.array(ious, float)


def _rle_json(size: list[int], counts: bytes) -> str:
    return f'{{"size": {size}, "counts": {json.dumps(counts.decode("ascii"))}}}'


def _filled(bbox: list[float], height: int, width: int) -> bytes:
    """Counts of all pixels that a box x, y, w, h touches."""
    left, top = int(min(bbox[0], width - 1)), int(min(bbox[1], height - 1))
    right = max(left + 1, min(math.ceil(bbox[0] + bbox[2]), width))
    bottom = max(top + 1, min(math.ceil(bbox[1] + bbox[3]), height))
    columns = np.arange(left, right, dtype=np.int64) * height
    edges = np.stack((columns + top, columns + bottom), axis=1).reshape(-1)
    return rle_from_edges(edges, height, width)['counts']


def _box_in_pixels(box: list[float], height: int, width: int) -> list[float]:
    """XMin, XMax, YMin, YMax in 0..1 to x, y, w, h in pixels."""
    left, right, top, bottom = box[0] * width, box[1] * width, box[2] * height, box[3] * height
    return [left, top, right - left, bottom - top]
