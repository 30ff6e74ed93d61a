"""Which images are chosen, on CSVs that one can read."""

from pathlib import Path

import pytest

from projects.openimages.common.errors import UserError
from projects.openimages.download.choice import ImageList, choose_images, find_classes

MASKS = """MaskPath,ImageID,LabelName
1a_m0dog_0.png,1a,/m/0dog
1a_m0cat_1.png,1a,/m/0cat
2b_m0bear_0.png,2b,/m/0bear
0c_m0cup_0.png,0c,/m/0cup
"""
BOXES = 'ImageID,LabelName\n1a,/m/0dog\n3d,/m/0cup\n'
LABELS = 'ImageID,LabelName\n4e,/m/0cup\n'


@pytest.fixture
def csvs(tmp_path) -> tuple[Path, list[Path]]:
    paths = []
    for name, text in (('masks', MASKS), ('boxes', BOXES), ('labels', LABELS)):
        paths.append(tmp_path / f'{name}.csv')
        paths[-1].write_text(text)
    return paths[0], paths[1:]


@pytest.mark.parametrize(('options', 'image_ids', 'shards'), [
    ({}, ('0c', '1a', '2b', '3d', '4e'), ('0', '1', '2')),
    ({'most': 2}, ('0c', '1a'), ('0', '1')),
    ({'mids': {'/m/0cat', '/m/0bear'}}, ('1a', '2b'), ('1', '2')),
    ({'mids': {'/m/0toy'}}, (), ()),
    ({'listed': {'2b', '4e', '9z'}}, ('2b', '4e'), ('2',)),
    ({'listed': {'3d'}, 'mids': {'/m/0cup'}}, (), ()),  # it has a box of the class, no mask
    ({'listed': {'0c', '2b'}, 'mids': {'/m/0cup', '/m/0bear'}, 'most': 1}, ('0c',), ('0',))])
def test_images_are_chosen_by_classes_then_list_then_number(csvs, options, image_ids, shards):
    choice = choose_images(*csvs, **options)
    assert (choice.image_ids, choice.shards) == (image_ids, shards)


def test_without_other_csvs_they_are_those_with_masks(csvs):
    assert choose_images(csvs[0], ()).image_ids == ('0c', '1a', '2b')


@pytest.mark.parametrize('bad', ['../../1a', '', '1a/../2b', 'two words', '.'])
def test_what_would_be_a_path_is_no_image(csvs, bad):
    csvs[0].write_text(f'{MASKS}x.png,{bad},/m/0cup\n')
    assert choose_images(csvs[0], ()).image_ids == ('0c', '1a', '2b')


def test_a_bad_row_is_left_to_preparing(csvs):
    csvs[0].write_text(MASKS + 'one,two,three,four\n')
    assert choose_images(csvs[0], ()).image_ids == ('0c', '1a', '2b')


def test_classes_are_mids_or_names_in_any_case_with_those_below(small_labels):
    assert find_classes(['/m/0toy'], small_labels) == {'/m/0toy', '/m/0bear'}
    assert find_classes(['cat, DOMESTIC', 'Cup'], small_labels) == {'/m/0cat', '/m/0cup'}
    with pytest.raises(UserError, match="no class 'Teddybear'; near: Teddy bear"):
        find_classes(['Teddybear'], small_labels)
    with pytest.raises(UserError, match=r"no class '/m/0no'$"):
        find_classes(['/m/0no'], small_labels)


@pytest.mark.parametrize(('text', 'train', 'test'), [
    ('1a\n2b\n', {'1a', '2b'}, {'1a', '2b'}),
    ('train/1a\ntest/2b.jpg\n\n3d.jpg', {'1a', '3d'}, {'2b', '3d'}),
    ('ImageID,Width\n1a,3\n1a,3\n', {'1a'}, {'1a'}),
    ('image_id\n1a', {'1a'}, {'1a'})])
def test_a_list_is_a_csv_or_lines(tmp_path, text, train, test):
    (tmp_path / 'list').write_text(text)
    found = ImageList(tmp_path / 'list')
    assert (found.of_split('train'), found.of_split('test')) == (train, test)


@pytest.mark.parametrize(('text', 'message'), [
    ('1a\n../2b\n', "list, row 2: '../2b' is no image id"),
    ('Image,Width\n1a,3\n', "list, row 1: 'Image,Width' is no image id.*CSV with a column ImageID"),
    ('ImageID\n../1a\n', "list, row 2: image id '../1a' is not letters and digits"),
    ('ImageID\n', 'list: no image in the list'), ('', 'list: empty file')])
def test_what_is_no_list_is_told_with_its_row(tmp_path, text, message):
    (tmp_path / 'list').write_text(text)
    with pytest.raises(UserError, match=message):
        ImageList(tmp_path / 'list')
