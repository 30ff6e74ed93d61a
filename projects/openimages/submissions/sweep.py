"""Choosing thresholds: the challenge's mAP and the file size over a grid, from one dump.

In: a submission for an annotated split, dumped with ``--no-expand-hierarchy`` and a low threshold,
and the split's prepared index. Out: for each score threshold, cap of detections an image, and with
and without expansion over the hierarchy, the mAP that such a submission gets and its size.

Matching is greedy in descending score, so leaving out an image's lowest scores does not change what
becomes of the rest: one pass of matching serves every threshold and cap. Expansion changes only
classes that have descendants; only those are matched a second time.
"""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from multiprocessing import get_context

import numpy as np

from projects.openimages.challenge.from_index import IndexGroundTruth
from projects.openimages.common.errors import UserError
from projects.openimages.common.files import atomic_write
from projects.openimages.common.progress import progress
from projects.openimages.data.index import PreparedIndex
from projects.openimages.labels import LabelSpace
from projects.openimages.masks import MaskError, Rle, inflate_text
from projects.openimages.metric import (
    DROPPED,
    Detections,
    GroundTruth,
    Matches,
    count_positives,
    match_image,
    score,
)
from projects.openimages.submissions.formats import HEADERS, KAGGLE, ImageDetections, Submission
from projects.openimages.submissions.selection import expand_detections

_IMAGES_A_TASK = 64
_NO_DETECTIONS = Detections(np.zeros(0, np.int64), np.zeros(0), [])


@dataclass(frozen=True)
class Point:
    """One row of the table.

    Attributes:
        expand_hierarchy, score_thr, max_per_img: the options of the dump; None is no cap.
        mean_ap: the challenge's mAP.
        detections: how many the submission has.
        size: bytes of it in Kaggle's format.
    """

    expand_hierarchy: bool
    score_thr: float
    max_per_img: int | None
    mean_ap: float
    detections: int
    size: int


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
          expansions: Sequence[bool] = (False, True), workers: int = 1) -> list[Point]:
    """The grid's points, in the order of expansions, caps, thresholds.

    Args:
        submission: a CSV of either format, not expanded.
        index: ``index.arrow`` of the split that it is for.
        score_thrs, caps, expansions: the grid.
        workers: processes.

    Raises:
        UserError: a broken row, or a submission that was expanded already.
    """
    with Submission(submission) as file:
        rows_size = len(HEADERS[KAGGLE]) + 1 + sum(_row_size(image_id, file)
                                                   for image_id in file.image_ids)
    found, positives = _match_all(os.fspath(submission), os.fspath(index), expansions, workers)
    global _matched
    _matched = (found, positives, rows_size)  # forked processes find it here, without a copy
    grid = list(itertools.product(expansions, caps, score_thrs))
    return list(progress(_run(_point, grid, workers), total=len(grid), desc='grid', unit='point'))


_matched: tuple[dict[bool, _Found], np.ndarray, int]


def _point(place: tuple[bool, int | None, float]) -> Point:
    expand, cap, score_thr = place
    found, positives, rows_size = _matched
    one = found[expand]
    limit = np.inf if cap is None else cap
    kept = (one.scores >= score_thr) & (one.ranks < limit)
    mean_ap = score(one.matches.select((one.matches.score >= score_thr) & (one.rank < limit)),
                    positives).mean_average_precision
    spaces = int((one.best >= score_thr).sum())  # one fewer than detections in such a row
    return Point(expand, score_thr, cap, mean_ap, int(kept.sum()),
                 rows_size + int(one.costs[kept].sum()) - spaces)


def _row_size(image_id: str, file: Submission) -> int:
    width, height = file.size(image_id)
    return len(f'{image_id},{width},{height},') + 1


