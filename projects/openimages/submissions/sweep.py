"""Choosing thresholds: the challenge's mAP and the file size over a grid, from one dump.

In: a submission for an annotated split, dumped with ``--no-expand-hierarchy`` and a low threshold,
and the split's prepared index. Out: for each score threshold, cap of detections an image, and with
and without expansion over the hierarchy, the mAP that such a submission gets and its size.

Matching is greedy in descending score, so leaving out an image's lowest scores does not change what
becomes of the rest: one pass of matching serves every threshold and cap. Expansion changes only
classes that have descendants; only those are matched a second time.
"""

from __future__ import annotations

import itertools
import os
import reprlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from projects.openimages.challenge.from_index import IndexGroundTruth
from projects.openimages.common.errors import UserError
from projects.openimages.common.parallel import run_in_order
from projects.openimages.common.progress import progress
from projects.openimages.data.index import PreparedIndex
from projects.openimages.labels import LabelSpace
from projects.openimages.masks import MaskError
from projects.openimages.metric import (
    DROPPED,
    Detections,
    GroundTruth,
    Matches,
    count_positives,
    match_image,
    score,
)
from projects.openimages.submissions.formats import (
    HEADERS,
    KAGGLE,
    ImageDetections,
    Submission,
    scores_and_masks,
)
from projects.openimages.submissions.selection import check_options, expand_detections
from projects.openimages.submissions.sweep_result import SweepPoint, SweepResult

_IMAGES_A_TASK = 64
_FEW_SCORES = 5_000_000  # detections times points: as long as starting processes takes


@dataclass
class _Found:
    """Detections of some images, with (or without) expansion.

    ``matches`` with ``rank`` (D,) are those that count in the metric; ``scores``, ``ranks`` and
    ``costs`` (A,) are of all, ``best`` (I,) is each image's highest score. A rank is the place of
    a detection, or of the one it was expanded from, among its image's scores; a cost is bytes.
    """

    matches: Matches
    rank: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray
    costs: np.ndarray
    best: np.ndarray

    @staticmethod
    def concatenate(parts: Sequence[_Found]) -> _Found:
        return _Found(Matches.concatenate([part.matches for part in parts]), *(
            np.concatenate([np.zeros(0), *(getattr(part, field.name) for part in parts)])
            for field in fields(_Found)[1:]))


def sweep(submission: str | os.PathLike, index: str | os.PathLike, *,
          score_thrs: Sequence[float], caps: Sequence[int | None],
          expansions: Sequence[bool] = (False, True), workers: int = 1) -> SweepResult:
    """The grid's points, in the order of expansions, caps, thresholds.

    Args:
        submission: a CSV of either format, not expanded.
        index: ``index.arrow`` of the split that it is for.
        score_thrs, caps, expansions: the grid.
        workers: processes.

    Raises:
        UserError: a threshold outside 0 to 1, a cap below 1, a broken row, a submission that was
            expanded already, or one of another split.
    """
    for score_thr, cap in itertools.product(score_thrs, caps):
        check_options(score_thr, cap)
    with Submission(submission) as file:
        truths = IndexGroundTruth(PreparedIndex.open(index))
        check_split(file, truths.index)
        matched = _match_all(_Work(file, truths, tuple(expansions)), workers)
    return _grid(matched, list(itertools.product(expansions, caps, score_thrs)), workers)


def check_split(file: Submission, index: PreparedIndex) -> None:
    """Refuse a submission of another split; say so if it may be one of a part of the split."""
    images, total = len(file), index.num_images
    common = sum(image_id in file.image_ids for image_id in index.image_ids)
    if not common:
        raise UserError(f'none of its {images} images is among the {total} of {index.path}: is it '
                        f'of the split {index.split!r}?', path=file.path)
    if 2 * common < max(images, total):
        print(f'warning: {file.path}: only {common} of its {images} images are among the {total} '
              f'of {index.path}', file=sys.stderr)


