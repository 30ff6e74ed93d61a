"""The whole report: everything counted, put together, drawn and written.

In: one dump, the prepared split that it is for, and what one has besides: training counts, another
dump, the images. Out: a folder with ``index.html``, ``report.json``, ``plots/*.png`` and
``suspects.csv``. ``docs/report.md`` says what is in ``report.json``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from projects.openimages.analysis import plots
from projects.openimages.analysis.bootstrap import Interval, resample
from projects.openimages.analysis.calibration import OUTCOME_NAMES, Calibration, calibrate
from projects.openimages.analysis.causes import Cause, direct_parents
from projects.openimages.analysis.compare import Comparison, compare, mean_of_draws
from projects.openimages.analysis.confusion import Confusion, confusion_matrix, confusions
from projects.openimages.analysis.errors import ErrorCost, error_costs
from projects.openimages.analysis.operating import by_cap, by_iou, by_size, by_threshold, pr_curves
from projects.openimages.analysis.outcomes import analyse
from projects.openimages.analysis.page import Pictures, write_page
from projects.openimages.analysis.pictures import Artist
from projects.openimages.analysis.suspects import Suspect, find_suspects, write_suspects
from projects.openimages.analysis.worst import image_errors, worst_classes
from projects.openimages.challenge.from_index import train_image_counts
from projects.openimages.challenge.report import describe
from projects.openimages.common.errors import UserError
from projects.openimages.common.files import atomic_write, exclusive, refuse_to_overwrite
from projects.openimages.common.json_values import plain_json
from projects.openimages.data.index import PreparedIndex
from projects.openimages.metric import ChallengeScore, score
from projects.openimages.submissions.formats import Submission
from projects.openimages.submissions.selection import check_options

REPORT_VERSION = 1
PAGE, NUMBERS, SUSPECTS = 'index.html', 'report.json', 'suspects.csv'
ELSEWHERE = 'image not in the split'
CAUSE_NAMES = {
    Cause.TRUE: 'true', Cause.DUPLICATE: 'duplicate', Cause.SIBLING: 'wrong class: sibling',
    Cause.RELATIVE: 'wrong class: parent or child', Cause.OTHER_CLASS: 'wrong class: other',
    Cause.POOR_MASK: 'poor mask', Cause.BACKGROUND: 'background',
    Cause.BOX: 'ignored: box without mask', Cause.GROUP: 'ignored: group-of box',
    Cause.ABSORBED: 'ignored: beside a better one on a group-of',
    Cause.UNVERIFIED: 'dropped: class not verified', Cause.EMPTY: 'dropped: empty mask',
    Cause.CUT: 'dropped: cut by the evaluator’s cap'}
# Others' results, as they have published them, on the challenge's test images.
PUBLISHED = (
    ('dfan: Mask R-CNN R50, 1.3M iterations', 0.0941),
    ('dfan: Mask R-CNN R50, 1.8M iterations', 0.1496),
    ('ZFTurbo: Mask R-CNN R50', 0.4259), ('ZFTurbo: Mask R-CNN R101', 0.4345),
    ('ZFTurbo: Mask R-CNN R152', 0.4404),
    ('7th place: Cascade R-CNN X101, single model', 0.4708), ('7th place: ensemble', 0.5383))


@dataclass(frozen=True)
class ReportOptions:
    """What is reported on, and how.

    Attributes:
        predictions: the dump.
        index: ``index.arrow`` of its split.
        train_index: of the training split, for rare, common and frequent classes.
        compare: another dump of the same split.
        images: folder of ``<ImageID>.jpg``; without it there are no pictures.
        score_thr: errors and confusions of single images are counted from this score on.
        pictures: of each kind, at most.
        workers: processes.
    """

    predictions: str | os.PathLike
    index: str | os.PathLike
    train_index: str | os.PathLike | None = None
    compare: str | os.PathLike | None = None
    images: Path | None = None
    score_thr: float = 0.3
    pictures: int = 6
    workers: int = 1


def make_report(options: ReportOptions, out: Path) -> dict[str, Any]:
    """Write the report into a folder, and return what ``report.json`` says.

    Raises:
        UserError: a broken or missing input, or a dump of another split.
    """
    check_options(options.score_thr, None)
    if options.pictures < 0:
        raise UserError(f'{options.pictures} pictures, expected 0 or more')
    index = PreparedIndex.open(options.index)
    if out.exists() and out.samefile(Path(options.index).parent):  # has a report.json of its own
        raise UserError('the prepared split itself, expected another folder to write into',
                        path=out)
    inputs = [options.predictions, *([] if options.compare is None else [options.compare])]
    for name in (PAGE, NUMBERS, SUSPECTS):
        refuse_to_overwrite(out / name, *inputs)
    counts = None
    if options.train_index is not None:
        train = PreparedIndex.open(options.train_index)
        if train.label_space.mids != index.label_space.mids:
            raise UserError(f'other classes than in {index.path}', path=options.train_index)
        counts = train_image_counts(train)
    with ExitStack() as stack:
        dumps = [stack.enter_context(Submission(path)) for path in inputs]
        stack.enter_context(exclusive(out / PAGE, 'writing this report'))
        analysed = [(analyse(dump, index, options.workers), dump) for dump in dumps]
        artists = [Artist(outcomes, dump, index, options.images or Path(), options.score_thr)
                   for (outcomes, _), dump in analysed]
        elsewhere = analysed[0][0][1]
        return _write(_Report(options, artists, elsewhere, counts), out)


class _Report:
    """Everything that is counted, from the outcomes of one dump and perhaps of another.

    Args:
        options: what is reported on.
        artists: of the dump, and of the one that it is compared with if there is one.
        elsewhere: detections of images that the split does not have.
        train_images: (C,) int training images by class, or None.
    """

    def __init__(self, options: ReportOptions, artists: Sequence[Artist], elsewhere: int,
                 train_images: np.ndarray | None) -> None:
        self.options, self.elsewhere = options, elsewhere
        self.artist, *rivals = artists
        self.index, self.outcomes = index, outcomes = self.artist.index, self.artist.outcomes
        space, num_classes = index.label_space, index.label_space.num_classes
        self.score: ChallengeScore = describe(
            score(outcomes.matches, outcomes.positives(num_classes)), space, train_images)
        positives = self.score.positives
        self.costs: dict[str, ErrorCost] = error_costs(outcomes, num_classes)
        self.thresholds = by_threshold(outcomes, positives)
        self.caps = by_cap(outcomes, positives)
        self.ious, self.sizes = by_iou(outcomes, positives), by_size(outcomes, num_classes)
        self.curves = pr_curves(outcomes, positives)
        self.calibration: Calibration = calibrate(outcomes)
        self.confusions: list[Confusion] = confusions(outcomes, options.score_thr)
        self.matrix = confusion_matrix(outcomes, self.confusions, options.score_thr)
        self.images = image_errors(outcomes, index.num_images, options.score_thr)
        self.suspects: list[Suspect] = find_suspects(outcomes, self.artist.submission, index,
                                                     max(options.score_thr, 0.5))
        self.draws = resample([artist.outcomes for artist in artists], index.num_images,
                              num_classes, workers=options.workers)
        self.rival = rivals[0] if rivals else None
        self.comparison: Comparison | None = None
        if self.rival:
            self.comparison = compare(outcomes, self.rival.outcomes, self.draws, index.num_images,
                                      options.score_thr, options.pictures)

    def to_dict(self) -> dict[str, Any]:
        """``report.json``."""
        return plain_json({
            'report_version': REPORT_VERSION, 'inputs': self._inputs(),
            'headline': self._headline(),
            'published': [{'name': name, 'mAP': value} for name, value in PUBLISHED],
            'outcomes': self.outcome_counts(),
            'errors': [{'name': name, 'count': cost.count, 'cost': cost.cost}
                       for name, cost in self.costs.items()],
            'classes': list(self._classes()),
            'confusions': [{'predicted': pair.predicted, 'actual': pair.actual,
                            'relation': CAUSE_NAMES[pair.relation], 'count': pair.count,
                            'confident': pair.confident, 'mean_score': pair.mean_score}
                           for pair in self.confusions],
            'confusion_matrix': {'classes': self.matrix[0], 'counts': self.matrix[1]},
            'calibration': {'expected_error': self.calibration.expected_error,
                            'counts': dict(zip(OUTCOME_NAMES.values(), self.calibration.counts,
                                               strict=True)),
                            'mean_scores': self.calibration.mean_scores,
                            'precisions': self.calibration.precisions},
            'thresholds': [{'score_thr': thr, 'mAP': value}
                           for thr, value in self.thresholds.items()],
            'caps': [{'max_per_img': cap, 'mAP': value} for cap, value in self.caps.items()],
            'worst_images': [self._image(n) for n in self.images.worst(100)],
            'suspects': [asdict(suspect) for suspect in self.suspects],
            'comparison': self.comparison and self._comparison(self.comparison)})

    def _inputs(self) -> dict[str, Any]:
        paths = {name: None if path is None else os.fspath(path)
                 for name, path in vars(self.options).items()
                 if name in ('predictions', 'index', 'train_index', 'compare', 'images')}
        return {**paths, 'split': self.index.split, 'score_thr': self.options.score_thr}

    def _headline(self) -> dict[str, Any]:
        ranks = self.outcomes.rank[~self.outcomes.copy]
        most = int(ranks.max(initial=-1)) + 1
        return {
            **self.score.means,
            'mAP_interval': asdict(Interval.of(mean_of_draws(self.draws[0]))),
            'mAP_50_95': float(np.mean(list(self.ious.values()))),
            'IoU': {f'{thr:.2f}': value for thr, value in self.ious.items()},
            'sizes': {name: {'mAP': value, 'positives': count}
                      for name, (value, count) in self.sizes.items()},
            'images': self.index.num_images, 'detections': sum(self.outcome_counts().values()),
            'classes': int((self.score.positives > 0).sum()),
            'positives': int(self.score.positives.sum()),
            'most_detections_an_image': most,
            'images_with_the_most': int((ranks == most - 1).sum())}

    def outcome_counts(self) -> dict[str, int]:
        """Detections by what became of them; together all of the file's."""
        found = np.bincount(self.outcomes.cause, minlength=len(Cause))
        return {**{name: int(found[cause]) for cause, name in CAUSE_NAMES.items()},
                ELSEWHERE: self.elsewhere}

    def _classes(self) -> Iterator[dict[str, Any]]:
        parents = direct_parents(self.index.label_space)
        dropped = np.bincount(
            self.outcomes.matches.class_id[self.outcomes.cause >= Cause.UNVERIFIED],
            minlength=len(parents))
        for row in self.score.to_dict()['classes']:
            c = row['class_id']
            yield {**row, 'AP_interval': asdict(Interval.of(self.draws[0, :, c])),
                   'dropped': dropped[c], 'parents': np.flatnonzero(parents[c]),
                   'errors': {name: cost.gains[c] for name, cost in self.costs.items()},
                   'curve': np.round(self.curves.get(c, np.zeros((0, 3))), 5)}

    def _image(self, number: int) -> dict[str, Any]:
        return {'image_id': self.index.image_id(number), 'missed': self.images.missed[number],
                'false': self.images.false[number]}

    def _comparison(self, comparison: Comparison) -> dict[str, Any]:
        return {'mAP': comparison.mean_ap, 'other_mAP': comparison.other_mean_ap,
                'difference': comparison.difference, 'interval': asdict(comparison.interval),
                'classes': [{**asdict(one), 'difference': one.difference}
                            for one in comparison.classes],
                'better_images': [self.index.image_id(n) for n in comparison.better],
                'worse_images': [self.index.image_id(n) for n in comparison.worse]}

    def plots(self) -> dict[str, tuple[plots.Plot, tuple[float, float]]]:
        """Every plot by name, with its size in inches."""
        names = self.index.label_space.names
        found = {
            'errors': (plots.error_costs({name: cost.cost for name, cost in self.costs.items()}),
                       (6, 3)),
            'outcomes': (plots.outcome_shares(self.outcome_counts()), (7, 3.4)),
            'classes': (plots.class_precisions(self.score), (8, 3)),
            'iou': (plots.line(self.ious, 'IoU threshold'), (4.5, 3)),
            'thresholds': (plots.line(self.thresholds, 'score threshold', 'from'), (4.5, 3)),
            'caps': (plots.line(self.caps, 'detections an image at most', 'at'), (4.5, 3)),
            'calibration': (plots.reliability(self.calibration), (4.5, 3)),
            'scores': (plots.score_histogram(self.calibration), (4.5, 3))}
        if self.comparison:
            found['comparison'] = (plots.differences(self.comparison, names), (6, 5))
        return found

    def pictures(self) -> Pictures:
        """The pictures by kind, each with its caption; none without images or for 0."""
        found = Pictures()
        if self.options.images is None or not self.options.pictures:
            return found
        names, most = self.index.label_space.names, self.options.pictures
        for n in self.images.worst(most):
            found.add('worst', f'{self.index.image_id(n)}: {self.images.missed[n]} not found, '
                      f'{self.images.false[n]} false', self.artist.image(n))
        result = self.score
        for c in worst_classes(result.average_precisions, result.positives, most):
            for n in image_errors(self.outcomes, self.index.num_images, self.options.score_thr,
                                  c).worst(1):
                found.add('classes', f'{names[c]}, AP {result.average_precisions[c]:.4f}',
                          self.artist.image(n, c))
        for pair in self.confusions[:most]:
            found.add('confusions', f'{names[pair.actual]} taken for {names[pair.predicted]}',
                      self.artist.detection(pair.rows[0]))
        for suspect in self.suspects[:most]:
            found.add('suspects', f'{suspect.Name}: {suspect.Reason}',
                      self.artist.detection(suspect.row))
        if self.comparison and self.rival:
            for kind, images in (('better', self.comparison.better),
                                 ('worse', self.comparison.worse)):
                for n in images:
                    found.add(kind, f'{self.index.image_id(n)}: this dump above, the other below',
                              self.artist.image(n), self.rival.image(n))
        return found


def _write(report: _Report, out: Path) -> dict[str, Any]:
    told = report.to_dict()
    drawn = {}
    for name, (plot, size) in report.plots().items():
        drawn[name], png = plots.render(name, plot, size)
        with atomic_write(out / 'plots' / f'{name}.png', 'wb') as file:
            file.write(png)
    write_suspects(out / SUSPECTS, report.suspects)
    with atomic_write(out / NUMBERS) as file:
        json.dump(told, file, ensure_ascii=False, allow_nan=False)
        file.write('\n')
    write_page(out / PAGE, told, drawn, report.pictures())
    return told