def _match_all(submission: str, index: str, expansions: Sequence[bool],
               workers: int) -> tuple[dict[bool, _Found], np.ndarray]:
    _set_context(submission, index, tuple(expansions))
    total = PreparedIndex.open(index).num_images
    tasks = [range(start, min(start + _IMAGES_A_TASK, total))
             for start in range(0, total, _IMAGES_A_TASK)]
    parts: dict[bool, list[_Found]] = {expand: [] for expand in expansions}
    positives: np.ndarray = np.zeros(1, np.int64)
    expandable = added = 0
    with progress(total=total, desc='match', unit='img') as bar:
        for task, (found, counted, numbers) in zip(tasks, _run(_match_task, tasks, workers),
                                                  strict=True):
            for expand, one in found.items():
                parts[expand].append(one)
            positives = positives + counted
            expandable, added = expandable + numbers[0], added + numbers[1]
            bar.update(len(task))
    if True in parts and expandable and not added:
        raise UserError('every detection stands for its ancestor classes already: sweep a '
                        'submission that was dumped with --no-expand-hierarchy', path=submission)
    return {expand: _Found.concatenate(items) for expand, items in parts.items()}, positives


def _run(function: Callable, tasks: list, workers: int) -> Iterator:
    """``map``, in processes that inherit what this one holds."""
    if workers < 2 or len(tasks) < 2:
        yield from map(function, tasks)
        return
    with ProcessPoolExecutor(workers, get_context('fork')) as pool:
        yield from pool.map(function, tasks)


_context: tuple[str, str, tuple[bool, ...]]
_opened: tuple[int, Submission, IndexGroundTruth, tuple[bool, ...]] | None = None


def _set_context(*context) -> None:
    global _context, _opened
    _context, _opened = context, None


def _open() -> tuple[int, Submission, IndexGroundTruth, tuple[bool, ...]]:
    """Each process opens the files for itself: a shared file position would be moved by others."""
    global _opened
    if _opened is None or _opened[0] != os.getpid():
        submission, index, expansions = _context
        _opened = (os.getpid(), Submission(submission),
                   IndexGroundTruth(PreparedIndex.open(index)), expansions)
    return _opened


def _match_task(rows: range) -> tuple[dict[bool, _Found], np.ndarray, tuple[int, int]]:
    """Match some images: findings by expansion, (C,) positives, and how many detections have
    ancestors and how many expansion added."""
    _, submission, truths, expansions = _open()
    space = truths.index.label_space
    parts: dict[bool, list[_Found]] = {expand: [] for expand in expansions}
    positives = np.zeros(truths.num_classes, np.int64)
    expandable = added = 0
    for row in rows:
        truth = truths.image(row)
        positives += count_positives(truth, truths.num_classes)
        image = submission.image(truths.index.image_id(row))
        if image is None or not image.detections:
            continue
        one = _Image(image, space, submission.path)
        expandable += one.expandable
        added += one.added
        for expand, found in one.match(truth, row, expansions):
            parts[expand].append(found)
    return ({expand: _Found.concatenate(items) for expand, items in parts.items()}, positives,
            (expandable, added))


