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
from itertools import product

import numpy as np

from projects.openimages.masks import MaskError, Rle
from projects.openimages.metric.overlaps import (
    MeasuredMasks,
    box_ioa,
    box_iou,
    mask_intersections,
    mask_ioa,
    mask_iou,
    measure_images,
    read_masks,
)
from projects.openimages.metric.records import (
    DROPPED,
    FALSE,
    IGNORED,
    TRUE,
    Detections,
    GroundTruth,
    Matches,
)

OFFICIAL_THRESHOLD = 0.5
MAX_PER_CLASS = 10_000  # the evaluator keeps no more detections of one class in one image
BATCH = 1 << 19
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
class _FoundBoxes:
    """Detections that are boxes, (N, 4) as in :class:`Detections`."""

    boxes: np.ndarray

    @property
    def extent(self) -> np.ndarray:
        """(N,) bool: where there is something inside."""
        return (self.boxes[:, 1::2] > self.boxes[:, ::2]).all(axis=1)

    def take(self, rows: np.ndarray) -> _FoundBoxes:
        return _FoundBoxes(self.boxes[rows])


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


def _found(batch: Sequence[_Image]) -> MeasuredMasks | _FoundBoxes:
    """Rule 3: the detections of the batch that are looked at, as masks or as boxes."""
    masks = [image.found for image in batch if isinstance(image.found, list)]
    boxes = [image.found for image in batch if isinstance(image.found, np.ndarray)]
    if masks and boxes:
        raise ValueError('detections of some images with masks, of others without')
    if boxes:
        return _FoundBoxes(np.concatenate(boxes))
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
    stages = _stages([item.truth for item in batch], instances.key, detections.key[met],
                     found.take(np.searchsorted(looked_at, met)))
    numbers = np.array([item.number for item in batch], np.int32)[detections.image]
    class_ids = (detections.key % stride).astype(np.int32)
    results = []
    for threshold in thresholds:
        outcome = np.full(len(scores), DROPPED, np.int8)
        instance = np.full(len(scores), -1, np.int32)
        overlap = np.zeros(len(scores), np.float32)
        outcome[order] = FALSE
        outcome[met], taken_by, overlap[met], is_group = _decide(stages, scores[met], threshold)
        instance[met] = np.append(instances.row, -1)[taken_by]
        listed = order.copy()
        listed[order_has_instances] = met[_scoring_order(detections.key[met], taken_by, is_group)]
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


# ---------------------------------------------------------------------------------- the stages

@dataclass(frozen=True)
class _Stage:
    """One pass of matching: each detection's best instance, and what taking it means.

    Attributes:
        met: (K,) int, the detections that have instances in it.
        best: (K,) int, which instance of the batch overlaps most.
        overlap: (K,) IoU or IoA with it.
        absorbs: True for group-of instances, which take any number of detections.
        counts: False where what is taken is ignored.
    """

    met: np.ndarray
    best: np.ndarray
    overlap: np.ndarray
    absorbs: bool
    counts: bool


