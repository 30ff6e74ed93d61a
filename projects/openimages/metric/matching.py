"""Matching: what becomes of every detection (rules 2 to 6 of the challenge).

In: the ground truth and detections of one or many images. Out: :class:`Matches`, flat arrays with a
row for each detection. The rules are numbered in the package's docstring.

Images are worked on together, so that what numpy takes for a call is paid once for some hundred
images: detections are sorted by image and class, and go through the rules' stages side by side, as
an instance takes only detections of its own image and class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from projects.openimages.masks import MaskError, Rle
from projects.openimages.metric.overlaps import MeasuredMasks, measure_images, read_masks
from projects.openimages.metric.records import DROPPED, FALSE, Detections, GroundTruth, Matches
from projects.openimages.metric.stages import FoundBoxes, decide, find_stages, scoring_order

OFFICIAL_THRESHOLD = 0.5
MAX_PER_CLASS = 10_000  # the evaluator keeps no more detections of one class in one image
BATCH = 1 << 22
"""Images are matched together until they have so many bytes of run lengths and pairs of a detection
and an instance."""


def match_image(truth: GroundTruth, detections: Detections,
                thresholds: Sequence[float] = (OFFICIAL_THRESHOLD,), *,
                image: int = 0) -> list[Matches]:
    """:func:`match_images` for a single image, numbered ``image``."""
    return match_images([(image, truth, detections)], thresholds)


def match_images(images: Iterable[tuple[int, GroundTruth, Detections]],
                 thresholds: Sequence[float] = (OFFICIAL_THRESHOLD,)) -> list[Matches]:
    """Decide for every detection whether it is true, false, ignored or dropped.

    Only masks of verified classes are looked at, so ``detections.masks`` may decode on access.

    Args:
        images: of each the number that goes into the result, its ground truth and its detections;
            with masks if the ground truth has masks.
        thresholds: IoU (and IoA) from which an instance takes a detection; 0.5 is official.

    Returns:
        One :class:`Matches` a threshold, each with a row for every detection, images as given.

    Raises:
        MaskError: malformed masks, or masks of different sizes in one image.
    """
    parts: list[list[Matches]] = [[] for _ in thresholds]
    for batch in _batches(images):
        for part, matches in zip(parts, _match_batch(batch, thresholds), strict=True):
            part.append(matches)
    return [Matches.concatenate(part) for part in parts]


# ------------------------------------------------------------------------------ reading images

@dataclass(frozen=True)
class _Image:
    """An image, its detections read.

    Attributes:
        number, truth: as handed in.
        class_ids, scores: (N,) of all its detections.
        rows: (L,) the detections whose class is verified (rule 2), and ``found``, their L masks or
            (L, 4) boxes.
    """

    number: int
    truth: GroundTruth
    class_ids: np.ndarray
    scores: np.ndarray
    rows: np.ndarray
    found: list[Rle | None] | np.ndarray

    @staticmethod
    def read(number: int, truth: GroundTruth, detections: Detections) -> _Image:
        class_ids = np.asarray(detections.class_ids, np.int64)
        verified = {*truth.verified.tolist(), *truth.class_ids.tolist()}
        rows = [row for row, class_id in enumerate(class_ids.tolist()) if class_id in verified]
        found: list[Rle | None] | np.ndarray
        if detections.masks is not None:
            masks = detections.masks
            found = read_masks(masks[row] for row in rows)
            check_same_size([*(truth.masks or ()), *found])
        elif truth.masks is None:
            found = np.asarray(detections.boxes, np.float64).reshape(-1, 4)[rows]
        else:
            raise ValueError('detections without masks against ground truth with masks')
        return _Image(number, truth, class_ids, np.asarray(detections.scores, np.float64),
                      np.array(rows, np.int64), found)

    @property
    def size(self) -> int:
        """What it adds to a batch, as ``BATCH`` counts."""
        masks = self.found if isinstance(self.found, list) else []
        return (sum(len(mask['counts']) for mask in masks if mask is not None)
                + len(self.rows) * len(self.truth.class_ids))


def _batches(images: Iterable[tuple[int, GroundTruth, Detections]]) -> Iterator[list[_Image]]:
    """Images as they are read, as many at a time as ``BATCH`` says."""
    batch: list[_Image] = []
    size = 0
    for image in images:
        batch.append(_Image.read(*image))
        size += batch[-1].size
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _found(batch: Sequence[_Image]) -> MeasuredMasks | FoundBoxes:
    """Rule 3: the detections of the batch that are looked at, as masks or as boxes."""
    masks = [image.found for image in batch if isinstance(image.found, list)]
    boxes = [image.found for image in batch if isinstance(image.found, np.ndarray)]
    if masks and boxes:
        raise ValueError('detections of some images with masks, of others without')
    if boxes:
        return FoundBoxes(np.concatenate(boxes))
    return MeasuredMasks.concatenate(measure_images(masks))


def check_same_size(masks: Sequence[Rle | None]) -> None:
    """Raise a MaskError unless all masks of an image have one size."""
    sizes = [mask['size'] for mask in masks if mask is not None]
    if sizes and sizes.count(sizes[0]) < len(sizes):
        (height, width), (other_height, other_width) = sorted(set(map(tuple, sizes)))[:2]
        raise MaskError(f'masks of different sizes in one image: {width} x {height} and '
                        f'{other_width} x {other_height}')


# ---------------------------------------------------------------------------- many images at once

@dataclass(frozen=True)
class _Flat:
    """Detections or instances of a batch, one after the other.

    Attributes:
        key: (N,) int64, the same where image and class are the same, ascending with both.
        image: (N,) place of the image in the batch.
        row: (N,) row within the image.
    """

    key: np.ndarray
    image: np.ndarray
    row: np.ndarray

    @staticmethod
    def of(class_ids: Sequence[np.ndarray], stride: int) -> _Flat:
        """From the class ids of every image; ``stride`` is greater than any of them."""
        counts = np.array([len(item) for item in class_ids])
        image = np.repeat(np.arange(len(counts)), counts)
        row = np.arange(len(image)) - np.repeat(np.cumsum(counts) - counts, counts)
        return _Flat(image * stride + np.concatenate(class_ids).astype(np.int64), image, row)


def _match_batch(batch: list[_Image], thresholds: Sequence[float]) -> list[Matches]:
    """Match some images; of each, dropped detections are listed last."""
    stride = 1 + max(int(ids.max(initial=0)) for item in batch
                     for ids in (item.class_ids, item.truth.class_ids))
    detections = _Flat.of([item.class_ids for item in batch], stride)
    instances = _Flat.of([item.truth.class_ids for item in batch], stride)
    scores = np.concatenate([item.scores for item in batch])
    starts = np.searchsorted(detections.image, np.arange(len(batch)))
    looked_at = np.concatenate([item.rows + start for item, start
                                in zip(batch, starts.tolist(), strict=True)])
    found = _found(batch)
    order = _by_class(detections.key, scores, looked_at[found.extent])
    # The others of the image and class are all there are false positives.
    order_has_instances = np.isin(detections.key[order], instances.key)
    met = order[order_has_instances]
    stages = find_stages([item.truth for item in batch], instances.key, detections.key[met],
                     found.take(np.searchsorted(looked_at, met)))
    numbers = np.array([item.number for item in batch], np.int32)[detections.image]
    class_ids = (detections.key % stride).astype(np.int32)
    results = []
    for threshold in thresholds:
        outcome = np.full(len(scores), DROPPED, np.int8)
        instance = np.full(len(scores), -1, np.int32)
        overlap = np.zeros(len(scores), np.float32)
        outcome[order] = FALSE
        outcome[met], taken_by, overlap[met], is_group = decide(stages, scores[met], threshold)
        instance[met] = np.append(instances.row, -1)[taken_by]
        listed = order.copy()
        listed[order_has_instances] = met[scoring_order(detections.key[met], taken_by, is_group)]
        listed = np.concatenate((listed, np.flatnonzero(outcome == DROPPED)))
        listed = listed[np.argsort(detections.image[listed], kind='stable')]
        results.append(Matches(numbers[listed], detections.row[listed].astype(np.int32),
                               class_ids[listed], scores[listed], outcome[listed],
                               instance[listed], overlap[listed]))
    return results


def _by_class(key: np.ndarray, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The given rows by image and class, and within these in descending score."""
    rows = rows[np.argsort(key[rows], kind='stable')]
    ends = np.append(np.flatnonzero(np.diff(key[rows])) + 1, len(rows)).tolist()
    result, start = [rows[:0]], 0
    for end in ends:
        # The evaluator's own sort call: its order among equal scores is part of the result.
        descending = start + np.argsort(scores[rows[start:end]])[::-1]
        result.append(rows[descending[:MAX_PER_CLASS]])
        start = end
    return np.concatenate(result)