class _Image:
    """One image's detections, and what expansion makes of them."""

    def __init__(self, image: ImageDetections, space: LabelSpace, path: str) -> None:
        self._where = {'path': path, 'row': image.row}
        self._image, self._space = image, space
        try:
            scores = np.array([float(detection.score) for detection in image.detections])
            self._masks: list[Rle] = [{'size': [image.height, image.width],
                                       'counts': inflate_text(detection.mask, image.height,
                                                              image.width)}
                                      for detection in image.detections]
        except ValueError as error:  # MaskError is one
            raise UserError(f'image {image.image_id}: {error}', **self._where) from None
        unknown = [d.mid for d in image.detections if d.mid not in space.ids]
        if unknown:
            raise UserError(f'image {image.image_id}: unknown class {unknown[0]!r}', **self._where)
        class_ids = np.array([space.ids[d.mid] for d in image.detections], np.int64)
        rank = np.empty(len(scores), np.int64)
        rank[np.argsort(-scores, kind='stable')] = np.arange(len(scores))
        expanded = expand_detections(class_ids, scores, [d.mask for d in image.detections], space)
        plain = np.arange(len(scores))
        self._sets = {False: (plain, class_ids), True: (expanded.rows, expanded.class_ids)}
        self._scores, self._rank = scores, rank
        self.expandable = sum(bool(space.ancestors(c)) for c in class_ids.tolist())
        self.added = len(expanded) - len(np.unique(expanded.rows))

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
            raise UserError(f'image {self._image.image_id}: {error}', **self._where) from None
        matches = matches.select(matches.outcome != DROPPED)
        return matches, self._rank[rows[matches.detection]]

    def _found(self, rows: np.ndarray, class_ids: np.ndarray, matches: Matches,
               rank: np.ndarray) -> _Found:
        texts = self._image.detections
        costs = [len(self._space.mids[class_id]) + len(texts[n].score) + len(texts[n].mask) + 3
                 for n, class_id in zip(rows.tolist(), class_ids.tolist(), strict=True)]
        return _Found(matches, rank, self._scores[rows], self._rank[rows],
                      np.array(costs, np.int64), self._scores.max(keepdims=True))


# ------------------------------------------------------------------------------------- results

def format_table(points: Sequence[Point]) -> str:
    """The points as text, the best mAP marked."""
    best = best_point(points)
    lines = ['expansion  cap  threshold      mAP  detections     size']
    for point in points:
        cap = '-' if point.max_per_img is None else point.max_per_img
        lines.append(f'{"yes" if point.expand_hierarchy else "no":>9}{cap:>5}'
                     f'{point.score_thr:>11g}{point.mean_ap:>9.4f}{point.detections:>12}'
                     f'{point.size / 1e6:>8.1f}M{"  best" if point is best else ""}')
    return '\n'.join(lines)


def best_point(points: Sequence[Point]) -> Point:
    """The highest mAP; of equal ones the smallest file."""
    return max(points, key=lambda point: (np.nan_to_num(point.mean_ap, nan=-1.), -point.size))


def smallest_near_best(points: Sequence[Point], tolerance: float = 0.001) -> Point:
    """The smallest file whose mAP is within ``tolerance`` of the best."""
    best = best_point(points)
    near = [point for point in points if point.mean_ap >= best.mean_ap - tolerance]
    return min(near, key=lambda point: point.size, default=best)


def write_table(path: str | os.PathLike, points: Sequence[Point]) -> None:
    """The points as CSV."""
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Point)],
                                lineterminator='\n')
        writer.writeheader()
        writer.writerows(asdict(point) for point in points)


def draw(path: str | os.PathLike, points: Sequence[Point]) -> None:
    """mAP against file size as a picture, one line an expansion and cap."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout='constrained')
    axes = figure.subplots()
    caps = sorted({point.max_per_img for point in points}, key=lambda cap: cap or np.inf)
    for (expand, cap), line in itertools.groupby(
            points, key=lambda point: (point.expand_hierarchy, point.max_per_img)):
        line = sorted(line, key=lambda point: point.size)
        axes.plot([point.size / 1e6 for point in line], [point.mean_ap for point in line],
                  'o-' if expand else 's--', color=f'C{caps.index(cap)}', markersize=4,
                  label=f'{"" if expand else "not "}expanded, '
                        f'{"no cap" if cap is None else f"at most {cap} an image"}')
    best = best_point(points)
    axes.annotate(f'{best.mean_ap:.4f} from {best.score_thr:g}', (best.size / 1e6, best.mean_ap),
                  textcoords='offset points', xytext=(-6, 8), ha='right')
    axes.set(xscale='log', xlabel='file size, MB', ylabel='challenge mAP',
             title='Each line: score thresholds from high (left) to low (right)')
    axes.margins(y=0.12)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    with atomic_write(path, 'wb') as file:
        figure.savefig(file, dpi=120, format='png')
