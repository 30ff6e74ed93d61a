"""The average precision of each class as a curve, beside the means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mmdet.registry import HOOKS
from mmengine.dist import master_only
from mmengine.hooks import Hook

from projects.openimages.mm.evaluation.challenge_metric import OpenImagesChallengeMetric

TABLE_NAME = 'class_scores.csv'


@HOOKS.register_module()
class ClassScoresHook(Hook):
    """Gives ``<prefix>/AP/<class>`` of each validation to the run's visualizer.

    That is to ``scalars.json``, and to TensorBoard and W&B where the run has them; the text log,
    in one line of which they would all stand, has the metric's table. Classes without instances
    have no AP. The metric's table of the last validation stays in the run's folder as
    ``class_scores.csv``, unless it has a ``table_file`` of its own.
    """

    @master_only
    def before_val_epoch(self, runner: Any) -> None:
        """Have the metrics write their tables."""
        for number, metric in enumerate(_challenge_metrics(runner)):
            if metric.table_file is None:
                name = f'{number}_{TABLE_NAME}' if number else TABLE_NAME
                metric.table_file = str(Path(runner.log_dir, name))

    @master_only
    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Hand on what the tables say."""
        for metric in _challenge_metrics(runner):
            table = pd.read_csv(metric.table_file, keep_default_na=False, na_values={'AP': ['']})
            table = table.dropna(subset='AP')
            scores = {f'{metric.prefix}/AP/{name}': value for name, value in
                      zip(table['name'], table['AP'].tolist(), strict=True)}
            if scores:
                runner.visualizer.add_scalars(scores, step=runner.iter)


def _challenge_metrics(runner: Any) -> list[OpenImagesChallengeMetric]:
    return [metric for metric in runner.val_loop.evaluator.metrics
            if isinstance(metric, OpenImagesChallengeMetric)]
