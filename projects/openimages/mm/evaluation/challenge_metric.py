"""The challenge metric at validation time.

In: batches of predictions. Out: the official evaluator's mAP, the number that the submission of
the same detections gets. Each image is reduced to what became of its detections as it comes, so
memory grows with the number of scores, not with masks; a thread does that, while the model looks at
the next images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from projects.openimages.challenge.from_index import IndexGroundTruth, train_image_counts
from projects.openimages.challenge.report import describe
from projects.openimages.common.beside import Beside
from projects.openimages.common.errors import ConfigError
from projects.openimages.common.files import atomic_write
from projects.openimages.data.index import PreparedIndex
from projects.openimages.metric import (
    DROPPED,
    OFFICIAL_THRESHOLD,
    SORT_KEYS,
    ChallengeScore,
    Detections,
    Matches,
    count_positives,
    match_image,
    score,
)
from projects.openimages.mm.evaluation.predictions import classes_of_labels, select_predictions
from projects.openimages.mm.structures.predicted import instances_of

_NO_DETECTIONS = Detections(np.zeros(0, np.int64), np.zeros(0), [])
_WAITING = 16  # images that may wait to be matched
COCO_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())


@dataclass(frozen=True)
class _ImageResult:
    """What one image contributes: its index row, one Matches a threshold, and (C,) positives."""

    row: int
    matches: list[Matches]
    positives: np.ndarray


@METRICS.register_module()
class OpenImagesChallengeMetric(BaseMetric):
    """Average precision as the Open Images challenge defines it.

    Ground truth comes from the prepared index, detections from ``pred_instances`` (``labels``,
    ``scores``, ``masks`` as RLEs or a (N, H, W) tensor), the image from the sample's ``image_id``.
    Reports, with prefix ``openimages``: ``mAP``; ``mAP_leaves`` and ``mAP_parents``; with
    ``train_index`` also ``mAP_frequent``, ``mAP_common`` and ``mAP_rare``; with ``coco_thresholds``
    also ``mAP_50_95``. ``save_best`` can name any of them.

    Args:
        index: ``index.arrow`` of the split that is evaluated.
        train_index: ``index.arrow`` of the training split, to count training images by class.
        frequency_bounds: below the first number of training images a class is rare, from the
            second on frequent.
        coco_thresholds: average over IoU 0.5, 0.55 .. 0.95 as well.
        expand_hierarchy: score each detection also for its ancestor classes, as the submission
            dump does.
        score_thr: leave out detections below this score.
        max_per_img: keep the best so many detections of an image, before expansion.
        table: print the per-class table.
        sort_by: its order: ``'ap'`` (worst first), ``'frequency'``, ``'name'`` or ``'class_id'``.
        table_rows: how many of its rows to print; None prints all.
        table_file: write the whole table to this CSV as well.
        collect_device, collect_dir: as in ``BaseMetric``.
    """

    default_prefix = 'openimages'

    def __init__(self, index: str, train_index: str | None = None, *,
                 frequency_bounds: tuple[int, int] = (500, 5000), coco_thresholds: bool = False,
                 expand_hierarchy: bool = True, score_thr: float = 0.0,
                 max_per_img: int | None = None, table: bool = True, sort_by: str = 'ap',
                 table_rows: int | None = None, table_file: str | None = None,
                 collect_device: str = 'cpu', collect_dir: str | None = None) -> None:
        super().__init__(collect_device=collect_device, collect_dir=collect_dir)
        if sort_by not in SORT_KEYS:
            raise ConfigError(f'sort_by {sort_by!r}, expected one of {", ".join(SORT_KEYS)}')
        self.index = PreparedIndex.open(index)
        self.label_space = self.index.label_space
        self.truth = IndexGroundTruth(self.index)
        self.train_images = None
        if train_index is not None:
            self.train_images = train_image_counts(PreparedIndex.open(train_index))
        self.frequency_bounds = frequency_bounds
        self.thresholds = COCO_THRESHOLDS if coco_thresholds else (OFFICIAL_THRESHOLD,)
        self.selection = {'score_thr': score_thr, 'max_per_img': max_per_img,
                          'expand_hierarchy': expand_hierarchy}
        self.table = table
        self.sort_by = sort_by
        self.table_rows = table_rows
        self.table_file = table_file
        self._beside = Beside(_WAITING)

    def process(self, data_batch: Any, data_samples: Sequence[Mapping]) -> None:
        """Hand a batch's detections to the thread that matches them; do not wait for it.

        What went wrong with an earlier image is raised here, or by :meth:`evaluate`.
        """
        for sample in data_samples:
            row = self.index.find(sample['image_id'])
            predictions = None
            if not sample.get('unreadable'):
                found = instances_of(sample)
                predictions = {name: _on_cpu(found[name])
                               for name in ('labels', 'scores', 'masks')}
            self._beside.call(self._match, row, predictions)

    def finish(self) -> None:
        """Wait until all images that came are matched."""
        self._beside.finish()

    def evaluate(self, size: int) -> dict[str, float]:
        """The scores of all processes' images, each process having waited for its own."""
        self.finish()
        return super().evaluate(size)

    def _match(self, row: int, predictions: Mapping | None) -> None:
        """Match an image's detections and forget its masks."""
        truth = self.truth.image(row)
        found = _NO_DETECTIONS if predictions is None else self._detections(predictions)
        matches = match_image(truth, found, self.thresholds, image=row)
        self.results.append(_ImageResult(
            row, [part.select(part.outcome != DROPPED) for part in matches],
            count_positives(truth, self.truth.num_classes)))

    def _detections(self, predictions: Mapping) -> Detections:
        class_of_label = classes_of_labels(self.label_space, self.dataset_meta)
        chosen, masks = select_predictions(predictions, class_of_label, self.label_space,
                                           **self.selection)
        return Detections(chosen.class_ids, chosen.scores.astype(np.float64),
                          [masks[row] for row in chosen.rows.tolist()])

    def compute_metrics(self, results: list[_ImageResult]) -> dict[str, float]:
        """The scores of all images together; images that stand more than once count once."""
        results = [by_row for _, by_row in sorted({item.row: item for item in results}.items())]
        positives = np.sum([item.positives for item in results], axis=0)
        scores = [score(Matches.concatenate([item.matches[n] for item in results]), positives)
                  for n in range(len(self.thresholds))]
        result = describe(scores[0], self.label_space, self.train_images, self.frequency_bounds)
        metrics = result.means
        if len(scores) > 1:
            metrics['mAP_50_95'] = float(np.mean([item.mean_average_precision
                                                  for item in scores]))
        self._report(result, len(results))
        return metrics

    def _report(self, result: ChallengeScore, num_images: int) -> None:
        logger = MMLogger.get_current_instance()
        if num_images < self.index.num_images:
            logger.warning(f'{num_images} of the {self.index.num_images} images of '
                           f'{self.index.path} were evaluated; the others do not count')
        if self.table:
            logger.info('\n' + result.table(self.sort_by, self.table_rows))
        if self.table_file:
            with atomic_write(self.table_file) as file:
                result.to_pandas(self.sort_by).to_csv(file, index=False)


def _on_cpu(values: Any) -> Any:
    """A tensor on the CPU, so that none waits in a GPU's memory; what is none as it is."""
    return values.cpu() if isinstance(values, torch.Tensor) else values
