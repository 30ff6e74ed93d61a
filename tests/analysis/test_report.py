"""The report of a demo split: its numbers are the evaluator's, its files are all there."""

import csv
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from projects.openimages.analysis.report import REPORT_VERSION, ReportOptions, make_report
from projects.openimages.common.errors import UserError
from projects.openimages.submissions.formats import Submission
from tests.analysis.scenes import CAT, CUP, Found, Scene, Thing, make_index, write_dump
from tests.helpers import REPOSITORY, assert_one_line_error, run_tool


@pytest.fixture
def told(reported):
    return json.loads((reported / 'report.json').read_text(encoding='utf-8'))


@pytest.fixture(scope='module')
def evaluated(demo, tmp_path_factory):
    """AP as text by MID, and under ``mAP``, from tools/evaluate.py."""
    prepared, out = demo / 'prepared' / 'validation', tmp_path_factory.mktemp('m') / 'metrics.csv'
    result = run_tool(
        'tools/evaluate.py', f'--input_annotations_boxes={prepared / "tf_boxes.csv"}',
        f'--input_annotations_labels={prepared / "tf_labels.csv"}',
        f'--input_annotations_segm={prepared / "tf_segmentations.csv"}',
        f'--input_class_labelmap={prepared / "label_map.pbtxt"}',
        f'--input_predictions={demo / "better.csv"}', f'--output_metrics={out}')
    assert result.returncode == 0, result.stderr
    with open(out, newline='') as file:
        rows = [(name.partition('@0.5IOU/')[2] or 'mAP', value) for name, value in csv.reader(file)]
    return dict(rows)


class Cells(HTMLParser):
    """Digits of the page: of every class's AP, and of the mAP."""

    def __init__(self, text):
        super().__init__()
        self.found, self._mid, self._cell = {}, None, 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        told = dict(attributes)
        if told.get('id') == 'map':
            self.found['mAP'] = told['data-value']
        if tag == 'tr':
            self._mid, self._cell = told.get('data-mid'), 0
        if tag == 'td':
            self._cell += 1
            if self._mid and self._cell == 2:
                self.found[self._mid] = told['data-value']


def test_the_numbers_are_the_evaluators_to_the_last_digit(told, reported, evaluated):
    assert repr(told['headline']['mAP']) == evaluated['mAP']
    ours = {one['mid']: 'nan' if one['AP'] is None else repr(one['AP']) for one in told['classes']}
    assert ours == {mid: value for mid, value in evaluated.items() if mid != 'mAP'}
    shown = Cells((reported / 'index.html').read_text(encoding='utf-8')).found
    assert len(shown) > 10
    assert {name: value or 'nan' for name, value in shown.items()} == {
        name: evaluated[name] for name in shown}
    assert set(shown) >= {mid for mid, value in evaluated.items() if value != 'nan'}


def test_what_became_of_the_detections_adds_up_to_the_file(told, demo):
    with Submission(demo / 'better.csv') as submission:
        detections = sum(len(image.detections) for image in submission)
    assert sum(told['outcomes'].values()) == told['headline']['detections'] == detections
    assert sum(map(sum, told['calibration']['counts'].values())) == detections
    for name, outcome in (('true', ('true',)), ('false', (
            'duplicate', 'wrong class: sibling', 'wrong class: parent or child',
            'wrong class: other', 'poor mask', 'background'))):
        assert sum(one[name] for one in told['classes']) == sum(
            told['outcomes'][key] for key in outcome) > 0


def test_errors_and_comparison_are_there(told):
    errors = {one['name']: one for one in told['errors']}
    assert errors['wrong class']['count'] and errors['all false positives']['cost'] > 0
    assert errors['missed']['count'] and errors['missed']['cost'] > 0
    assert sum(one['count'] for one in told['errors'] if one['name'].startswith('wrong class: ')
               ) == next(one['count'] for one in told['errors'] if one['name'] == 'wrong class')
    comparison = told['comparison']
    assert comparison['mAP'] == told['headline']['mAP']
    assert comparison['interval']['low'] < comparison['difference'] < comparison['interval']['high']
    assert comparison['difference'] == comparison['mAP'] - comparison['other_mAP'] > 0
    interval = told['headline']['mAP_interval']
    assert interval['low'] < told['headline']['mAP'] < interval['high']


def test_the_documented_keys_are_those_of_the_report(told):
    page = (REPOSITORY / 'docs' / 'report.md').read_text(encoding='utf-8')
    table = page.partition('## report.json')[2]
    assert told['report_version'] == REPORT_VERSION
    assert f'version {REPORT_VERSION}' in table
    documented = set(re.findall(r'^\| `([\w. -]+)` \|', table, re.MULTILINE))
    keys = set(told) | {f'headline.{key}' for key in told['headline']} | {
        f'classes.{key}' for key in told['classes'][0]}
    assert keys - {'headline', 'classes'} == documented - {'headline', 'classes'}


