"""A choice of classes: what the others say of them is kept, and nothing else."""

import json
import re
import shutil

import numpy as np
import pytest

from projects.openimages.common.errors import UserError
from projects.openimages.data.index import PreparedIndex
from projects.openimages.data.layout import find_split
from projects.openimages.data.official.annotations import read_annotations
from projects.openimages.data.official.class_choice import ClassChoice, choose_classes, read_choice
from projects.openimages.data.problems import ProblemLog
from projects.openimages.labels import LabelSpace
from tests.data.helpers import open_prepared
from tests.data.official.test_annotations import mask_row, write_split
from tests.helpers import SMALL_CLASSES, assert_one_line_error, run_tool

ANIMAL, CAT, DOG, TOY, BEAR, CUP = (mid for mid, _ in SMALL_CLASSES)


def choose(space, *mids: str) -> ClassChoice:
    return ClassChoice.of(space, [space.class_id(mid) for mid in mids])


def meaning(choice: ClassChoice, space, mid: str) -> tuple[list[str], list[str]]:
    """What a class being present, and being absent, says of the chosen ones."""
    class_id = space.class_id(mid)
    return tuple([choice.space.mids[k] for k in np.flatnonzero(matrix[class_id])]
                 for matrix in (choice.present_as, choice.absent_as))


@pytest.mark.parametrize(('chosen', 'mid', 'present', 'absent'), [
    ([CAT, DOG], CAT, [CAT], [CAT]),
    ([CAT, DOG], CUP, [], []),
    ([ANIMAL], DOG, [ANIMAL], []),              # a dog is an animal; no dog may be a cat
    ([CAT, DOG], ANIMAL, [], [CAT, DOG]),       # an animal may be a bear; no animal is no dog
    ([ANIMAL, DOG], DOG, [DOG], [DOG]),         # that a dog is an animal the hierarchy says
    ([DOG, ANIMAL], ANIMAL, [ANIMAL], [ANIMAL]),
    ([TOY, ANIMAL], BEAR, [TOY, ANIMAL], []),   # it has two parents
])
def test_what_is_not_chosen_speaks_for_what_is(small_labels, chosen, mid, present, absent):
    assert meaning(choose(small_labels, *chosen), small_labels, mid) == (present, absent)


def test_nearest_of_a_chain_is_meant(tmp_path):
    """Where a tree is a > b > c > d, of a and b the nearer one."""
    above = np.tril(np.ones((4, 4), bool), -1)
    space = LabelSpace(tuple('/m/0' + c for c in 'abcd'), tuple('ABCD'), above)
    choice = ClassChoice.of(space, [1, 0])
    assert choice.present_as.tolist() == [[False, True], [True, False], [True, False],
                                          [True, False]]
    assert choice.space.ancestor_matrix.tolist() == [[False, True], [False, False]]
    assert ClassChoice.of(space, [3, 2]).absent_as[0].tolist() == [False, True]


def test_chosen_classes_keep_their_order_and_their_ancestors(small_labels):
    space = choose(small_labels, DOG, CUP, ANIMAL).space
    assert space.mids == (DOG, CUP, ANIMAL) and space.names[0] == 'Dög'
    assert [space.ancestors(c) for c in range(3)] == [(2,), (), ()]


@pytest.fixture
def rows(tmp_path, small_labels):
    root = write_split(
        tmp_path,
        [f'a,{DOG},0.1,0.2,0.1,0.2,0', f'a,{CUP},0.3,0.4,0.3,0.4,0', f'b,{CUP},0,1,0,1,0',
         f'c,{BEAR},0.1,0.2,0.1,0.2,1'],
        [mask_row('m0', 'a', CUP, 0.3, 0.4, 0.3, 0.4), mask_row('m1', 'a', DOG, 0.1, 0.2, 0.1, 0.2),
         mask_row('m2', 'd', CAT, 0.1, 0.2, 0.1, 0.2)],
        [f'a,{DOG},1', f'a,{CAT},0', f'b,{ANIMAL},0', f'e,{CUP},1', f'c,{BEAR},1', f'c,{ANIMAL},0'])
    return read_annotations(find_split(root, 'validation'), small_labels, ProblemLog())


def told(rows, choice: ClassChoice) -> dict[str, tuple]:
    """By image: instances with their masks, and labels."""
    found = {}
    for n, image_id in enumerate(rows.image_ids):
        instances = range(*rows.instance_offsets[n:n + 2])
        labels = range(*rows.label_offsets[n:n + 2])
        found[image_id] = (
            [(choice.space.mids[rows.class_ids[i]],
              rows.mask_names[int(rows.mask_rows[i])].as_py() if rows.mask_rows[i] >= 0 else None)
             for i in instances],
            [(choice.space.mids[rows.label_class_ids[i]], int(rows.label_present[i]))
             for i in labels])
    return found


