"""Expansion over the hierarchy against the official tool, as sets of rows."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.tf_challenge import official
from projects.openimages.labels import LabelSpace
from tests.helpers import write_classes

ROOT = '/m/0bl9f'


def assert_expands_as_official(space: LabelSpace, hierarchy: dict) -> None:
    """Every class's box rows, and label rows of both signs, are repeated for the same classes."""
    tool = official('dataset_tools.oid_hierarchical_labels_expansion')
    expansion = tool.OIDHierarchicalLabelsExpansion(hierarchy)
    class_ids = np.arange(space.num_classes)
    boxes = rows_of(space, *space.expand_instances(class_ids), 'img,{},0.1,0.2,0.3,0.4,0')
    assert boxes == [row for mid in space.mids for row in sorted(
        expansion.expand_boxes_or_segments_from_csv(f'img,{mid},0.1,0.2,0.3,0.4,0'))]
    for sign in (0, 1):
        labels = rows_of(space, *space.expand_labels(class_ids, np.full(len(class_ids), sign)),
                         f'img,{{}},{sign}')
        assert labels == [row for mid in space.mids for row in sorted(
            expansion.expand_labels_from_csv(f'img,{mid},{sign}'))]


def rows_of(space: LabelSpace, rows: np.ndarray, class_ids: np.ndarray, text: str) -> list[str]:
    """The expanded rows, sorted among those of one source row."""
    pairs = zip(rows.tolist(), class_ids.tolist(), strict=True)
    return [row for _, row in sorted((source, text.format(space.mids[class_id]))
                                     for source, class_id in pairs)]


def test_small_hierarchy_expands_as_the_official_tool(tmp_path):
    classes, hierarchy = write_classes(tmp_path)
    assert_expands_as_official(LabelSpace.read(classes, hierarchy),
                               json.loads(hierarchy.read_text(encoding='utf-8')))


def test_real_hierarchy_expands_as_the_official_tool(real_data):
    hierarchy = real_data / 'challenge-2019-label300-segmentable-hierarchy.json'
    space = LabelSpace.read(real_data / 'challenge-2019-classes-description-segmentable.csv',
                            hierarchy, num_classes=300)
    assert_expands_as_official(space, json.loads(hierarchy.read_text(encoding='utf-8')))


@st.composite
def hierarchies(draw) -> tuple[int, dict]:
    """Number of classes and a tree in which some classes stand under two parents."""
    number = draw(st.integers(1, 9))
    parents = [set()] + [draw(st.sets(st.integers(-1, child - 1), min_size=1, max_size=2))
                         for child in range(1, number)]
    parents = [above or {-1} for above in parents]
    once = draw(st.booleans())  # a class's children are written under one of its parents only
    written: set[int] = set()

    def node(label: str, place: int) -> dict:
        if once and place in written and place >= 0:
            return {'LabelName': label}
        written.add(place)
        children = [node(f'/m/{child}', child) for child in range(number)
                    if place in parents[child]]
        return {'LabelName': label, 'Subcategory': children} if children else {'LabelName': label}

    return number, node(ROOT, -1)


@settings(deadline=None, max_examples=150)
@given(hierarchies())
def test_random_hierarchies_expand_as_the_official_tool(tmp_path_factory, tree):
    number, hierarchy = tree
    folder = Path(tmp_path_factory.mktemp('hierarchy'))
    (folder / 'classes.csv').write_text(''.join(f'/m/{n},Class {n}\n' for n in range(number)))
    (folder / 'hierarchy.json').write_text(json.dumps(hierarchy))
    space = LabelSpace.read(folder / 'classes.csv', folder / 'hierarchy.json')
    assert_expands_as_official(space, hierarchy)


def test_two_parent_class_goes_to_both(small_labels):
    bear, = (small_labels.class_id(mid) for mid in ['/m/0bear'])
    names = {small_labels.names[c] for c in small_labels.expand_instances(np.array([bear]))[1]}
    assert names == {'Teddy bear', 'Animal', 'Toy'}


@pytest.mark.parametrize('sign', [True, False])
def test_label_goes_up_when_present_and_down_when_absent(small_labels, sign):
    animal = small_labels.class_id('/m/0animal')
    _, class_ids = small_labels.expand_labels(np.array([animal]), np.array([sign]))
    names = {small_labels.names[c] for c in class_ids}
    assert names == ({'Animal'} if sign else {'Animal', 'Cat, domestic', 'Dög', 'Teddy bear'})
