"""``data_root`` and ``num_classes`` reach every place, wherever they are set."""

import pytest

from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine import shared_options
from projects.openimages.mm.engine.config import load_config
from tests.helpers import REPOSITORY

MAIN = REPOSITORY / 'configs' / 'oi_mask_rcnn_r50.py'


def test_one_option_moves_the_data_everywhere():
    cfg = load_config(MAIN, {'data_root': '/data/oi'})
    assert 'data/openimages' not in cfg.pretty_text
    assert cfg.train_dataloader.dataset.data_root == '/data/oi/'
    assert cfg.val_evaluator.index == '/data/oi/prepared/validation/index.arrow'


def test_one_option_sets_the_class_count_of_every_head():
    heads = load_config(MAIN, {'num_classes': 350}).model.roi_head
    assert heads.bbox_head.num_classes == heads.mask_head.num_classes == 350


def inheriting(folder, text, base=MAIN):
    path = folder / 'mine.py'
    path.write_text(f"_base_ = '{base}'\n{text}")
    return path


def test_a_config_that_inherits_sets_both_everywhere(tmp_path, monkeypatch):
    """Otherwise it would train on the base's data."""
    said = []
    monkeypatch.setattr(shared_options, 'print_log', lambda text, **_: said.append(text))
    path = inheriting(tmp_path, "data_root = '/data/oi'\nnum_classes = 350\n")
    cfg = load_config(path)
    assert 'data/openimages' not in cfg.pretty_text.replace(str(MAIN), '')
    assert cfg.val_evaluator.index == '/data/oi/prepared/validation/index.arrow'
    assert cfg.model.roi_head.bbox_head.num_classes == 350
    assert len(said) == 2 and "data_root is '/data/oi'" in said[0] and '350' in said[1]
    again = load_config(inheriting(tmp_path / '..', 'num_classes = 7\n', path),
                        {'data_root': 'elsewhere'})
    assert again.model.roi_head.mask_head.num_classes == 7
    assert again.test_evaluator.index == 'elsewhere/prepared/validation/index.arrow'


def test_what_a_config_that_inherits_sets_itself_stays(tmp_path):
    cfg = load_config(inheriting(tmp_path, '''
data_root = '/data/oi/'
train_dataloader = dict(dataset=dict(data_root='/data/more/'))
'''))
    assert cfg.train_dataloader.dataset.data_root == '/data/more/'
    assert cfg.val_dataloader.dataset.data_root == '/data/oi/'


def test_data_in_a_folder_of_the_base_s_are_moved_once(tmp_path):
    cfg = load_config(inheriting(tmp_path, '''
data_root = 'data/openimages/part/'
val_evaluator = dict(index=data_root + 'prepared/validation/index.arrow')
'''))
    assert {cfg.val_evaluator.index, cfg.test_evaluator.index} == {
        'data/openimages/part/prepared/validation/index.arrow'}


def test_only_paths_in_the_folder_are_moved(tmp_path):
    (tmp_path / 'mine.py').write_text('''
data_root = 'data/oi'
same, inner, beside, inside_a_word = 'data/oi', 'data/oi/x', 'data/oi_2017/x', 'my/data/oi/x'
with_slash = 'data/oi/'
''')
    cfg = load_config(tmp_path / 'mine.py', {'data_root': '/new'})
    assert (cfg.same, cfg.inner, cfg.with_slash) == ('/new/', '/new/x', '/new/')
    assert (cfg.beside, cfg.inside_a_word) == ('data/oi_2017/x', 'my/data/oi/x')


def test_an_empty_data_root_cannot_be_moved(tmp_path):
    (tmp_path / 'mine.py').write_text("data_root = ''\nindex = data_root + 'index.arrow'\n")
    with pytest.raises(UserError, match='empty'):
        load_config(tmp_path / 'mine.py', {'data_root': '/new'})


MASK2FORMER = '''
num_classes = 300
head = dict(num_things_classes=num_classes, num_stuff_classes=0,
            loss_cls=dict(class_weight=[1.0] * num_classes + [0.1]))
other = dict(num_stuff_classes=num_classes - 247, rpn=dict(num_classes=1))
'''


def test_things_and_the_weights_of_classes_follow(tmp_path):
    (tmp_path / 'mine.py').write_text(MASK2FORMER)
    cfg = load_config(tmp_path / 'mine.py', {'num_classes': 4})
    assert cfg.head == {'num_things_classes': 4, 'num_stuff_classes': 0,
                        'loss_cls': {'class_weight': [1., 1., 1., 1., 0.1]}}
    assert cfg.other == {'num_stuff_classes': 53, 'rpn': {'num_classes': 1}}


def test_weights_that_differ_between_classes_cannot_follow(tmp_path):
    (tmp_path / 'mine.py').write_text(
        'num_classes = 3\nloss = dict(class_weight=[1.0, 2.0, 1.0, 0.1])\n')
    with pytest.raises(UserError, match=r'different weights .*3 .*classes.* 4'):
        load_config(tmp_path / 'mine.py', {'num_classes': 4})
