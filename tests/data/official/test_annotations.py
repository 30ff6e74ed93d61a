"""Reading and joining the official CSVs, on rows that one can check by eye."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projects.openimages.common.errors import UserError
from projects.openimages.data.layout import find_classes, find_split, read_classes_of
from projects.openimages.data.official.annotations import Annotations, read_annotations
from projects.openimages.data.official.joining import JOIN_TOLERANCE, join_boxes
from projects.openimages.data.official.release_classes import read_release_classes
from projects.openimages.data.problems import BAD_KINDS, ProblemLog

BOX_HEADER = 'ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf'
MASK_HEADER = ('MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,'
               'PredictedIoU,Clicks')


def write_split(root: Path, boxes: list[str], masks: list[str], labels: list[str]) -> Path:
    for name, header, rows in (('bbox', BOX_HEADER, boxes), ('masks', MASK_HEADER, masks),
                               ('labels', 'ImageID,LabelName,Confidence', labels)):
        path = root / f'challenge-2019-validation-segmentation-{name}.csv'
        path.write_text('\n'.join([header, *rows]) + '\n', encoding='utf-8')
    return root


def mask_row(name: str, image: str, mid: str, *box: float) -> str:
    return f'{name}.png,{image},{mid},ff,{",".join(map(str, box))},0.5,"0.1 0.2 1;0.3 0.4 0"'


def read(root: Path, space, skip_bad: bool = False) -> tuple[Annotations, ProblemLog]:
    log = ProblemLog(BAD_KINDS if skip_bad else ())
    return read_annotations(find_split(root, 'validation'), space, log), log


def test_mask_goes_to_the_nearest_box_of_its_image_and_class(tmp_path, small_labels):
    root = write_split(
        tmp_path,
        ['b,/m/0cat,0.1,0.2,0.1,0.2,0', 'b,/m/0cat,0.1004,0.2,0.1,0.2,0',
         'b,/m/0dog,0.1,0.2,0.1,0.2,0', 'a,/m/0cat,0.1,0.2,0.1,0.2,0'],
        [mask_row('m0', 'b', '/m/0cat', 0.1003, 0.2, 0.1, 0.2),
         mask_row('m1', 'b', '/m/0cat', 0.1001, 0.2, 0.1, 0.2)], [])
    rows, log = read(root, small_labels)
    assert rows.image_ids == ['a', 'b']
    assert rows.instance_offsets.tolist() == [0, 1, 4]
    names = [rows.mask_names[n].as_py() if n >= 0 else None for n in rows.mask_rows.tolist()]
    assert names == [None, 'm1.png', 'm0.png', None]
    assert rows.join_distances[1:3].tolist() == pytest.approx([1e-4, 1e-4])
    assert log.counts == {}


def test_mask_far_from_every_box_is_an_instance_of_its_own(tmp_path, small_labels):
    root = write_split(
        tmp_path, ['a,/m/0cat,0.1,0.2,0.1,0.2,0', 'b,/m/0cat,0.1,0.2,0.1,0.2,1'],
        [mask_row('far', 'a', '/m/0cat', 0.5, 0.6, 0.5, 0.6),
         mask_row('alone', 'a', '/m/0dog', 0.3, 0.4, 0.3, 0.4)], [])
    rows, log = read(root, small_labels)
    assert rows.instance_offsets.tolist() == [0, 3, 4]
    assert rows.boxes.tolist() == [[0.1, 0.2, 0.1, 0.2], [0.5, 0.6, 0.5, 0.6],
                                   [0.3, 0.4, 0.3, 0.4], [0.1, 0.2, 0.1, 0.2]]
    assert rows.mask_rows.tolist() == [-1, 0, 1, -1]
    assert rows.is_group_of.tolist() == [False, False, False, True]
    assert log.counts == {'mask_without_box': 2}
    first, second = log.listed['mask_without_box']
    assert (first.row, first.image_id) == (2, 'a') and 'nearest is 0.4 away' in first.message
    assert second.row == 3 and 'no box of its class' in second.message


def test_image_with_a_label_only_is_an_image(tmp_path, small_labels):
    root = write_split(tmp_path, ['b,/m/0cat,0.1,0.2,0.1,0.2,0'], [],
                       ['a,/m/0dog,0', 'b,/m/0cat,1', 'a,/m/0cup,1'])
    rows, _ = read(root, small_labels)
    assert rows.image_ids == ['a', 'b']
    assert rows.label_offsets.tolist() == [0, 2, 3]
    assert rows.label_class_ids.tolist() == [2, 5, 1]
    assert rows.label_present.tolist() == [False, True, True]
    assert rows.instance_offsets.tolist() == [0, 0, 1]


def test_skipped_rows_do_not_leave_an_image_behind(tmp_path, small_labels):
    root = write_split(tmp_path, ['a,/m/0nobody,0.1,0.2,0.1,0.2,0', 'b,/m/0cat,0,1,0,1,0'], [], [])
    rows, log = read(root, small_labels, skip_bad=True)
    assert rows.image_ids == ['b']
    assert log.counts == {'unknown_class': 1}


def test_boxes_equal_but_for_the_class_or_the_image_are_not_repeated(tmp_path, small_labels):
    rows, log = read(write_split(tmp_path, ['a,/m/0cat,0.1,0.2,0.1,0.2,0',
                                            'a,/m/0dog,0.1,0.2,0.1,0.2,0',
                                            'b,/m/0cat,0.1,0.2,0.1,0.2,0'], [], []), small_labels)
    assert len(rows.class_ids) == 3 and log.counts == {}


def test_only_a_flag_of_1_makes_a_group(tmp_path, small_labels):
    """The full release has -1 where nobody looked."""
    root = write_split(tmp_path, [f'{image},/m/0cat,0.1,0.2,0.1,0.2,{flag}'
                                  for image, flag in zip('abc', (-1, 0, 1), strict=True)], [], [])
    rows, log = read(root, small_labels)
    assert rows.is_group_of.tolist() == [False, False, True]
    assert log.counts == {}


def test_box_numbers_are_those_of_the_text_to_the_last_bit(tmp_path, small_labels):
    texts = ['0.1', '0.30000000000000004', '7e-05', '0.9999999999999999']
    rows, _ = read(write_split(tmp_path, [f'a,/m/0cat,{",".join(texts)},0'], [], []), small_labels)
    assert rows.boxes[0].tolist() == [float(text) for text in texts]


def greedy(mask_keys, mask_boxes, box_keys, boxes, tolerance) -> list[int]:
    """The rule word for word: the closest pair first, then the earlier mask, the earlier box."""
    pairs = sorted((max(abs(a - b) for a, b in zip(mask_boxes[m], boxes[b_], strict=True)), m, b_)
                   for m, b_ in itertools.product(range(len(mask_keys)), range(len(box_keys)))
                   if mask_keys[m] == box_keys[b_])
    joined, taken = [-1] * len(mask_keys), set()
    for distance, mask, box in pairs:
        if distance <= tolerance and joined[mask] < 0 and box not in taken:
            joined[mask] = box
            taken.add(box)
    return joined


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2 ** 32 - 1), st.integers(0, 12), st.integers(0, 12))
def test_join_is_the_greedy_one_to_one_matching(seed, num_masks, num_boxes):
    rng = np.random.default_rng(seed)
    mask_keys, box_keys = rng.integers(0, 3, num_masks), rng.integers(0, 3, num_boxes)
    mask_boxes = rng.integers(0, 6, (num_masks, 4)) / 256
    boxes = rng.integers(0, 6, (num_boxes, 4)) / 256
    joined, distances = join_boxes(mask_keys, mask_boxes, box_keys, boxes, JOIN_TOLERANCE)
    assert joined.tolist() == greedy(mask_keys, mask_boxes, box_keys, boxes, JOIN_TOLERANCE)
    for m, box in enumerate(joined):
        if box >= 0:
            assert distances[m] == np.abs(mask_boxes[m] - boxes[box]).max()
        elif not (box_keys == mask_keys[m]).any():
            assert np.isinf(distances[m])


def test_join_does_not_depend_on_how_many_pairs_are_held_at_a_time(monkeypatch):
    rng = np.random.default_rng(0)
    arguments = (rng.integers(0, 9, 200), rng.random((200, 4)), rng.integers(0, 9, 300),
                 rng.random((300, 4)), 1.0)
    expected = join_boxes(*arguments)
    monkeypatch.setattr('projects.openimages.data.official.joining._PAIRS_AT_A_TIME', 7)
    for mine, whole in zip(join_boxes(*arguments), expected, strict=True):
        assert np.array_equal(mine, whole)


RELEASE_TREE = {'LabelName': '/m/0bl9f', 'Subcategory': [
    {'LabelName': '/m/0a', 'Subcategory': [
        {'LabelName': '/m/0unused', 'Subcategory': [{'LabelName': '/m/0b'}]}],
     'Part': [{'LabelName': '/m/0c'}]},
    {'LabelName': '/m/0c'}]}


@pytest.fixture
def release(tmp_path) -> tuple[Path, Path, Path]:
    classes, hierarchy, used = (tmp_path / name for name in (
        'oidv7-class-descriptions-boxable.csv', 'bbox_labels_600_hierarchy.json',
        'classes-segmentation.txt'))
    classes.write_text('LabelName,DisplayName\n/m/0a,A\n/m/0b,"B, small"\n/m/0c,C\n'
                       '/m/0unused,No masks\n', encoding='utf-8')
    hierarchy.write_text(json.dumps(RELEASE_TREE), encoding='utf-8')
    used.write_text('/m/0c\n/m/0a\n/m/0b\n', encoding='utf-8')
    return classes, hierarchy, used


def test_release_keeps_the_segmentable_classes_and_their_ancestors(release):
    space = read_release_classes(*release)
    assert space.mids == ('/m/0c', '/m/0a', '/m/0b')
    assert space.names == ('C', 'A', 'B, small')
    assert [space.ancestors(c) for c in range(3)] == [(), (), (1,)]


def test_release_without_a_segmentable_list_keeps_all_its_classes(release):
    space = read_release_classes(*release[:2])
    assert space.num_classes == 4 and space.ancestors(1) == (0, 3)


def test_release_class_that_the_hierarchy_does_not_have_is_alone(release):
    release[0].write_text(release[0].read_text() + '/m/0d,D\n')
    assert read_release_classes(*release[:2]).ancestors(4) == ()


def test_release_with_another_number_of_classes_is_refused(release):
    with pytest.raises(UserError, match=r'classes-segmentation\.txt: 3 classes, expected 350'):
        read_release_classes(*release, 350)


def test_segmentable_class_without_description_is_refused(release):
    release[2].write_text('/m/0a\n/m/0zzz\n', encoding='utf-8')
    with pytest.raises(UserError, match=r'row 2: class ./m/0zzz. has no description'):
        read_release_classes(*release)


def test_real_class_list_reads_as_the_challenges(real_data):
    space = read_classes_of(find_classes(real_data))
    assert space.num_classes == 300 and space.parents.sum() == 25
