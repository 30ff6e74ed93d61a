"""A submission as COCO results, and back.

COCO results are a JSON list, an object a detection: ``image_id``, ``category_id``, ``bbox`` (x, y,
width, height in pixels, tight around the mask), ``score`` and ``segmentation``, an RLE. The ids are
those of the split's ``coco.json``, so pycocotools, FiftyOne and others read both together; names
are those of the prepared index.

Format: https://cocodataset.org/#format-results
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from pycocotools import mask as coco_mask

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import atomic_write, open_regular, refuse_to_overwrite
from projects.openimages.common.progress import progress
from projects.openimages.data.export.coco import coco_image_id
from projects.openimages.data.index import PreparedIndex
from projects.openimages.masks import Rle, bbox, check_sizes, encode_text
from projects.openimages.metric import measure
from projects.openimages.submissions.formats import (
    Detection,
    ImageDetections,
    Submission,
    parse_score,
    scores_and_masks,
    write_submission,
)

COCO = 'coco'


class Written(NamedTuple):
    """How many images and detections were written, and how many images without detections."""

    images: int
    detections: int
    empty: int


def is_coco_results(path: str | os.PathLike) -> bool:
    """Whether a file begins as a JSON list does."""
    try:
        with open_regular(path) as file:
            return file.read(64).lstrip()[:1] == b'['
    except FileNotFoundError:
        raise UserError('no such file', path=path) from None


# ------------------------------------------------------------------------------- to COCO results

def write_coco_results(source: str | os.PathLike, out: str | os.PathLike,
                       index: PreparedIndex) -> Written:
    """Write a submission as COCO results, detections in the file's order.

    Args:
        source: a CSV of either format.
        out: the JSON to write.
        index: the split that the submission is for.

    Raises:
        UserError: a broken row, score or mask, a class or an image that the index does not have,
            or ``out`` is ``source``.
    """
    refuse_to_overwrite(out, source, index.path)
    detections = empty = 0
    with Submission(source) as submission, atomic_write(out) as file:
        separator = '[\n'
        for image in progress(submission, total=len(submission), desc='convert', unit='img'):
            empty += not image.detections
            detections += len(image.detections)
            for line in _lines(image, index, submission.path):
                file.write(separator + line)
                separator = ',\n'
        file.write('\n]\n' if detections else '[]\n')
        return Written(len(submission), detections, empty)


def _lines(image: ImageDetections, index: PreparedIndex, path: str) -> Iterator[str]:
    """A JSON object for each of the image's detections."""
    scores, masks = scores_and_masks(image, path)
    ids = index.label_space.ids
    try:
        row = index.find(image.image_id)
        if (image.width, image.height) != (index.widths[row], index.heights[row]):
            raise ValueError(f'{image.width}x{image.height}, but {index.widths[row]}x'
                            f'{index.heights[row]} in {index.path}')
        for detection in image.detections:
            if detection.mid not in ids:
                raise ValueError(f'unknown class {reprlib.repr(detection.mid)}')
        rles = cast(list[Rle], measure(masks).rles)
    except (ValueError, UserError) as error:  # MaskError is a ValueError
        raise UserError(f'image {image.image_id}: {error}', path=path, row=image.row) from None
    boxes = bbox(rles).tolist() if rles else []
    for detection, score, mask, box in zip(image.detections, scores.tolist(), rles, boxes,
                                           strict=True):
        yield json.dumps({
            'image_id': coco_image_id(image.image_id), 'category_id': ids[detection.mid] + 1,
            'bbox': box, 'score': score,
            'segmentation': {'size': mask['size'], 'counts': mask['counts'].decode('ascii')}})


# ----------------------------------------------------------------------------- from COCO results

def read_coco_results(source: str | os.PathLike, out: str | os.PathLike, submission_format: str,
                      index: PreparedIndex) -> Written:
    """Write COCO results as a submission with a row for every image of the index.

    The JSON is held in memory. Detections of an image keep their order; TF's format has no row for
    an image without.

    Args:
        source: the JSON.
        out: the CSV to write.
        submission_format: ``'kaggle'`` or ``'tf'``.
        index: the split that the results are for.

    Raises:
        UserError: no such JSON, or a result that is not as the module says; it names the result's
            place in the list, the first being 1.
    """
    refuse_to_overwrite(out, source, index.path)
    results = _load(source)
    image_ids = {coco_image_id(image_id): row for row, image_id in enumerate(index.image_ids)}
    found: dict[int, list[Detection]] = {}
    for place, result in enumerate(progress(results, desc='read', unit='det'), start=1):
        try:
            row = image_ids.get(_whole(result, 'image_id'), -1)
            if row < 0:
                raise ValueError(f'image_id {result["image_id"]} is not in {index.path}')
            found.setdefault(row, []).append(_detection(result, index, row))
        except ValueError as error:  # MaskError is one
            raise UserError(f'result {place}: {error}', path=source) from None
    images = (ImageDetections(index.image_id(row), int(index.widths[row]),
                              int(index.heights[row]), found.get(row, []))
              for row in range(index.num_images))
    with atomic_write(out, 'wb') as file:
        return Written(*write_submission(file, images, submission_format),
                       index.num_images - len(found))


def _load(path: str | os.PathLike) -> list[Any]:
    with open_regular(path) as file:
        try:
            results = json.load(file)
        except (ValueError, RecursionError) as error:
            raise UserError(f'not JSON: {error}', path=path) from None
    if not isinstance(results, list):
        raise UserError('expected COCO results, a list of detections', path=path)
    return results


def _detection(result: dict[str, Any], index: PreparedIndex, row: int) -> Detection:
    """One result; ValueError says what is wrong with it."""
    class_id = _whole(result, 'category_id') - 1
    mids = index.label_space.mids
    if not 0 <= class_id < len(mids):
        raise ValueError(f'category_id {class_id + 1}, expected 1 to {len(mids)}')
    score = result.get('score')
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise ValueError(f'score {reprlib.repr(score)}, expected a number')
    parse_score(repr(score))
    mask = _mask(result.get('segmentation'), int(index.heights[row]), int(index.widths[row]))
    return Detection(mids[class_id], repr(score), encode_text(mask['counts']))


def _whole(result: Any, name: str) -> int:
    value = result.get(name) if isinstance(result, dict) else None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f'{name} {reprlib.repr(value)}, expected a whole number')
    return value


def _mask(value: Any, height: int, width: int) -> Rle:
    """An RLE, compressed or not."""
    counts = value.get('counts') if isinstance(value, dict) else None
    if counts is None or value.get('size') != [height, width]:
        raise ValueError(f'segmentation {reprlib.repr(value)}, expected an RLE of '
                         f'{[height, width]} pixels (height, width)')
    if isinstance(counts, list):
        if not all(type(run) is int and 0 <= run <= height * width for run in counts):
            raise ValueError('segmentation with a run length that is none')
        counts = coco_mask.frPyObjects({'size': [height, width], 'counts': counts}, height,
                                       width)['counts']
    elif isinstance(counts, str):
        counts = counts.encode()
    else:
        raise ValueError(f'segmentation with counts {reprlib.repr(counts)}')
    mask: Rle = {'size': [height, width], 'counts': counts}
    check_sizes([mask])
    return mask