@dataclass(frozen=True)
class _Matched:
    """What the points are made from: findings by expansion, (C,) positives, and the size in bytes
    of a submission without detections."""

    found: dict[bool, _Found]
    positives: np.ndarray
    rows_size: int


def _grid(matched: _Matched, places: list[tuple[bool, int | None, float]],
          workers: int) -> SweepResult:
    """All points; caps that no image reaches are one."""
    most = {expand: int(found.ranks.max(initial=0)) + 1 for expand, found in matched.found.items()}
    meaning = [(expand, min(cap or most[expand], most[expand]), score_thr)
               for expand, cap, score_thr in places]
    different = list(dict.fromkeys(meaning))
    scores = len(different) * max(len(found.scores) for found in matched.found.values())
    results = run_in_order(_measure, different, workers if scores > _FEW_SCORES else 1,
                           len(different), shared=matched)
    bar = progress(results, total=len(different), desc='grid', unit='point')
    measured = dict(zip(different, bar, strict=True))
    return SweepResult(tuple(SweepPoint(expand, score_thr, cap, *measured[found])
                             for (expand, cap, score_thr), found in zip(places, meaning,
                                                                        strict=True)))


def _measure(matched: _Matched, place: tuple[bool, int, float]) -> tuple[float, int, int]:
    """The mAP, number of detections and bytes with an expansion, a cap and a threshold."""
    expand, cap, score_thr = place
    found = matched.found[expand]
    kept = (found.scores >= score_thr) & (found.ranks < cap)
    counted = (found.matches.score >= score_thr) & (found.rank < cap)
    mean_ap = score(found.matches.select(counted), matched.positives).mean_average_precision
    spaces = int((found.best >= score_thr).sum())  # one fewer than detections in such a row
    size = matched.rows_size + int(found.costs[kept].sum()) - spaces
    return mean_ap, int(kept.sum()), size


def _row_size(image_id: str, file: Submission) -> int:
    width, height = file.size(image_id)
    return len(f'{image_id},{width},{height},') + 1


@dataclass(frozen=True)
class _Work:
    """What every process needs to match images."""

    submission: Submission
    truths: IndexGroundTruth
    expansions: tuple[bool, ...]


def _match_all(work: _Work, workers: int) -> _Matched:
    total = work.truths.index.num_images
    tasks = [range(start, min(start + _IMAGES_A_TASK, total))
             for start in range(0, total, _IMAGES_A_TASK)]
    results = run_in_order(_match_images, tasks, workers, len(tasks), shared=work)
    parts: dict[bool, list[_Found]] = {expand: [] for expand in work.expansions}
    positives = np.zeros(work.truths.num_classes, np.int64)
    expandable = added = 0
    with progress(total=total, desc='match', unit='img') as bar:
        for task, (found, counted, numbers) in zip(tasks, results, strict=True):
            for expand, one in found.items():
                parts[expand].append(one)
            positives += counted
            expandable, added = expandable + numbers[0], added + numbers[1]
            bar.update(len(task))
    file = work.submission
    if True in parts and expandable and not added:
        raise UserError('every detection stands for its ancestor classes already: sweep a '
                        'submission that was dumped with --no-expand-hierarchy', path=file.path)
    rows_size = sum(_row_size(image_id, file) for image_id in file.image_ids)
    return _Matched({expand: _Found.concatenate(items) for expand, items in parts.items()},
                    positives, len(HEADERS[KAGGLE]) + 1 + rows_size)


