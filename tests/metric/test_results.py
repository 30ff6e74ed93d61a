"""What a score says of itself: text, numbers, a DataFrame, a plot."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from projects.openimages.metric import SORT_KEYS, ChallengeScore
from tests.helpers import run_tool

nan = np.nan
ARRAYS = (np.array([0.5, 0.25, nan, nan, 1.0]), np.array([4, 3, 0, 0, 1]),
          np.array([2, 1, 0, 0, 1]), np.array([1, 0, 1, 0, 0]), np.array([0, 0, 5, 0, 0]))
NAMES = ('Dög', 'Cat', 'Bear', 'Toy', 'Ant')
MIDS = ('/m/0', '/m/1', '/m/2', '/m/3', '/m/4')


@pytest.fixture
def result() -> ChallengeScore:
    """A bear has no instances but a false detection; nothing is known of a toy."""
    return ChallengeScore(*ARRAYS, mids=MIDS, names=NAMES,
                          train_images=np.array([900, 80, 5, 0, 30]),
                          groups={'pets': np.array([1, 1, 0, 0, 0], bool),
                                  'toys': np.array([0, 0, 0, 1, 0], bool)})


def test_means_are_over_the_classes_of_a_group_that_have_positives(result):
    assert result.means == pytest.approx({
        'mAP': (0.5 + 0.25 + 1) / 3, 'mAP_pets': 0.375, 'mAP_toys': nan}, nan_ok=True)


@pytest.mark.parametrize(('sort_by', 'names'), [
    ('ap', ['Cat', 'Dög', 'Ant', 'Bear']), ('frequency', ['Bear', 'Ant', 'Cat', 'Dög']),
    ('name', ['Ant', 'Bear', 'Cat', 'Dög']), ('class_id', ['Dög', 'Cat', 'Bear', 'Ant'])])
def test_classes_that_have_something_in_every_order(result, sort_by, names):
    assert result.to_pandas(sort_by)['name'].to_list() == names
    assert [line.split()[0] for line in result.table(sort_by).splitlines()[1:]] == names


def test_frequency_without_training_images_is_the_number_of_positives():
    frame = ChallengeScore(*ARRAYS).to_pandas('frequency')
    assert frame.index.to_list() == [2, 4, 1, 0] and 'train images' not in frame


def test_equal_classes_stay_in_the_order_of_their_ids():
    number = 40  # more than are sorted by insertion
    ones = np.ones(number, int)
    equal = ChallengeScore(np.full(number, 0.5), ones, ones, ones, ones)
    assert equal.to_pandas('ap').index.to_list() == list(range(number))


def test_unknown_order_is_refused(result):
    with pytest.raises(ValueError, match="'size', expected one of " + ', '.join(SORT_KEYS)):
        result.to_pandas('size')


def test_table_is_aligned_and_says_how_many_rows_it_leaves_out(result):
    assert result.table(limit=2).splitlines() == [
        'name      AP  positives  true  false  ignored  train images',
        'Cat   0.2500          3     1      0        0            80',
        'Dög   0.5000          4     2      1        0           900',
        '... and 2 more classes']


@pytest.mark.parametrize(('known', 'label'), [({}, '1'), ({'mids': MIDS}, '/m/1'),
                                              ({'mids': MIDS, 'names': NAMES}, 'Cat')])
def test_table_calls_a_class_by_the_best_that_is_known_of_it(known, label):
    assert ChallengeScore(*ARRAYS, **known).table().splitlines()[1].split()[:2] == [label, '0.2500']


def test_score_prints_its_means_and_its_table(result):
    lines = str(result).splitlines()
    assert lines[:3] == ['mAP 0.5833, over 3 classes', 'mAP_pets 0.3750', 'mAP_toys nan']
    assert '\n'.join(lines[4:]) == result.table()


def test_score_without_classes_prints():
    none = np.zeros(0, int)
    empty = ChallengeScore(none.astype(float), none, none, none, none)
    assert str(empty) == 'mAP nan, over 0 classes\n\nno class has instances or detections'
    assert empty.to_dict()['classes'] == []


def test_dict_has_all_classes_in_plain_python(result):
    known = json.loads(json.dumps(result.to_dict()))
    assert known['mAP_pets'] == 0.375 and len(known['classes']) == 5
    assert known['classes'][1] == {
        'class_id': 1, 'mid': '/m/1', 'name': 'Cat', 'AP': 0.25, 'positives': 3, 'true': 1,
        'false': 0, 'ignored': 0, 'train images': 80}


def test_plot_has_a_bar_a_class_with_positives_and_a_line_a_mean(result, tmp_path):
    figure = result.plot(save_path=tmp_path / 'new' / 'plot.png')
    ax, = figure.axes
    assert [bar.get_height() for bar in ax.patches] == [0.25, 0.5, 1.0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ['Cat', 'Dög', 'Ant']
    assert [line.get_ydata()[0] for line in ax.lines] == pytest.approx([1.75 / 3, 0.375])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ['mAP 0.583',
                                                                         'mAP_pets 0.375']
    assert (tmp_path / 'new' / 'plot.png').read_bytes().startswith(b'\x89PNG')


def test_plot_of_many_classes_has_no_names_that_nobody_can_read():
    ones = np.ones(300, int)
    ax, = ChallengeScore(ones / 2, ones, ones, ones, ones).plot().axes
    assert len(ax.patches) == 300 and not ax.get_xticklabels()


def test_plot_goes_on_the_axes_that_are_given_and_into_the_format_of_its_name(result, tmp_path):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert result.plot(right, tmp_path / 'plot.svg') is figure
    assert not left.patches and right.patches
    assert '<svg' in (tmp_path / 'plot.svg').read_text()


def test_metric_loads_neither_pandas_nor_matplotlib_and_a_plot_no_window():
    code = ('import sys, numpy as np\n'
            'from projects.openimages.metric import ChallengeScore\n'
            'print([name for name in ("pandas", "matplotlib") if name in sys.modules])\n'
            'one = np.ones(1, int)\n'
            'ChallengeScore(one, one, one, one, one).plot()\n'
            'print("matplotlib.pyplot" in sys.modules)')
    assert run_tool('-c', code).stdout.split('\n')[:2] == ['[]', 'False']
