"""The sweep's numbers are those of the submissions that its options would give."""

import csv
import itertools
import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from projects.openimages.common.errors import UserError
from projects.openimages.data.index import PreparedIndex
from projects.openimages.submissions.sweep import sweep
from projects.openimages.submissions.sweep_result import SweepPoint, SweepResult
from tests.helpers import assert_one_line_error, run_tool
from tests.submissions.fake_dump import evaluate, reselect


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
    grid = {'score_thrs': [0, 0.5], 'caps': [2, None]}
    one = sweep(dump, prepared / 'index.arrow', **grid)
    monkeypatch.setattr('projects.openimages.submissions.sweep._IMAGES_A_TASK', 3)
    monkeypatch.setattr('projects.openimages.submissions.sweep._FEW_SCORES', 0)
    assert sweep(dump, prepared / 'index.arrow', **grid, workers=2) == one


def test_expanded_submission_is_refused(tmp_path, prepared, dump):
    space = PreparedIndex.open(prepared / 'index.arrow').label_space
    path = reselect(dump, tmp_path / 'expanded.csv', space, expand=True)
    with pytest.raises(UserError, match='--no-expand-hierarchy'):
        sweep(path, prepared / 'index.arrow', score_thrs=[0], caps=[None])


@pytest.mark.parametrize(('options', 'message'), [
    ({'score_thrs': [0.5, 1.5]}, 'score threshold 1.5'), ({'score_thrs': [np.nan]}, 'nan'),
    ({'caps': [5, 0]}, 'at most 0 detections'), ({'caps': [-3]}, 'at most -3 detections')])
def test_impossible_option_is_refused(prepared, dump, options, message):
    with pytest.raises(UserError, match=message):
        sweep(dump, prepared / 'index.arrow', **{'score_thrs': [0], 'caps': [None], **options})


def test_submission_of_another_split_is_refused_with_both_names(prepared, dump):
    lines = dump.read_text().splitlines()
    dump.write_text('\n'.join([lines[0], *('x' + line for line in lines[1:])]) + '\n')
    with pytest.raises(UserError, match=r"dump\.csv: none of its 8 images is among the 8 of "
                                        r".*index\.arrow: is it of the split 'validation'"):
        sweep(dump, prepared / 'index.arrow', score_thrs=[0], caps=[None])


@pytest.mark.parametrize(('common', 'others', 'warned'), [
    (3, 0, True), (4, 0, False), (8, 8, False), (8, 9, True)])
def test_submission_of_less_than_half_of_the_split_gets_a_warning(prepared, dump, capsys, common,
                                                                  others, warned):
    lines = dump.read_text().splitlines()[:common + 1]
    lines += [f'x{n},4,3,' for n in range(others)]
    dump.write_text('\n'.join(lines) + '\n')
    sweep(dump, prepared / 'index.arrow', score_thrs=[0], caps=[None])
    told = [line for line in capsys.readouterr().err.splitlines() if 'warning' in line]
    assert len(told) == warned
    if warned:
        assert f'dump.csv: only {common} of its {common + others} images are among the 8' in told[0]


def points(*pairs):
    return tuple(SweepPoint(True, 0.1, None, mean_ap, 5, size) for mean_ap, size in pairs)


def test_best_is_the_highest_then_the_smallest_and_nan_never():
    result = SweepResult(points((np.nan, 1), (0.5, 30), (0.5, 20), (0.4995, 10), (0.4, 2)))
    assert result.best is result.points[2]
    assert result.smallest_near_best() is result.points[3]
    assert [line.endswith('best') for line in str(result).splitlines()] == [
        False, False, False, True, False, False]


def test_result_is_plain_values_and_a_csv(tmp_path):
    result = SweepResult(points((0.5, 30), (0.4995, 10)))
    told = json.loads(json.dumps(result.to_dict()))
    assert [point['size'] for point in told['points']] == [30, 10]
    assert told['best']['size'] == 30 and told['smallest_near_best']['size'] == 10
    result.write_csv(tmp_path / 'sweep.csv')
    assert (tmp_path / 'sweep.csv').read_text().splitlines()[1:] == ['True,0.1,,0.5,5,30',
                                                                     'True,0.1,,0.4995,5,10']


def test_picture_is_drawn_into_given_axes_and_saved_by_its_suffix(tmp_path):
    result = SweepResult(points((0.5, 30), (0.4, 10)))
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert result.plot(right) is figure
    assert not left.lines and right.lines[0].get_xydata().tolist() == [[1e-5, 0.4], [3e-5, 0.5]]
    assert len(result.plot(save_path=tmp_path / 'a.svg').axes) == 1
    assert '<svg' in (tmp_path / 'a.svg').read_text()


def test_picture_joins_caps_that_coincide_and_says_what_is_best():
    """A cap of 9 that no image reaches, and one of 2 that only the lowest threshold feels."""
    result = SweepResult(tuple(
        SweepPoint(True, score_thr, cap, mean_ap, 5, size)
        for cap, low in ((9, (0.5, 30)), (None, (0.5, 30)), (2, (0.45, 20)))
        for score_thr, (mean_ap, size) in ((0.1, low), (0.7, (0.3, 10)))))
    figure = result.plot()
    joined, lone, *_ = figure.axes[0].lines
    assert joined.get_label() == 'expanded, no cap, or at most 9 an image'
    assert lone.get_label() == 'expanded, at most 2 an image'
    assert joined.get_xydata()[0].tolist() == lone.get_xydata()[0].tolist() == [1e-5, 0.3]
    assert joined.get_linewidth() > lone.get_linewidth() + 1  # is seen on both its sides
    assert ('best: mAP 0.5000, 3e-05 MB, --score-thr 0.1 --max-per-img 9 --expand-hierarchy'
            in figure.axes[0].get_title().splitlines())


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


def test_output_onto_the_input_or_into_a_file_is_refused_before_the_work(tmp_path, prepared, dump):
    table = tmp_path / 'sweep.csv'
    dump.rename(table)
    before = table.read_bytes()
    for out, message in ((tmp_path, 'this is the input'), (table, 'sweep.csv: not a folder')):
        result = run_tool('tools/sweep.py', table, '--index', prepared / 'index.arrow',
                          '--out', out)
        assert_one_line_error(result, message)
    assert table.read_bytes() == before
