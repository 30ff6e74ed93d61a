"""The predictions of a test as a pickle (``tools/test.py --out``), also where masks are RLEs."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.evaluation import DumpDetResults
from mmdet.registry import METRICS

from projects.openimages.masks import to_rles
from projects.openimages.mm.structures.predicted import instances_of


@METRICS.register_module()
class DumpPredictions(DumpDetResults):
    """``DumpDetResults``, which takes masks as pixels only, for masks of either kind."""

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep one batch's predictions on the CPU."""
        for sample in data_samples:
            sample = {**sample, 'pred_instances': dict(instances_of(sample))}
            masks = sample['pred_instances'].pop('masks')
            super().process(data_batch, [sample])
            self.results[-1]['pred_instances']['masks'] = to_rles(masks)
