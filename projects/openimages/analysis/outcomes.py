"""What became of every detection of a dump, and why: one pass over a submission and an index.

In: a submission of either format and the prepared index of its split. Out: :class:`Outcomes`, flat
arrays with a row a detection and a row an instance to be found. No mask is kept.
"""

from __future__ import annotations

import reprlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from projects.openimages.analysis.causes import Cause, Overlaps, causes, relations
from projects.openimages.challenge.evaluator_csv import as_pandas_reads
from projects.openimages.challenge.from_index import IndexGroundTruth
from projects.openimages.challenge.lazy_masks import LazyMasks
from projects.openimages.common.errors import UserError
from projects.openimages.common.parallel import run_in_order
from projects.openimages.common.progress import progress
from projects.openimages.data.index import PreparedIndex
from projects.openimages.labels import LabelSpace
from projects.openimages.masks import MaskError, Rle
from projects.openimages.metric import (
    OFFICIAL_THRESHOLD,
    Detections,
    GroundTruth,
    Matches,
    MeasuredMasks,
    match_image,
    measure,
)
from projects.openimages.submissions.formats import ImageDetections, Submission, parse_score
from projects.openimages.submissions.sweep import check_split

IOU_THRESHOLDS = (OFFICIAL_THRESHOLD, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
_IMAGES_A_TASK = 64


@dataclass(frozen=True)
class Outcomes:
    """D detections, N instances (expanded over the hierarchy), I images, T IoU thresholds.

    Attributes:
        matches: D rows at IoU 0.5, in scoring order; those that are dropped as well.
        at: (D, T) int8, the metric's outcome at each of ``IOU_THRESHOLDS``.
        cause: (D,) int8, :class:`causes.Cause`.
        target: (D,) int32, of a duplicate, wrong class or poor mask the instance that it is about,
            of a true positive the one it took, -1 for others.
        area: (D,) int64 pixels of the mask, 0 where the class is not verified.
        rank: (D,) int32 place among the image's scores; see :func:`ranks_and_copies`.
        copy: (D,) bool, where the detection repeats another one for an ancestor class.
        instance_image: (N,) int32.
        instance_class: (N,) int32.
        instance_area: (N,) int64 pixels of the mask; 0 where there is none, so that the instance
            is not among those to be found.
        instance_own: (N,) bool, False where the instance is repeated for an ancestor class.
        instance_source: (N,) int32 its row, or the repeated one's, among the image's instances in
            the index.
    """

    matches: Matches
    at: np.ndarray
    cause: np.ndarray
    target: np.ndarray
    area: np.ndarray
    rank: np.ndarray
    copy: np.ndarray
    instance_image: np.ndarray
    instance_class: np.ndarray
    instance_area: np.ndarray
    instance_own: np.ndarray
    instance_source: np.ndarray

    def __len__(self) -> int:
        return len(self.matches)

    @cached_property
    def taken(self) -> np.ndarray:
        """(N,) bool: instances that a true positive has found."""
        taken = np.zeros(len(self.instance_class), bool)
        taken[self.target[self.cause == Cause.TRUE]] = True
        return taken

    @property
    def to_find(self) -> np.ndarray:
        """(N,) bool: instances that count as positives."""
        return self.instance_area > 0

    def positives(self, num_classes: int) -> np.ndarray:
        """(C,) int64 instances to be found by class."""
        return np.bincount(self.instance_class[self.to_find], minlength=num_classes)

    def at_threshold(self, number: int) -> Matches:
        """The matches at the IoU threshold of that number."""
        return replace(self.matches, outcome=self.at[:, number])

    @staticmethod
    def concatenate(parts: Sequence[Outcomes]) -> Outcomes:
        """All rows of parts in the order of images; targets are moved to the whole's instances."""
        shifts = np.cumsum([0, *(len(part.instance_class) for part in parts)])
        moved = [replace(part, target=np.where(part.target < 0, -1, part.target + shift).astype(
                     np.int32)) for part, shift in zip(parts, shifts[:-1].tolist(), strict=True)]
        moved = [_nothing(), *moved]
        return Outcomes(Matches.concatenate([part.matches for part in moved]), *(
            np.concatenate([getattr(part, field.name) for part in moved])
            for field in fields(Outcomes)[1:]))


def _nothing() -> Outcomes:
    kinds = (np.int8, np.int32, np.int64, np.int32, bool, np.int32, np.int32, np.int64, bool,
             np.int32)
    return Outcomes(Matches.empty(), np.zeros((0, len(IOU_THRESHOLDS)), np.int8),
                    *(np.zeros(0, kind) for kind in kinds))


def analyse(submission: Submission, index: PreparedIndex,
            workers: int = 1) -> tuple[Outcomes, int]:
    """Match every detection of a submission and find out why it is false.

    Args:
        submission: as it is handed in; it is not expanded here.
        index: the prepared index of the split that it is for.
        workers: processes; the result is the same.

    Returns:
        The outcomes, and how many detections are of images that the split does not have, which
        the challenge passes over.

    Raises:
        UserError: a broken row, an unknown class, or a submission of another split.
    """
    check_split(submission, index)
    work = _Work(submission, IndexGroundTruth(index), relations(index.label_space))
    total = index.num_images
    tasks = [range(start, min(start + _IMAGES_A_TASK, total))
             for start in range(0, total, _IMAGES_A_TASK)]
    parts = []
    with progress(total=total, desc='match', unit='img') as bar:
        for task, part in zip(tasks, run_in_order(_analyse_images, tasks, workers, len(tasks),
                                                  shared=work), strict=True):
            parts.append(part)
            bar.update(len(task))
    others = set(submission.image_ids).difference(index.image_ids)
    elsewhere = 0
    for image_id in others:
        image = submission.image(image_id)
        elsewhere += len(image.detections) if image else 0
    return Outcomes.concatenate(parts), elsewhere


@dataclass(frozen=True)
class _Work:
    """What every process needs."""

    submission: Submission
    truths: IndexGroundTruth
    relations: np.ndarray


def _analyse_images(work: _Work, rows: range) -> Outcomes:
    return Outcomes.concatenate([_analyse_image(work, row) for row in rows])


def _analyse_image(work: _Work, row: int) -> Outcomes:
    index = work.truths.index
    truth, sources = work.truths.image_and_sources(row)
    own = index.class_ids[index.instance_rows(row)][sources] == truth.class_ids
    assert truth.measured is not None
    image = work.submission.image(index.image_id(row))
    if image is None or not image.detections:
        image = ImageDetections(index.image_id(row), 1, 1, [])
    try:
        found = _Found.of(image, truth, index.label_space, work.submission.path)
        matched = match_image(truth, found.detections, IOU_THRESHOLDS, image=row)
        cause, target = causes(matched[0], found.verified, found.masks.areas,
                               Overlaps(truth, own, sources, found.masks), work.relations)
    except MaskError as error:
        raise UserError(f'image {image.image_id}: {error}', path=work.submission.path,
                        row=image.row) from None
    order = matched[0].detection
    at = np.zeros((len(order), len(IOU_THRESHOLDS)), np.int8)
    for number, one in enumerate(matched):
        at[one.detection, number] = one.outcome
    ranks, copies = ranks_and_copies(image, found.detections.scores,
                                     found.detections.class_ids, index.label_space)
    return Outcomes(matched[0], at[order], cause, target, found.masks.areas[order], ranks[order],
                    copies[order], np.full(len(own), row, np.int32),
                    truth.class_ids.astype(np.int32), truth.measured.areas, own,
                    sources.astype(np.int32))


def ranks_and_copies(image: ImageDetections, scores: np.ndarray, class_ids: np.ndarray,
                     space: LabelSpace) -> tuple[np.ndarray, np.ndarray]:
    """Undo the expansion over the hierarchy, as far as a cap on detections goes.

    A detection is a copy where another one with the same mask and score is of a class below its
    own. The others are ranked by score; a copy has the best rank of those that share its mask and
    score. So a cap of k that was applied before expansion keeps the ranks below k.

    Returns:
        ``rank`` (D,) int32 and ``copy`` (D,) bool.
    """
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, detection in enumerate(image.detections):
        groups[detection.mask, detection.score].append(place)
    copy = np.zeros(len(scores), bool)
    for places in groups.values():
        if len(places) > 1:
            above = {a for place in places for a in space.ancestors(int(class_ids[place]))}
            copy[places] = [int(class_ids[place]) in above for place in places]
    rank = np.zeros(len(scores), np.int32)
    originals = np.flatnonzero(~copy)
    rank[originals[np.argsort(-scores[originals], kind='stable')]] = np.arange(len(originals))
    for places in groups.values():
        if copy[places].any():
            best = min(rank[place] for place in places if not copy[place])
            for place in places:
                if copy[place]:
                    rank[place] = best
    return rank, copy


@dataclass(frozen=True)
class _Found:
    """An image's D detections; ``masks`` are read where the class is ``verified``, (D,) bool."""

    detections: Detections
    verified: np.ndarray
    masks: MeasuredMasks

    @staticmethod
    def of(image: ImageDetections, truth: GroundTruth, space: LabelSpace, path: str) -> _Found:
        """Read scores and classes of all, and the masks of classes that are verified."""
        items = image.detections
        unknown = [item.mid for item in items if item.mid not in space.ids]
        try:
            for item in items:
                parse_score(item.score)
            if unknown:
                raise ValueError(f'unknown class {reprlib.repr(unknown[0])}')
        except ValueError as error:
            raise UserError(f'image {image.image_id}: {error}', path=path,
                            row=image.row) from None
        scores = as_pandas_reads([item.score for item in items]) if items else np.zeros(0)
        assert scores is not None  # all are numbers
        class_ids = np.array([space.ids[item.mid] for item in items], np.int64)
        verified = np.isin(class_ids, np.concatenate((truth.verified, truth.class_ids)))
        lazy = LazyMasks.of([item.mask.encode() if seen else None for item, seen
                             in zip(items, verified.tolist(), strict=True)],
                            image.height, image.width, path, np.full(len(items), image.row))
        masks: list[Rle | None] = list(lazy)
        return _Found(Detections(class_ids, scores, masks), verified, measure(masks))
