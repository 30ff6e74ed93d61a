"""What --cfg-options makes of what is typed."""

import argparse

import pytest
from mmengine.config import DictAction

from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine.options import read_options
from tests.helpers import REPOSITORY, assert_one_line_error, run_tool

DEMO = REPOSITORY / 'configs' / 'oi_mask_rcnn_r50_demo.py'


def mmengines(*items) -> dict:
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args(['--cfg-options', *items]).cfg_options


@pytest.mark.parametrize(('item', 'value'), [
    ('data_root=/data/open images', '/data/open images'),
    ("classes=['Human face', 'Cat']", ['Human face', 'Cat']),
    ("classes=('Salt and pepper shakers',)", ('Salt and pepper shakers',)),
    ("classes=['Cross, barred', 'Cat']", ['Cross, barred', 'Cat']),
    ('title=a = b', 'a = b'),
    ("text='two  words'", 'two  words'),
    ('classes=Human face, Cat', ['Human face', 'Cat']),
    ('classes=Human face,', ['Human face']), ('pair=a b, 3', ['a b', 3]),
    ("classes=('Human face')", ('Human face',)), ("classes=('Cross, barred')", ('Cross, barred',)),
    ("name='Salt and pepper, mill'", 'Salt and pepper, mill'), ("name='Cross, barred'",
                                                                'Cross, barred'),
    ('title=say "hi"', 'say "hi"'), ('data_root=(old) images/', '(old) images/')])
def test_texts_stay_as_they_were_written(item, value):
    key = item.partition('=')[0]
    assert read_options([item]) == {key: value}


@pytest.mark.parametrize('text', [
    '1', '1e-3', '0.5', 'true', 'False', 'None', 'adam', '1,2,3', '[0.9, 0.999]', '(1333, 800)',
    '[(1, 2), [3]]', '[a, b]', '(a,b)', '[a,(b,c)]', 'a,b', 'a, b', '[]', '()', '', '"x"', "'1'",
    "['a', 'b']", "['1','2']", '(640)', "('Cat')", '[(640)]', '((1,2))', ' 3 ', '[None, True]',
    '/data/x.py'])
def test_all_else_is_what_mmengine_makes_of_it(text):
    assert read_options([f'key={text}']) == mmengines(f'key={text}')


def test_options_add_up_and_the_last_of_a_key_counts():
    items = ['a.b=1', 'c=x y', 'a.b=2', "d=['e f']"]
    assert read_options(items) == {'a.b': 2, 'c': 'x y', 'd': ['e f']}


@pytest.mark.parametrize(('item', 'words'), [
    ('data_root', "'data_root', expected KEY=VALUE"), ('=3', "'=3', expected KEY=VALUE"),
    ('classes=[Human face, Cat]', 'quote every text'),
    ("classes=[Cat, 'Human face']", 'quote every'),
    ('classes=[Human face', 'quote every'), ('size=[1,2', 'brackets do not fit'),
    ('hook=(a),(b)', 'brackets do not fit'), ('x=[{[1 2]: 2}]', 'quote every')])
def test_a_slip_of_the_pen_is_said(item, words):
    with pytest.raises(UserError, match=words):
        read_options([item])


def test_nothing_given_is_no_option():
    assert read_options(None) == {}


@pytest.mark.parametrize('tool', ['train', 'test', 'predict', 'browse_pipeline', 'eval_metric'])
def test_each_tool_says_it_and_takes_the_option_twice(tool, tmp_path):
    there = tmp_path / 'there.jpg'
    there.touch()
    arguments = {'test': ['weights.pth'], 'predict': ['weights.pth', there, '--out', tmp_path],
                 'browse_pipeline': ['--out', tmp_path / 'out'], 'eval_metric': [there]}
    result = run_tool(f'tools/{tool}.py', DEMO, *arguments.get(tool, []),
                      '--cfg-options', 'data_root=/x y', '--cfg-options', 'num_classes')
    assert_one_line_error(result, "--cfg-options 'num_classes', expected KEY=VALUE")
