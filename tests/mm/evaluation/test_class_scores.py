"""Each class's AP is a curve, wherever the run's scalars go."""

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from mmengine.config import Config
from mmengine.visualization import TensorboardVisBackend
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine.log_backends import add_log_backends
from projects.openimages.mm.evaluation.challenge_metric import OpenImagesChallengeMetric
from projects.openimages.mm.evaluation.class_scores import ClassScoresHook


@pytest.fixture(scope='module')
def class_scores(trained):
    """By name, from the table of the run's one validation."""
    table = pd.read_csv(trained.logs.parent / 'class_scores.csv').dropna(subset='AP')
    scores = {f'openimages/AP/{name}': value
              for name, value in zip(table['name'], table['AP'], strict=True)}
    assert len(scores) > 5
    return scores


@pytest.fixture(scope='module')
def scalars(trained):
    return [json.loads(line) for line in (trained.logs / 'scalars.json').read_text().splitlines()]


def test_scalars_json_has_every_class_at_the_iteration_of_the_validation(scalars, class_scores):
    [line] = [line for line in scalars if any('/AP/' in name for name in line)]
    assert line == {**class_scores, 'step': 3}
    [means] = [line for line in scalars if 'openimages/mAP' in line]
    assert means['step'] == 3
    assert sum(class_scores.values()) / len(class_scores) == pytest.approx(
        means['openimages/mAP'], abs=1e-12)


def test_the_event_file_of_tensorboard_has_the_same(trained, scalars, class_scores):
    events = EventAccumulator(str(trained.logs))
    events.Reload()
    for name, value in class_scores.items():
        [event] = events.Scalars(name)
        assert (event.step, event.value) == (3, pytest.approx(value, abs=1e-6))
    assert [(event.step, event.value) for event in events.Scalars('loss')] == [
        (line['step'], pytest.approx(line['loss'], rel=1e-6)) for line in scalars if 'loss' in line]


def test_wandb_has_the_same_over_the_iterations(trained, scalars, class_scores):
    calls = [json.loads(line) for line in (trained.logs / 'wandb.jsonl').read_text().splitlines()]
    assert ['define_metric', '*', {'step_metric': 'iter'}] in calls
    logged = [call[1] for call in calls if call[0] == 'log']
    assert class_scores in logged
    assert [line['iter'] for line in logged if 'loss' in line] == [1, 2, 3]


def test_the_text_log_is_not_flooded(trained):
    assert 'openimages/AP/' not in trained.output


def test_each_class_has_its_own_score_and_one_without_instances_has_none(demo_root,
                                                                             tmp_path):
    """The trained run finds nothing, so its scores cannot tell one class from another."""
    metric = OpenImagesChallengeMetric(str(demo_root / 'prepared/validation/index.arrow'))
    metric.table_file = str(tmp_path / 'table.csv')
    Path(metric.table_file).write_text('name,AP\nCat,0.25\nDog,0.75\nNA,0.5\nCup,\n')
    given = {}
    runner = SimpleNamespace(
        iter=7, rank=0,
        val_loop=SimpleNamespace(evaluator=SimpleNamespace(metrics=[metric])),
        visualizer=SimpleNamespace(add_scalars=lambda scores, step: given.update({step: scores})))
    ClassScoresHook().after_val_epoch(runner)
    assert given == {7: {'openimages/AP/Cat': 0.25, 'openimages/AP/Dog': 0.75,
                         'openimages/AP/NA': 0.5}}


def test_wandb_is_not_imported_unless_it_is_asked_for_and_missing_it_is_said(monkeypatch):
    cfg = Config({'visualizer': {'vis_backends': [{'type': 'LocalVisBackend'}]}})
    monkeypatch.setattr('projects.openimages.mm.engine.log_backends.find_spec',
                        lambda name: name != 'wandb' or None)
    add_log_backends(cfg, ['tensorboard', 'tensorboard'])
    add_log_backends(cfg, ['tensorboard'])
    of_class = Config({'visualizer': {'vis_backends': [{'type': TensorboardVisBackend}]}})
    add_log_backends(of_class, ['tensorboard'])
    assert len(of_class.visualizer.vis_backends) == 1
    assert [backend.type for backend in cfg.visualizer.vis_backends] == [
        'LocalVisBackend', 'TensorboardVisBackend']
    with pytest.raises(UserError, match='pip install wandb'):
        add_log_backends(cfg, ['wandb'])
