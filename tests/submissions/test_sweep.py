"""The sweep's numbers are those of the submissions that its options would give."""

import csv
import itertools

import numpy as np
import pytest
from PIL import Image

from projects.openimages.common.errors import UserError
from projects.openimages.data.index import PreparedIndex
from projects.openimages.submissions.sweep import sweep
from projects.openimages.submissions.sweep_result import SweepPoint, SweepResult
from tests.helpers import assert_one_line_error, run_tool
from tests.submissions.fake_dump import evaluate, fake_dump, prepare_demo, reselect


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    return prepare_demo(tmp_path_factory.mktemp('demo'))


@pytest.fixture
def dump(tmp_path, prepared):
    return fake_dump(tmp_path / 'dump.csv', prepared / 'index.arrow', seed=4)


def test_every_point_equals_evaluating_the_submission_with_its_options(tmp_path, prepared, dump):
    thresholds, caps = (0.0, 0.37, 0.8, 1.0), (1, 3, None)
    result = sweep(dump, prepared / 'index.arrow', score_thrs=thresholds, caps=caps)
    space = PreparedIndex.open(prepared / 'index.arrow').label_space
    grid = list(itertools.product((False, True), caps, thresholds))
    assert [(p.expand_hierarchy, p.max_per_img, p.score_thr) for p in result.points] == grid
    for point in result.points:
        path = reselect(dump, tmp_path / 'one.csv', space, expand=point.expand_hierarchy,
                        score_thr=point.score_thr, max_per_img=point.max_per_img)
        assert point.size == path.stat().st_size
        expected = evaluate(prepared, path, tmp_path / 'metrics.csv')
        assert point.mean_ap == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert result.best.mean_ap > 0.2  # the made-up detections are worth something
    assert result.points[-1].detections == 0


def test_processes_do_not_change_the_numbers(prepared, dump, monkeypatch):
    monkeypatch.setattr('projects.openimages.submissions.sweep._IMAGES_A_TASK', 3)
    one, two = (sweep(dump, prepared / 'index.arrow', score_thrs=[0, 0.5], caps=[2, None],
                      workers=n) for n in (1, 2))
    assert one == two


def test_expanded_submission_is_refused(tmp_path, prepared, dump):
    space = PreparedIndex.open(prepared / 'index.arrow').label_space
    path = reselect(dump, tmp_path / 'expanded.csv', space, expand=True)
    with pytest.raises(UserError, match='--no-expand-hierarchy'):
        sweep(path, prepared / 'index.arrow', score_thrs=[0], caps=[None])


def points(*pairs):
    return tuple(SweepPoint(True, 0.1, None, mean_ap, 5, size) for mean_ap, size in pairs)


def test_best_is_the_highest_then_the_smallest_and_nan_never():
    result = SweepResult(points((np.nan, 1), (0.5, 30), (0.5, 20), (0.4995, 10), (0.4, 2)))
    assert result.best is result.points[2]
    assert result.smallest_near_best() is result.points[3]
    assert [line.endswith('best') for line in str(result).splitlines()] == [
        False, False, False, True, False, False]


def test_command_writes_table_and_picture(tmp_path, prepared, dump):
    result = run_tool('tools/sweep.py', dump, '--index', prepared / 'index.arrow', '--out',
                      tmp_path / 'out', '--score-thr', 0, 0.5, '--max-per-img', 0, 2)
    assert result.returncode == 0, result.stderr
    assert 'best' in result.stdout and '--score-thr' in result.stdout
    with open(tmp_path / 'out' / 'sweep.csv', newline='') as file:
        assert len(list(csv.DictReader(file))) == 8
    assert Image.open(tmp_path / 'out' / 'sweep.png').size > (400, 300)


def test_broken_row_is_named_in_one_line(tmp_path, prepared, dump):
    lines = dump.read_text().splitlines()
    broken = next(n for n, line in enumerate(lines) if n and line.split(',')[3])
    lines[broken] = lines[broken][:-9]
    dump.write_text('\n'.join(lines))
    result = run_tool('tools/sweep.py', dump, '--index', prepared / 'index.arrow', '--out',
                      tmp_path / 'out')
    assert_one_line_error(result, f'dump.csv, row {broken + 1}: ')
    assert not (tmp_path / 'out').exists()
