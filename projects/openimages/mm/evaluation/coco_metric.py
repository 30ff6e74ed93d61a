"""COCO's average precision of a model whose masks are run lengths."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS

from projects.openimages.masks import to_rles
from projects.openimages.mm.structures.predicted import instances_of


@METRICS.register_module()
class RleCocoMetric(CocoMetric):
    """``CocoMetric`` that takes ``RleMasks``."""

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep one batch's predictions."""
        super().process(data_batch, [_with_rles(sample) for sample in data_samples])


def _with_rles(sample: dict) -> dict:
    predictions = instances_of(sample)
    return {**sample, 'pred_instances': {**predictions, 'masks': to_rles(predictions['masks'])}}