def test_dogs_become_animals_with_their_masks_and_labels(rows, small_labels):
    choice = choose(small_labels, ANIMAL)
    chosen = choose_classes(rows, choice)
    assert told(chosen, choice) == {
        'a': ([(ANIMAL, 'm1.png')], [(ANIMAL, 1)]),
        'b': ([], [(ANIMAL, 0)]),
        'c': ([(ANIMAL, None)], [(ANIMAL, 1)]),  # a bear is there, so an animal is
        'd': ([(ANIMAL, 'm2.png')], [])}
    assert chosen.counts['instances_of_other_classes'] == 2
    assert chosen.is_group_of.tolist() == [False, True, False]
    assert chosen.box_lines.tolist() == [2, 5, 0]


def test_no_animal_means_no_cat_and_no_dog(rows, small_labels):
    choice = choose(small_labels, DOG, CAT)
    assert told(choose_classes(rows, choice), choice) == {
        'a': ([(DOG, 'm1.png')], [(DOG, 1), (CAT, 0)]),
        'b': ([], [(DOG, 0), (CAT, 0)]),
        'c': ([], [(DOG, 0), (CAT, 0)]),
        'd': ([(CAT, 'm2.png')], [])}


def test_class_with_two_chosen_parents_is_an_instance_of_both(rows, small_labels):
    choice = choose(small_labels, TOY, ANIMAL)
    instances, labels = told(choose_classes(rows, choice), choice)['c']
    assert instances == [(TOY, None), (ANIMAL, None)]
    assert sorted(labels) == [(ANIMAL, 1), (TOY, 1)]


def test_all_classes_chosen_change_nothing(rows, small_labels):
    choice = choose(small_labels, *small_labels.mids)
    chosen = choose_classes(rows, choice)
    for name in ('image_ids', 'instance_offsets', 'class_ids', 'boxes', 'mask_rows',
                 'label_offsets', 'label_class_ids', 'label_present', 'label_lines'):
        assert np.array_equal(getattr(chosen, name), getattr(rows, name)), name


def test_choice_is_read_by_mid_by_name_and_by_both(tmp_path, small_labels):
    path = tmp_path / 'wanted.csv'
    path.write_text(f'{CUP}\n\ndög\n{BEAR},Teddy bear\n"Cat, domestic"\n', encoding='utf-8')
    assert read_choice(path, small_labels).space.mids == (CUP, DOG, BEAR, CAT)


@pytest.mark.parametrize(('text', 'words'), [
    ('Cup\nUnicorn\n', "row 2: class 'Unicorn' is not one of the 6"),
    (f'Cup\n{CUP}\n', 'row 2: class'), ('\n', 'empty')])
def test_choice_of_what_is_not_there_is_refused(tmp_path, small_labels, text, words):
    path = tmp_path / 'wanted.txt'
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(words)):
        read_choice(path, small_labels)


def test_command_prepares_a_choice_and_all_of_them_as_before(data_root, prepared_data):
    command = ('tools/prepare_data.py', '--data-root', data_root, '--split', 'validation',
               '--workers', 1, '--classes')
    whole = open_prepared(prepared_data, 'validation')
    commonest = np.bincount(whole.class_ids).argmax()
    wanted = data_root / 'wanted.txt'
    wanted.write_text(f'{whole.label_space.names[commonest]}\n', encoding='utf-8')
    result = run_tool(*command, wanted, '--num-classes', 1)
    assert result.returncode == 0, result.stderr
    assert f'1 of 300, {wanted}' in result.stderr
    index = open_prepared(data_root, 'validation')
    assert index.label_space.mids == (whole.label_space.mids[commonest],)
    above = whole.label_space.ancestor_matrix[:, commonest].copy()
    above[commonest] = True
    assert index.num_instances == above[whole.class_ids].sum() > 0
    assert 'of 23,366' not in result.stdout  # published counts are of all classes
    report = json.loads((data_root / 'prepared/validation/report.json').read_text('utf-8'))
    assert 'published' not in report
    assert_one_line_error(run_tool(*command, wanted, '--num-classes', 2), '1 classes, expected 2')
    again = run_tool(*command, data_root / 'challenge-2019-classes-description-segmentable.csv')
    assert again.returncode == 0 and 'used again' not in again.stdout
    assert PreparedIndex.open(data_root / 'prepared/validation/index.arrow').label_space.mids == (
        whole.label_space.mids)


def test_class_list_of_a_root_without_one_is_itself_the_list(data_root, prepared_data, tmp_path):
    listed = tmp_path / 'my-classes.csv'
    shutil.move(data_root / 'challenge-2019-classes-description-segmentable.csv', listed)
    result = run_tool('tools/prepare_data.py', '--data-root', data_root, '--split', 'validation',
                      '--workers', 1, '--classes', listed)
    assert result.returncode == 0, result.stderr
    path = 'prepared/validation/index.arrow'
    assert (data_root / path).read_bytes() == (prepared_data / path).read_bytes()
