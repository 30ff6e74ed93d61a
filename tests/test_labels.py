"""Classes, hierarchy and expansion."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from projects.openimages.common.errors import UserError
from projects.openimages.labels import (
    LabelSpace,
    read_ancestors,
    read_label_map,
    write_label_map,
)
from tests.helpers import assert_one_line_error, run_tool, write_classes

ANIMAL, CAT, DOG, TOY, BEAR, CUP = range(6)


def test_class_order_and_names_come_from_the_list(small_labels):
    assert small_labels.num_classes == 6
    assert small_labels.names[CAT] == 'Cat, domestic'
    assert small_labels.names[DOG] == 'Dög'
    assert small_labels.class_id('/m/0bear') == BEAR


def test_class_with_two_parents_has_both_as_ancestors(small_labels):
    assert small_labels.ancestors(BEAR) == (ANIMAL, TOY)
    assert small_labels.descendants(ANIMAL) == (CAT, DOG, BEAR)


def test_root_is_no_class(small_labels):
    assert small_labels.ancestors(ANIMAL) == ()
    assert '/m/0bl9f' not in small_labels.ids


def test_leaves_are_the_classes_without_descendants(small_labels):
    assert np.flatnonzero(small_labels.leaves).tolist() == [CAT, DOG, BEAR, CUP]
    assert np.flatnonzero(small_labels.parents).tolist() == [ANIMAL, TOY]


def test_instances_are_repeated_for_ancestors(small_labels):
    rows, class_ids = small_labels.expand_instances(np.array([CUP, BEAR, CAT]))
    assert rows.tolist() == [0, 1, 1, 1, 2, 2]
    assert class_ids.tolist() == [CUP, BEAR, ANIMAL, TOY, CAT, ANIMAL]


def test_positive_labels_go_up_and_negative_ones_down(small_labels):
    rows, class_ids = small_labels.expand_labels(np.array([BEAR, TOY, CAT]),
                                                 np.array([True, False, False]))
    assert rows.tolist() == [0, 0, 0, 1, 1, 2]
    assert class_ids.tolist() == [BEAR, ANIMAL, TOY, TOY, BEAR, CAT]


def test_nothing_expands_to_nothing(small_labels):
    rows, class_ids = small_labels.expand_instances(np.array([], int))
    assert rows.tolist() == class_ids.tolist() == []


def test_label_space_comes_back_from_json(small_labels):
    copy = LabelSpace.from_json(small_labels.to_json())
    assert (copy.mids, copy.names) == (small_labels.mids, small_labels.names)
    assert (copy.ancestor_matrix == small_labels.ancestor_matrix).all()


def test_grandparents_are_ancestors(tmp_path):
    classes = tmp_path / 'classes.csv'
    classes.write_text('/m/0a,A\n/m/0b,B\n/m/0c,C\n')
    hierarchy = tmp_path / 'tree.json'
    hierarchy.write_text(json.dumps({'LabelName': '/m/0bl9f', 'Subcategory': [
        {'LabelName': '/m/0a', 'Subcategory': [
            {'LabelName': '/m/0b', 'Subcategory': [{'LabelName': '/m/0c'}]}]}]}))
    labels = LabelSpace.read(classes, hierarchy)
    assert labels.ancestors(2) == (0, 1)
    assert labels.descendants(0) == (1, 2)


def test_real_lists(real_data):
    labels = LabelSpace.read(real_data / 'challenge-2019-classes-description-segmentable.csv',
                             real_data / 'challenge-2019-label300-segmentable-hierarchy.json', 300)
    assert labels.leaves.sum() == 275
    bear = labels.names.index('Teddy bear')
    direct = [labels.names[c] for c in labels.ancestors(bear)]
    assert len(direct) >= 2


def test_header_line_of_the_full_release_is_skipped(tmp_path):
    classes, hierarchy = write_classes(tmp_path)
    classes.write_text('LabelName,DisplayName\n' + classes.read_text())
    assert LabelSpace.read(classes, hierarchy).num_classes == 6


def test_byte_order_mark_and_crlf_are_read(tmp_path):
    classes, hierarchy = write_classes(tmp_path)
    classes.write_bytes(b'\xef\xbb\xbf' + classes.read_bytes().replace(b'\n', b'\r\n'))
    assert LabelSpace.read(classes, hierarchy).mids[0] == '/m/0animal'


@pytest.mark.parametrize(('change', 'message'), [
    (lambda text: text + '/m/0cat,Again\n', r'row 7: class /m/0cat again, first in row 2'),
    (lambda text: text.replace('/m/0dog,', '/m/0dog;'), r'row 3: .* is not MID,Name'),
    (lambda text: text.replace(',Cup', ','), r'row 6: .* is not MID,Name'),
    (lambda text: '', 'empty, expected MID,Name'),
    (lambda text: text + '/m/0extra,Extra\n', 'not in the hierarchy, the first is /m/0extra'),
    (lambda text: '\n'.join(text.splitlines()[:-1]), "'/m/0cup' is not in the class list"),
])
def test_broken_class_list_is_named_with_its_row(tmp_path, change, message):
    classes, hierarchy = write_classes(tmp_path)
    classes.write_text(change(classes.read_text(encoding='utf-8')), encoding='utf-8')
    with pytest.raises(UserError, match=message):
        LabelSpace.read(classes, hierarchy)


def test_class_list_of_another_length_is_refused(tmp_path):
    with pytest.raises(UserError, match=r'classes\.csv: 6 classes, expected 300'):
        LabelSpace.read(*write_classes(tmp_path), num_classes=300)


@pytest.mark.parametrize(('text', 'message'), [
    ('{"LabelName": ', 'not JSON'),
    ('[]', 'not a hierarchy'),
    ('{"LabelName": "/m/0bl9f"}', '6 classes of the list are not in the hierarchy'),
    ('{"LabelName": "/m/0bl9f", "Subcategory": ["/m/0cat"]}', 'not a hierarchy'),
    ('{"LabelName": "/m/0bl9f", "Subcategory": {"LabelName": "/m/0cat"}}', 'not a hierarchy'),
    ('{"LabelName": "/m/0bl9f", "Subcategory": [{"LabelName": []}]}', 'not a hierarchy'),
    ('{"LabelName": "/m/0bl9f", "Subcategory": [{"LabelName": "/m/0x"}]}',
     "'/m/0x' is not in the class list"),
    ('{"LabelName": "/m/0bl9f", "Subcategory": [{"LabelName": "/m/0cat", "Subcategory": '
     '[{"LabelName": "/m/0cat"}]}]}', '/m/0cat is its own ancestor'),
])
def test_broken_hierarchy_is_named(tmp_path, text, message):
    classes, hierarchy = write_classes(tmp_path)
    hierarchy.write_text(text)
    with pytest.raises(UserError, match=message):
        LabelSpace.read(classes, hierarchy)


def test_unknown_class_is_named(small_labels):
    with pytest.raises(UserError, match=r"unknown class '/m/0nothing'"):
        small_labels.class_id('/m/0nothing')


def test_label_map_comes_back(tmp_path, small_labels):
    write_label_map(tmp_path / 'label_map.pbtxt', small_labels)
    expected = {mid: n for n, mid in enumerate(small_labels.mids, start=1)}
    assert read_label_map(tmp_path / 'label_map.pbtxt') == expected


def test_label_map_as_others_write_it(tmp_path):
    path = tmp_path / 'label_map.pbtxt'
    path.write_text("# all classes\nitem {\n  id: 7  # seven\n  name: '/m/0a'\n"
                    '  display_name: "A } # \\" name: b"\n}\nitem { name: "/m/0b" id: 2 }\n')
    assert read_label_map(path) == {'/m/0a': 7, '/m/0b': 2}


@pytest.mark.parametrize(('text', 'message'), [
    ('', r'pbtxt: no item'),
    ('nothing here', "row 1: 'nothing here' is not an item"),
    ('item { name: "a" id: 1 }\n\nitem { name: "b" id: 2', "row 3: 'item .* is not an item"),
    ('item { name: "a" id: 1 }\nitem { name: "b id: 2 }', "row 2: 'item .* is not an item"),
    ('item { name: "a" id: 1 }\n}', "row 2: '}' is not an item"),
    ('item { name: "a" }', "row 1: item without name or id: 'name"),
    ('item { id: 1 }', "row 1: item without name or id: 'id"),
    ('item { name: "" id: 1 }', 'row 1: item without name or id'),
    ('item { name: "a" id: one }', 'row 1: item without name or id'),
    (f'item {{ name: "a" id: {"9" * 5000} }}', 'row 1: item without name or id'),
    ('item { name: "a" id: 1 }\n# b\nitem { name: "b" id: 1 }', "row 3: name 'b' or id 1 again"),
    ('item { name: "a" id: 1 }\nitem { name: "a" id: 2 }', "row 2: name 'a' or id 2 again"),
    ('item { name: "a\0" id: 1 }', 'row 1: NUL bytes, expected text'),
    ('item { name: "a" id: 1 }\n\udcff', 'row 2: not UTF-8 text'),
])
def test_broken_label_map_is_named_with_its_row(tmp_path, text, message):
    path = tmp_path / 'label_map.pbtxt'
    path.write_text(text, encoding='utf-8', errors='surrogateescape')
    with pytest.raises(UserError, match=message) as error:
        read_label_map(path)
    assert len(str(error.value)) < 400 and '\n' not in str(error.value)


def nested(depth: int) -> str:
    return ('{"LabelName": "/m/0", "Subcategory": [' * depth + '{"LabelName": "/m/0"}'
            + ']}' * depth)


@pytest.mark.parametrize('depth', [900, 5000, 200_000])
def test_hierarchy_nested_too_deeply_is_one_line(tmp_path, depth):
    path = tmp_path / 'hierarchy.json'
    path.write_text(nested(depth))
    with pytest.raises(UserError, match=r'hierarchy\.json: nested hundreds of classes deep'):
        read_ancestors(path, ['/m/0'], with_others=True)


def test_deep_hierarchy_is_read_as_long_as_json_can_be(tmp_path):
    mids = [f'/m/0{n}' for n in range(400)]
    tree: dict = {}
    for mid in reversed(mids):
        tree = {'LabelName': mid, 'Subcategory': [tree] if tree else []}
    path = tmp_path / 'hierarchy.json'
    path.write_text(json.dumps({'LabelName': '/m/root', 'Subcategory': [tree]}))
    assert (read_ancestors(path, mids) == np.tri(400, k=-1, dtype=bool)).all()


@pytest.mark.parametrize(('make', 'words'), [
    (lambda path: None, 'no such file (the class list)'),
    (Path.mkdir, 'a folder'),
    (os.mkfifo, 'a FIFO'),
    (lambda path: path.symlink_to('/dev/zero'), 'a device'),
    (lambda path: path.symlink_to(path), 'Too many levels of symbolic links'),
    (lambda path: path.write_bytes(b'/m/0a,A\n/m/0b,\xe9t\xe9\n'), 'row 2: not UTF-8 text'),
    (lambda path: path.write_bytes(b'/m/0a,A\n/m/0b,B\0\n'), 'row 2: NUL bytes'),
    (lambda path: path.write_bytes(b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR'), 'NUL bytes'),
    (lambda path: path.write_text('/m/0a,A\n/m/0b,' + 'B' * 200_000), 'row 2: not MID,Name'),
    (lambda path: path.write_text('/m/0a' + ';' * 100_000), 'row 1: '),
    (lambda path: os.truncate(path.open('wb').name, 1 << 30), 'more than 64 MB'),
])
def test_class_list_that_is_none_is_one_line(tmp_path, make, words):
    path = tmp_path / 'classes.csv'
    make(path)
    code = ('import sys\nfrom projects.openimages.labels import read_classes\n'
            'from projects.openimages.common.errors import run_command\n'
            'run_command(lambda: read_classes(sys.argv[1]))')
    result = run_tool('-c', code, path, timeout=60)
    assert_one_line_error(result, 'classes.csv', words)
    assert len(result.stderr) < 400


def test_class_list_needs_no_last_line_end(tmp_path):
    classes, hierarchy = write_classes(tmp_path)
    classes.write_bytes(classes.read_bytes().removesuffix(b'\n'))
    assert LabelSpace.read(classes, hierarchy).names[-1] == 'Cup'
