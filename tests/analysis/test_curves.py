"""Curves of runs: read from their scalars, resumed ones joined, drawn by name."""

import json

import pytest
from PIL import Image

from projects.openimages.analysis.curves import plot_runs, read_run
from projects.openimages.common.errors import UserError
from tests.helpers import assert_one_line_error, run_tool


def write_scalars(folder, name, *lines, end='\n'):
    path = folder / name / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(json.dumps(line) for line in lines) + end)
    return path


@pytest.fixture
def resumed(tmp_path):
    """A run that was killed after step 3, in the middle of a line, and resumed from step 2."""
    write_scalars(tmp_path, '20250101_000000', {'loss': 4., 'step': 1}, {'loss': 3., 'step': 2},
                  {'openimages/mAP': 0.1, 'openimages/AP/Cat': 0.1, 'step': 2},
                  {'loss': 99., 'step': 3}, end='\n{"loss": 2')
    write_scalars(tmp_path, '20250102_000000', {'loss': 2., 'step': 3}, {'loss': 1., 'step': 4},
                  {'openimages/mAP': 0.3, 'openimages/AP/Cat': 0.2, 'step': 4})
    return tmp_path


def test_a_resumed_run_is_one_curve_and_the_later_part_counts(resumed):
    assert read_run(resumed) == {
        'loss': {1: 4., 2: 3., 3: 2., 4: 1.}, 'openimages/mAP': {2: 0.1, 4: 0.3},
        'openimages/AP/Cat': {2: 0.1, 4: 0.2}}


def drawn(figure):
    """By panel: what is drawn, by run."""
    return {panel.get_title(): {line.get_label(): dict(zip(*map(list, line.get_data()),
                                                           strict=True)) for line in panel.lines}
            for panel in figure.axes if panel.axison}


def test_loss_and_map_of_every_run_are_drawn_unless_others_are_named(resumed):
    runs = {'a': read_run(resumed), 'b': {'loss': {5: 7.}, 'lr': {5: 1.}}}
    both = {'loss': {'a': {1: 4., 2: 3., 3: 2., 4: 1.}, 'b': {5: 7.}},
            'openimages/mAP': {'a': {2: 0.1, 4: 0.3}}}
    assert drawn(plot_runs(runs)) == both
    assert drawn(plot_runs(runs, ['openimages/AP/Cat', 'lr', 'loss'])) == {
        'openimages/AP/Cat': {'a': {2: 0.1, 4: 0.2}}, 'lr': {'b': {5: 1.}}, 'loss': both['loss']}


def test_mistakes_name_what_is_there(resumed, tmp_path):
    with pytest.raises(UserError, match=r'--keys lss: no run has it, they have loss, openim'):
        plot_runs({'a': read_run(resumed)}, ['lss'])
    with pytest.raises(UserError, match='they have lr'):
        plot_runs({'a': {'lr': {1: 1.}}})
    with pytest.raises(UserError, match='expected the work dir'):
        read_run(tmp_path / '20250101_000000')
    path = write_scalars(tmp_path, 'bad', {'loss': 1.}, {'loss': 2., 'step': 2})
    with pytest.raises(UserError, match=r'scalars\.json.*1.*step'):
        read_run(path)


def test_the_command_writes_a_picture(resumed):
    out = resumed / 'curves.png'
    result = run_tool('tools/plot_log.py', resumed, '--out', out, '--names', 'mine')
    assert result.returncode == 0, result.stderr
    assert Image.open(out).width > 1000
    assert_one_line_error(run_tool('tools/plot_log.py', resumed / 'none', '--out', out), 'none')
