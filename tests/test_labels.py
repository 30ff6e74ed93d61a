"""Classes, hierarchy and expansion."""

import json

import numpy as np
import pytest

from projects.openimages.common.errors import UserError
from projects.openimages.labels import LabelSpace, read_label_map, write_label_map
from tests.helpers import write_classes

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
    ('[]', '6 classes of the list are not in the hierarchy'),
    ('{"LabelName": "/m/0bl9f", "Subcategory": ["/m/0cat"]}', 'not in the class list'),
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


def test_label_map_without_items_is_refused(tmp_path):
    path = tmp_path / 'label_map.pbtxt'
    path.write_text('nothing here')
    with pytest.raises(UserError, match='no item'):
        read_label_map(path)