@dataclass(frozen=True)
class _Pairs:
    """Detections, each with all instances of its image and class that are in a stage.

    Attributes:
        met: (K,) int, the detections that have any.
        starts, counts: (K,) int, where their pairs begin, and how many there are.
        detection, instance: (P,) int, the pairs.
    """

    met: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    detection: np.ndarray
    instance: np.ndarray

    @staticmethod
    def of(key: np.ndarray, instance_key: np.ndarray, instances: np.ndarray) -> _Pairs:
        """Pairs of the detections of (N,) ``key`` and some ``instances``, by their (M,) keys."""
        instances = instances[np.argsort(instance_key[instances], kind='stable')]
        first, last = (np.searchsorted(instance_key[instances], key, side)
                       for side in ('left', 'right'))
        met = np.flatnonzero(last > first)
        counts = (last - first)[met]
        starts = np.cumsum(counts) - counts
        within = np.arange(counts.sum()) - np.repeat(starts, counts)
        return _Pairs(met, starts, counts, np.repeat(met, counts),
                      instances[np.repeat(first[met], counts) + within])

    def best(self, overlaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(K,) instance with which each detection has most, the first such, and how much."""
        most = np.maximum.reduceat(overlaps, self.starts)
        reached = np.flatnonzero(~(overlaps < np.repeat(most, self.counts)))
        return self.instance[reached[np.searchsorted(reached, self.starts)]], most


def _stages(truths: Sequence[GroundTruth], instance_key: np.ndarray, key: np.ndarray,
            found: MeasuredMasks | _FoundBoxes) -> list[_Stage]:
    """The stages of rules 4 to 6, those without instances left out.

    Args:
        truths: of the batch's images, and the (M,) ``instance_key`` of their instances.
        key: (N,) of the detections, ascending, and ``found``, the N of them.
    """
    boxes = np.concatenate([truth.boxes.reshape(-1, 4) for truth in truths])
    is_group = np.concatenate([truth.is_group_of for truth in truths]).astype(bool)
    GroundTruth.measure_together(truths)
    measured = [truth.measured for truth in truths if truth.measured is not None]
    has_mask = np.zeros(len(boxes), bool)
    if measured:
        masks = MeasuredMasks.concatenate(measured)
        has_mask = masks.areas > 0
    stages = []
    for with_mask, absorbs in product((True, False), (False, True)):
        pairs = _Pairs.of(key, instance_key,
                          np.flatnonzero((has_mask == with_mask) & (is_group == absorbs)))
        if not len(pairs.met):
            continue
        if with_mask:
            assert isinstance(found, MeasuredMasks)
            common, areas = _common_pixels(found, masks, pairs), found.areas[pairs.detection]
            overlaps = mask_ioa(common, areas) if absorbs else mask_iou(
                common, areas, masks.areas[pairs.instance])
        else:
            found_boxes = np.repeat(found.take(pairs.met).boxes, pairs.counts, axis=0)
            overlaps = (box_ioa if absorbs else box_iou)(found_boxes, boxes[pairs.instance])
        stages.append(_Stage(pairs.met, *pairs.best(overlaps), absorbs,
                             counts=with_mask or not measured))
    return stages


def _common_pixels(found: MeasuredMasks, masks: MeasuredMasks, pairs: _Pairs) -> np.ndarray:
    """(P,) int64 pixels that the masks of each pair have in common."""
    common = np.zeros(len(pairs.detection), np.int64)
    first, last = found.spans[pairs.detection].T
    other_first, other_last = masks.spans[pairs.instance].T
    near = np.logical_or.reduceat((first < other_last) & (other_first < last), pairs.starts)
    near = np.flatnonzero(near)
    if not len(near):
        return common
    counts = pairs.counts[near]
    first = pairs.instance[pairs.starts[near]]  # the same for all of an image and class
    for block in np.split(np.arange(len(near)), np.flatnonzero(np.diff(first)) + 1):
        places = pairs.starts[near[block]][:, None] + np.arange(counts[block[0]])
        detections = pairs.detection[places[:, 0]]
        common[places] = mask_intersections(
            found.present(detections), masks.present(pairs.instance[places[0]]),
            found.areas[detections])
    return common


def _decide(stages: Sequence[_Stage], scores: np.ndarray,
            threshold: float) -> tuple[np.ndarray, ...]:
    """Send detections, by image and class and then in descending score, through the stages.

    Returns:
        (N,) outcome, instance of the batch that took it or -1, overlap, and whether it stands for a
        group-of instance.
    """
    outcome = np.full(len(scores), FALSE, np.int8)
    taken_by = np.full(len(scores), -1)
    overlap = np.zeros(len(scores), np.float32)
    stands_for_group = np.zeros(len(scores), bool)
    is_new = np.ones(len(scores), bool)
    for stage in stages:
        if not stage.absorbs:
            overlap[stage.met] = np.where(is_new[stage.met], stage.overlap, overlap[stage.met])
        is_new[stage.met] = False
        hits = np.flatnonzero((stage.overlap >= threshold) & (outcome[stage.met] == FALSE))
        # Of the detections whose best instance is the same, the first in descending score has it;
        # the others do not look for their second best. A group-of instance takes them all.
        claimed = hits[np.unique(stage.best[hits], return_index=True)[1]]
        taken = hits if stage.absorbs else claimed
        rows = stage.met[taken]
        outcome[rows] = TRUE if stage.counts and not stage.absorbs else IGNORED
        taken_by[rows], overlap[rows] = stage.best[taken], stage.overlap[taken]
        if stage.absorbs and stage.counts:
            best = stage.met[claimed]
            best = best[scores[best] > 0]  # a group whose best score is 0 counts for nothing
            outcome[best], stands_for_group[best] = TRUE, True
    return outcome, taken_by, overlap, stands_for_group


def _scoring_order(key: np.ndarray, instance: np.ndarray, is_group: np.ndarray) -> np.ndarray:
    """The evaluator lists a class's detections in descending score, then its groups.

    Args:
        key: (N,) ascending.
        instance: (N,) that took it.
        is_group: (N,) bool, whether it stands for that instance, a group-of one.
    """
    if not is_group.any():
        return np.arange(len(key))
    return np.lexsort((np.where(is_group, instance, np.arange(len(key))), is_group, key))
