"""Contact sheets: which images are chosen, and what stands on the page."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

from projects.openimages.common.errors import UserError
from projects.openimages.data.index import IndexColumns, PreparedIndex, write_index
from projects.openimages.masks import rle_from_mask
from projects.openimages.visualization.contact_sheets import (
    Finding,
    choose_rows,
    contact_sheets,
    find_class,
    images_outside,
    images_with_class,
    images_with_problem,
    record_instances,
    write_pages,
)
from tests.helpers import assert_one_line_error, run_tool

ANIMAL, CAT, DOG, TOY, BEAR, CUP = range(6)
CLASSES_OF_IMAGE = ([CAT, CUP], [], [BEAR], [DOG, DOG], [CUP])  # of images a0, a1, ...
WIDTH, HEIGHT = 80, 60


@pytest.fixture
def data_root(tmp_path, small_labels):
    """Five images; each instance has a mask but the last of an image, which is group-of."""
    class_ids = np.array([c for classes in CLASSES_OF_IMAGE for c in classes])
    last = np.cumsum([len(classes) for classes in CLASSES_OF_IMAGE])
    group_of = np.isin(np.arange(len(class_ids)), last - 1)
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[15:45, 20:60] = True
    counts = [b'' if group else rle_from_mask(mask)['counts'] for group in group_of]
    columns = IndexColumns(
        image_ids=[f'a{i}' for i in range(5)], widths=np.full(5, WIDTH),
        heights=np.full(5, HEIGHT), instance_offsets=np.concatenate([[0], last]),
        class_ids=class_ids, boxes=np.tile([0.25, 0.75, 0.25, 0.75], (len(class_ids), 1)),
        is_group_of=group_of, mask_area=np.where(group_of, 0, 1200),
        mask_box=np.zeros((len(class_ids), 4)),
        mask_offsets=np.concatenate([[0], np.cumsum([len(c) for c in counts])]),
        mask_data=b''.join(counts), label_offsets=np.array([0, 1, 2, 2, 2, 2]),
        label_class_ids=np.array([DOG, TOY]), label_present=np.array([False, True]))
    folder = tmp_path / 'data'
    prepared = folder / 'prepared' / 'train'
    prepared.mkdir(parents=True)
    write_index(prepared / 'index.arrow', columns, split='train', label_space=small_labels)
    problems = {'empty_mask': {'count': 2, 'meaning': '', 'rows': [
        {'message': 'no pixel', 'image_id': 'a3', 'row': 5, 'instance': 3},
        {'message': 'no pixel either', 'image_id': 'a3', 'row': 6, 'instance': 4},
        {'message': 'of no image', 'file': 'x.csv'},
        {'message': 'an image the index lacks', 'image_id': 'zz'}]},
        'broken_image': {'count': 2, 'meaning': '', 'rows': [
            {'message': 'cut short', 'image_id': 'b0'}, {'message': 'gone', 'image_id': 'b1'}]},
        'missing_mask': {'count': 0, 'meaning': '', 'rows': []}}
    (prepared / 'report.json').write_text(json.dumps({'problems': problems}))
    images = folder / 'images' / 'train'
    images.mkdir(parents=True)
    for i in range(5):
        Image.new('RGB', (WIDTH, HEIGHT), (90, 90, 90)).save(images / f'a{i}.jpg')
    return folder


@pytest.fixture
def index(data_root) -> PreparedIndex:
    return PreparedIndex.open(data_root / 'prepared/train/index.arrow')


def _sheet(index, rows, data_root, **options) -> np.ndarray:
    page, = contact_sheets(index, rows, data_root / 'images/train', 'title', **options)
    return np.asarray(page)


def test_class_is_found_by_mid_or_by_name(small_labels):
    assert find_class(small_labels, '/m/0dog') == DOG
    assert find_class(small_labels, 'dÖG') == DOG
    with pytest.raises(UserError, match=r"no class 'cat' .*'Cat, domestic'"):
        find_class(small_labels, 'cat')


@pytest.mark.parametrize(('class_id', 'rows'), [
    (CUP, [0, 4]), (DOG, [3]), (ANIMAL, [0, 2, 3]), (TOY, [2])])
def test_images_of_a_class_are_also_those_of_the_classes_below_it(index, class_id, rows):
    assert images_with_class(index, class_id).tolist() == rows


def test_choice_is_ascending_without_repeats_and_follows_the_seed(index):
    chosen = [choose_rows(index, 3, seed).tolist() for seed in range(20)]
    assert all(rows == sorted(set(rows)) and len(rows) == 3 for rows in chosen)
    assert choose_rows(index, 3, 7).tolist() == chosen[7]
    assert len({tuple(rows) for rows in chosen}) > 3
    assert choose_rows(index, 99, 0).tolist() == [0, 1, 2, 3, 4]


def test_choice_by_class_and_by_id_together(index):
    assert choose_rows(index, 9, 0, image_ids=['a3', 'a0', 'zz']).tolist() == [0, 3]
    assert choose_rows(index, 9, 0, class_id=DOG, image_ids=['a3', 'a0']).tolist() == [3]
    assert choose_rows(index, 9, 0, class_id=DOG, image_ids=['zz']).tolist() == []


def test_no_images_at_all_is_a_mistake(index):
    with pytest.raises(UserError, match='at least 1'):
        choose_rows(index, 0, 0)


def test_negative_seed_is_a_mistake(index):
    with pytest.raises(UserError, match='seed -1, expected 0 or more'):
        choose_rows(index, 1, -1)


def test_problems_of_a_kind_come_with_their_first_message_and_all_their_instances(data_root):
    report = data_root / 'prepared/train/report.json'
    assert images_with_problem(report, 'empty_mask') == {
        'a3': Finding('no pixel', [3, 4]), 'zz': Finding('an image the index lacks')}
    for kind in ('missing_mask', 'nonsense'):
        with pytest.raises(UserError, match=f"no problem of kind '{kind}'; it lists empty_mask"):
            images_with_problem(report, kind)
    with pytest.raises(UserError, match='no such report'):
        images_with_problem(data_root / 'report.json', 'empty_mask')
    for text in ('{', '[]', '{"problems": {"empty_mask": {}}}', '{"problems": 3}', '\ufeff'):
        report.write_text(text)
        with pytest.raises(UserError, match='not a report'):
            images_with_problem(report, 'empty_mask')


def test_boxes_are_turned_into_pixels(index):
    instances = record_instances(index.image(0))
    np.testing.assert_array_equal(instances.boxes, [[20, 15, 60, 45]] * 2)
    assert [mask is None for mask in instances.masks] == [False, True]
    assert instances.group_of.tolist() == [False, True]


def test_an_image_without_boxes_and_labels_is_drawn(index, data_root):
    assert _sheet(index, [1], data_root).shape == _sheet(index, [4], data_root).shape


def test_verified_labels_and_notes_are_written_below(index, data_root):
    """The labels' red and green and the note's brown appear only where there is one."""
    def has(page, ink):
        return bool((page == ink).all(axis=2).any())

    red, green, brown = (150, 40, 40), (25, 110, 55), (150, 85, 0)
    assert has(_sheet(index, [0], data_root), red)
    assert has(_sheet(index, [1], data_root), green)
    plain = _sheet(index, [2], data_root)
    assert not any(has(plain, ink) for ink in (red, green, brown))
    assert has(_sheet(index, [2], data_root, findings={'a2': Finding('look here')}), brown)


def test_instances_of_a_finding_are_framed(index, data_root):
    """Image a3 holds instances 3 and 4: the frame's black is there once one of them is named."""
    def black(findings):
        page = _sheet(index, [3], data_root, findings=findings)
        return (page[100:] == 0).all(axis=2).sum()

    assert black({'a3': Finding('x', [4])}) > black({'a3': Finding('x')}) + 500