def test_pictures_and_plots(reported, told):
    names = {path.stem for path in (reported / 'plots').iterdir()}
    assert names == {'errors', 'outcomes', 'classes', 'iou', 'thresholds', 'caps', 'calibration',
                     'scores', 'comparison'}
    for path in (reported / 'plots').iterdir():
        assert Image.open(path).size > (500, 300)
    page = (reported / 'index.html').read_text(encoding='utf-8')
    assert page.count('<img') >= 8 and page.count('<svg') == len(names)
    assert {path.name for path in reported.iterdir()} == {
        'index.html', 'report.json', 'suspects.csv', 'plots'}
    with open(reported / 'suspects.csv', newline='') as file:
        assert [row['ImageID'] for row in csv.DictReader(file)] == [
            one['ImageID'] for one in told['suspects']]


def test_the_page_needs_nothing_and_nobody(reported):
    page = (reported / 'index.html').read_text(encoding='utf-8')
    assert "default-src 'none'" in page
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses
    assert not [a for a in addresses if not a.startswith(('data:', '#')) and a != 'suspects.csv']
    assert not re.search(r'@import|url\((?!#)', page)


def test_without_images_a_page_is_small(tmp_path, demo):
    prepared = demo / 'prepared' / 'validation'
    make_report(ReportOptions(demo / 'better.csv', prepared / 'index.arrow'), tmp_path)
    page = (tmp_path / 'index.html').read_text(encoding='utf-8')
    assert '<img' not in page and len(page) < 1_000_000
    assert json.loads((tmp_path / 'report.json').read_text())['comparison'] is None
    assert 'id="comparison"' not in page


def test_a_split_without_any_instance_and_a_dump_without_detections_have_a_page(tmp_path):
    scenes = [Scene(present=(CUP,)), Scene(present=(CAT,))]
    make_index(tmp_path / 'index.arrow', scenes)
    told = make_report(ReportOptions(write_dump(tmp_path / 'a.csv', scenes),
                                     tmp_path / 'index.arrow'), tmp_path / 'out')
    assert told['headline']['mAP'] is None and told['headline']['detections'] == 0
    assert (tmp_path / 'out' / 'index.html').exists()


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    scenes = [Scene((Thing(CUP, 0, 10),), (Found(CUP, 0.9, 0, 10), Found(CUP, 0.8, 5, 15)))] * 3
    make_index(tmp_path / 'index.arrow', scenes)
    dump = write_dump(tmp_path / 'a.csv', scenes)
    for out in ('one', 'two'):
        make_report(ReportOptions(dump, tmp_path / 'index.arrow'), tmp_path / out)
    for name in ('index.html', 'report.json', 'suspects.csv', 'plots/errors.png'):
        assert (tmp_path / 'one' / name).read_bytes() == (tmp_path / 'two' / name).read_bytes()


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--prepared', 'nowhere'], 'nowhere/index.arrow: no such prepared index'),
    (['--images', 'nowhere'], 'nowhere: no such folder of images'),
    (['--out', 'README.md'], 'README.md: a file, expected a folder')])
def test_a_mistake_on_the_command_line_is_one_line(demo, tmp_path, arguments, message):
    result = run_tool('tools/report.py', demo / 'better.csv', '--prepared',
                      demo / 'prepared' / 'validation', '--out', tmp_path / 'out', *arguments)
    assert_one_line_error(result, message)
    assert not [path for path in tmp_path.rglob('*') if path.is_file()]


@pytest.mark.parametrize(('options', 'message'), [
    ({'compare': 'nowhere.csv'}, r'nowhere\.csv: no such file'),
    ({'train_index': 'nowhere.arrow'}, r'nowhere\.arrow: no such prepared index'),
    ({'score_thr': 2.0}, 'score threshold 2.0'), ({'pictures': -1}, '-1 pictures')])
def test_a_mistake_is_found_before_the_work(demo, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr('projects.openimages.analysis.report.analyse', None)
    index = demo / 'prepared' / 'validation' / 'index.arrow'
    with pytest.raises(UserError, match=message):
        make_report(ReportOptions(demo / 'better.csv', index, **options), tmp_path / 'out')
    assert not [path for path in tmp_path.rglob('*') if path.is_file()]


def test_no_input_is_overwritten(demo, tmp_path):
    index = demo / 'prepared' / 'validation' / 'index.arrow'
    before = (index.parent / 'report.json').read_bytes()  # of tools/prepare_data.py
    with pytest.raises(UserError, match='the prepared split itself'):
        make_report(ReportOptions(demo / 'better.csv', index), index.parent)
    assert (index.parent / 'report.json').read_bytes() == before
    dump = tmp_path / 'suspects.csv'
    dump.write_bytes((demo / 'better.csv').read_bytes())
    for options in ({'predictions': dump}, {'predictions': demo / 'worse.csv', 'compare': dump}):
        with pytest.raises(UserError, match=r'suspects\.csv: this is the input'):
            make_report(ReportOptions(index=index, **options), tmp_path)


def test_training_data_of_other_classes_are_refused(demo, tmp_path):
    make_index(tmp_path / 'train.arrow', [Scene((Thing(CUP, 0, 10),))])
    with pytest.raises(UserError, match=r'train\.arrow: other classes than in'):
        make_report(ReportOptions(demo / 'better.csv', demo / 'prepared' / 'validation' /
                                  'index.arrow', tmp_path / 'train.arrow'), tmp_path / 'out')