def _match_images(work: _Work,
                  rows: range) -> tuple[dict[bool, _Found], np.ndarray, tuple[int, int]]:
    """Match some images: findings by expansion, (C,) positives, and how many detections have
    ancestors and how many expansion added."""
    truths = work.truths
    parts: dict[bool, list[_Found]] = {expand: [] for expand in work.expansions}
    positives = np.zeros(truths.num_classes, np.int64)
    expandable = added = 0
    for row in rows:
        truth = truths.image(row)
        positives += count_positives(truth, truths.num_classes)
        image = work.submission.image(truths.index.image_id(row))
        if image is None or not image.detections:
            continue
        one = _Image(image, truths.index.label_space, work.submission.path)
        expandable += one.expandable
        added += one.added
        for expand, found in one.match(truth, row, work.expansions):
            parts[expand].append(found)
    return ({expand: _Found.concatenate(items) for expand, items in parts.items()}, positives,
            (expandable, added))


class _Image:
    """One image's detections, and what expansion makes of them."""

    def __init__(self, image: ImageDetections, space: LabelSpace, path: str) -> None:
        self._image, self._space, self._path = image, space, path
        scores, self._masks = scores_and_masks(image, path)
        unknown = [d.mid for d in image.detections if d.mid not in space.ids]
        if unknown:
            raise self._error(f'unknown class {reprlib.repr(unknown[0])}')
        class_ids = np.array([space.ids[d.mid] for d in image.detections], np.int64)
        rank = np.empty(len(scores), np.int64)
        rank[np.argsort(-scores, kind='stable')] = np.arange(len(scores))
        expanded = expand_detections(class_ids, scores, [d.mask for d in image.detections], space)
        plain = np.arange(len(scores))
        self._sets = {False: (plain, class_ids), True: (expanded.rows, expanded.class_ids)}
        self._scores, self._rank = scores, rank
        self.expandable = sum(bool(space.ancestors(c)) for c in class_ids.tolist())
        self.added = len(expanded) - len(np.unique(expanded.rows))

    def _error(self, message: object) -> UserError:
        return UserError(f'image {self._image.image_id}: {message}', path=self._path,
                         row=self._image.row)

    def match(self, truth: GroundTruth, row: int,
              expansions: Iterable[bool]) -> Iterator[tuple[bool, _Found]]:
        """Match with the expanded set; without it, again only the classes that differ."""
        whole = self._match(truth, row, *self._sets[True])
        for expand in expansions:
            rows, class_ids = self._sets[expand]
            matches = whole
            if not expand:
                changed = self._changed_classes()
                again = np.isin(class_ids, changed)
                fresh = self._match(truth, row, rows[again], class_ids[again])
                same = whole[0].select(~np.isin(whole[0].class_id, changed))
                matches = (Matches.concatenate([same, fresh[0]]),
                           np.concatenate([self._rank[self._sets[True][0][same.detection]],
                                           fresh[1]]))
            yield expand, self._found(rows, class_ids, *matches)

    def _changed_classes(self) -> np.ndarray:
        (rows, class_ids), (all_rows, all_class_ids) = self._sets[False], self._sets[True]
        return np.array([c for c in np.unique(all_class_ids) if not np.array_equal(
            rows[class_ids == c], all_rows[all_class_ids == c])], np.int64)

    def _match(self, truth: GroundTruth, row: int, rows: np.ndarray,
               class_ids: np.ndarray) -> tuple[Matches, np.ndarray]:
        """The matches of the detections that count, and their ranks."""
        try:
            [matches] = match_image(truth, Detections(
                class_ids, self._scores[rows], [self._masks[n] for n in rows.tolist()]), image=row)
        except MaskError as error:
            raise self._error(error) from None
        matches = matches.select(matches.outcome != DROPPED)
        return matches, self._rank[rows[matches.detection]]

    def _found(self, rows: np.ndarray, class_ids: np.ndarray, matches: Matches,
               rank: np.ndarray) -> _Found:
        texts = self._image.detections
        costs = [len(self._space.mids[class_id]) + len(texts[n].score) + len(texts[n].mask) + 3
                 for n, class_id in zip(rows.tolist(), class_ids.tolist(), strict=True)]
        return _Found(matches, rank, self._scores[rows], self._rank[rows],
                      np.array(costs, np.int64), self._scores.max(keepdims=True))