def test_missing_and_broken_images_become_grey_fields(index, data_root):
    (data_root / 'images/train/a0.jpg').unlink()
    (data_root / 'images/train/a1.jpg').write_bytes(b'no jpeg')
    (data_root / 'images/train/a2.jpg').unlink()
    os.mkfifo(data_root / 'images/train/a2.jpg')
    for row in (0, 1, 2):
        page = _sheet(index, [row], data_root)
        assert (page == (205, 205, 202)).all(axis=2).sum() > 50_000


def test_more_images_than_a_page_holds_go_on_more_pages(index, data_root, tmp_path):
    pages = contact_sheets(index, [0, 1, 2, 3, 4] * 5, data_root / 'images/train', 'title')
    written = list(write_pages(pages, tmp_path / 'sheet.png'))
    assert [path.name for path in written] == ['sheet.png', 'sheet-2.png']
    first, second = (Image.open(path) for path in written)
    assert first.height > second.height and first.width >= second.width


def test_sheet_is_the_same_bytes_each_time(index, data_root):
    first, again = (_sheet(index, [0, 3], data_root) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_command_draws_what_was_asked_for(data_root, tmp_path):
    out = tmp_path / 'sheet.jpg'
    result = run_tool('tools/browse_dataset.py', '--data-root', data_root, '--split', 'train',
                      '--out', out, '--only', 'empty_mask', '--class', 'Dög', '--num', '4')
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(out)
    assert Image.open(out).format == 'JPEG'


@pytest.mark.parametrize(('options', 'message'), [
    (('--split', 'validation'), 'no such folder of images'),
    (('--out', 'sheet.gif'), 'expected .png or .jpg'),
    (('--class', 'Toy', '--only', 'empty_mask'), 'no image of the split'),
    (('--num', '0'), 'at least 1'),
])
def test_mistakes_are_told_in_one_line(data_root, tmp_path, options, message):
    out = tmp_path / 'sheet.png'
    result = run_tool('tools/browse_dataset.py', '--data-root', data_root, '--split', 'train',
                      '--out', out, *options)
    assert_one_line_error(result, message)
    assert not out.exists()


def test_images_outside_the_index_are_drawn_with_what_is_wrong(index, data_root):
    Image.new('RGB', (80, 60), (10, 200, 30)).save(data_root / 'images/train/b0.jpg')
    page = _sheet(index, [], data_root, outside=['b0', 'b1'],
                  findings={'b0': Finding('cut short'), 'b1': Finding('gone')})
    assert (np.abs(page.astype(int) - (10, 200, 30)).max(axis=2) < 12).sum() > 4000
    assert (page == (205, 205, 202)).all(axis=2).sum() > 50_000  # b1 has no file
    brown = (page.astype(int) - (150, 85, 0) == 0).all(axis=2)
    assert brown[:, :400].any() and brown[:, 400:].any()
    both = _sheet(index, [0], data_root, outside=['b0'])
    assert both.shape[1] == page.shape[1]


def test_choice_of_images_outside_the_index(index):
    ids = ['a0', 'z1', 'z2', 'z3', 'z1']
    assert images_outside(index, ids, 9, 0) == ['z1', 'z2', 'z3']
    assert len(images_outside(index, ids, 2, 0)) == 2
    assert images_outside(index, ids, 2, 0) == images_outside(index, ids, 2, 0)
    assert images_outside(index, ids, -1, 0) == images_outside(index, ['a0'], 5, 0) == []


def test_command_draws_images_outside_the_index_from_any_folder(data_root, tmp_path):
    (data_root / 'images/train').rename(data_root / 'images/train_a')
    (data_root / 'prepared').rename(tmp_path / 'elsewhere')
    out = tmp_path / 'sheet.png'
    result = run_tool('tools/browse_dataset.py', '--data-root', data_root, '--split', 'train',
                      '--prepared', tmp_path / 'elsewhere', '--out', out, '--only', 'broken_image')
    assert result.returncode == 0, result.stderr
    assert (np.asarray(Image.open(out)) == (205, 205, 202)).all(axis=2).sum() > 100_000
