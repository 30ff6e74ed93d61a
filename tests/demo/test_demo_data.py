"""The demo data set has the official layout and truly holds every trap of the real one."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import zipfile
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from projects.openimages.demo import make_demo_data
from projects.openimages.demo.classes import TWO_PARENT_CLASS, VISIBLE, demo_classes
from projects.openimages.demo.scenes import (
    GROUP_OF,
    LABEL_ONLY,
    MASKED,
    UNLABELLED,
    class_counts,
    plan_split,
)
from projects.openimages.labels import LabelSpace
from tests.demo.helpers import digests
from tests.helpers import run_tool

CLASSES_CSV = 'challenge-2019-classes-description-segmentable.csv'
HIERARCHY_JSON = 'challenge-2019-label300-segmentable-hierarchy.json'


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('demo') / 'data'
    make_demo_data(folder, num_images=100, seed=5)
    return folder


@pytest.fixture(scope='module')
def train(root) -> SimpleNamespace:
    """The train split as any program would read it: tables of dicts, masks as pictures."""
    names = {'boxes': 'bbox', 'labels': 'labels', 'masks': 'masks'}
    split = SimpleNamespace(**{
        key: _rows(root / f'challenge-2019-train-segmentation-{name}.csv')
        for key, name in names.items()})
    split.sizes = {path.stem: Image.open(path).size for path in (root / 'images/train').iterdir()}
    split.pngs = {}
    for digit in '0123456789abcdef':
        with zipfile.ZipFile(root / f'masks/challenge-2019-train-masks-{digit}.zip') as archive:
            for name in archive.namelist():
                assert name[0] == digit
                split.pngs[name] = Image.open(io.BytesIO(archive.read(name)))
    return split


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def _by_image(rows: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    grouped = defaultdict(list)
    for row in rows:
        grouped[row['ImageID']].append(row)
    return grouped


def test_files_and_folders_are_the_official_ones(root):
    expected = {CLASSES_CSV, HIERARCHY_JSON, 'images', 'masks', 'demo_data.json'}
    expected |= {f'challenge-2019-{split}-segmentation-{table}.csv'
                 for split in ('train', 'validation') for table in ('bbox', 'labels', 'masks')}
    assert {path.name for path in root.iterdir()} == expected
    assert {path.name for path in (root / 'masks').iterdir()} == {
        f'challenge-2019-{split}-masks-{digit}.zip'
        for split in ('train', 'validation') for digit in '0123456789abcdef'}
    counts = {path.name: len(list(path.glob('*.jpg'))) for path in (root / 'images').iterdir()}
    assert counts == {'train': 100, 'validation': 20, 'test': 20}


@pytest.mark.parametrize(('table', 'header'), [
    ('bbox', 'ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf'),
    ('labels', 'ImageID,LabelName,Confidence'),
    ('masks', 'MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,'
              'Clicks'),
])
@pytest.mark.parametrize('split', ['train', 'validation'])
def test_headers_are_the_official_ones(root, split, table, header):
    text = (root / f'challenge-2019-{split}-segmentation-{table}.csv').read_text(encoding='utf-8')
    assert text.splitlines()[0] == header


def test_label_space_has_the_challenge_shape(root):
    space = LabelSpace.read(root / CLASSES_CSV, root / HIERARCHY_JSON, num_classes=300)
    assert space.num_classes == len(set(space.mids)) == len(set(space.names)) == 300
    assert int(space.parents.sum()) == 25
    assert all(re.fullmatch(r'/m/0[0-9a-z_]+', mid) for mid in space.mids)
    assert any(',' in name for name in space.names)
    assert any(not name.isascii() for name in space.names)
    assert any(not v.name.isascii() for v in VISIBLE)
    assert any(',' in v.name for v in VISIBLE)


def test_hierarchy_is_three_levels_deep_with_one_visible_class_under_two_parents(root):
    tree = json.loads((root / HIERARCHY_JSON).read_text(encoding='utf-8'))
    places = Counter()

    def depth(node):
        below = node.get('Subcategory', [])
        places.update(child['LabelName'] for child in below)
        return 1 + max(map(depth, below)) if below else 0

    assert depth(tree) == 3
    assert tree['LabelName'] == '/m/0bl9f'
    assert set(places) == set(demo_classes().mids)
    twice = [mid for mid, count in places.items() if count > 1]
    assert twice == [demo_classes().mid(TWO_PARENT_CLASS)]
    assert TWO_PARENT_CLASS in {v.name for v in VISIBLE}


def test_some_machine_ids_end_in_the_separator_of_mask_names(train):
    assert any(row['LabelName'].endswith('_') for row in train.masks)


def test_every_mask_row_has_its_png_and_every_png_its_row(train):
    assert {row['MaskPath'] for row in train.masks} == set(train.pngs)
    for row in train.masks:
        mid = row['LabelName'].replace('/', '')
        assert row['MaskPath'] == f'{row["ImageID"]}_{mid}_{row["BoxID"]}.png'
        assert re.fullmatch('[0-9a-f]{16}', row['ImageID'])
        assert re.fullmatch('[0-9a-f]{8}', row['BoxID'])
        assert row['ImageID'] in train.sizes


def test_predicted_iou_and_clicks_are_plausible(train):
    for row in train.masks:
        assert 0 <= float(row['PredictedIoU']) <= 1
        for click in row['Clicks'].split(';'):
            x, y, kind = click.split(' ')
            assert 0 <= float(x) <= 1 and 0 <= float(y) <= 1 and kind in '01'


def test_mask_table_repeats_boxes_with_other_decimals(train):
    exact = 0
    for row in train.masks:
        mine = np.array([float(row[f'Box{key}']) for key in ('XMin', 'XMax', 'YMin', 'YMax')])
        boxes = np.array([[float(box[key]) for key in ('XMin', 'XMax', 'YMin', 'YMax')]
                          for box in _by_image(train.boxes)[row['ImageID']]
                          if box['LabelName'] == row['LabelName'] and box['IsGroupOf'] == '0'])
        distance = np.abs(boxes - mine).max(axis=1)
        assert distance.min() < 0.0021
        exact += distance.min() == 0
    assert exact == 0


def test_masks_fill_their_boxes(train):
    for row in train.masks:
        mask = np.asarray(train.pngs[row['MaskPath']]) > 0
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        found = [columns[0] / mask.shape[1], (columns[-1] + 1) / mask.shape[1],
                 rows[0] / mask.shape[0], (rows[-1] + 1) / mask.shape[0]]
        stated = [float(row[f'Box{key}']) for key in ('XMin', 'XMax', 'YMin', 'YMax')]
        np.testing.assert_allclose(found, stated, atol=0.03)


def test_mask_pngs_have_sizes_and_depths_of_their_own(train):
    other = [train.pngs[row['MaskPath']].size != train.sizes[row['ImageID']]
             for row in train.masks]
    assert 0.3 < np.mean(other) < 0.8
    modes = Counter(image.mode for image in train.pngs.values())
    assert set(modes) == {'1', 'L'} and min(modes.values()) > len(train.pngs) / 4
    brightest = Counter(np.asarray(i).max() for i in train.pngs.values() if i.mode == 'L')
    assert set(brightest) == {1, 255}


def test_one_picture_has_many_masks(train):
    assert max(Counter(row['ImageID'] for row in train.masks).values()) >= 4


def test_a_quarter_of_the_boxes_has_no_mask(train):
    assert 0.22 <= 1 - len(train.masks) / len(train.boxes) <= 0.28
    group_of = sum(row['IsGroupOf'] == '1' for row in train.boxes)
    assert group_of >= 5
    assert len(train.boxes) - group_of - len(train.masks) > group_of  # plain boxes without a mask


def test_pictures_with_labels_but_no_boxes(train):
    assert set(_by_image(train.labels)) == set(train.sizes)
    boxless = set(train.sizes) - set(_by_image(train.boxes))
    assert len(boxless) == 8
    confidences = Counter(row['Confidence'] for row in train.labels if row['ImageID'] in boxless)
    assert set(confidences) == {'0', '1'}


def test_labels_verify_classes_that_have_no_box_in_the_picture(train):
    boxed = {(row['ImageID'], row['LabelName']) for row in train.boxes}
    unboxed = [row for row in train.labels if row['Confidence'] == '1'
               and (row['ImageID'], row['LabelName']) not in boxed]
    assert len(unboxed) > 20


def test_absent_labels_name_leaves_and_parents_that_are_truly_absent(root, train):
    space = LabelSpace.read(root / CLASSES_CSV, root / HIERARCHY_JSON)
    absent = [row for row in train.labels if row['Confidence'] == '0']
    kinds = {bool(space.parents[space.class_id(row['LabelName'])]) for row in absent}
    assert kinds == {True, False}
    boxes = _by_image(train.boxes)
    for row in absent:
        gone = space.class_id(row['LabelName'])
        for box in boxes.get(row['ImageID'], []):
            present = space.class_id(box['LabelName'])
            assert present != gone and not space.ancestor_matrix[present, gone]


def test_every_boxed_class_is_verified_present_once(train):
    labels = Counter((row['ImageID'], row['LabelName']) for row in train.labels)
    assert set(labels.values()) == {1}
    present = {(r['ImageID'], r['LabelName']) for r in train.labels if r['Confidence'] == '1'}
    assert {(row['ImageID'], row['LabelName']) for row in train.boxes} <= present


def test_commonest_visible_class_is_fifty_times_the_rarest(train):
    counts = Counter(row['LabelName'] for row in train.boxes)
    assert set(counts) == {demo_classes().mid(v.name) for v in VISIBLE}
    assert max(counts.values()) >= 50 * min(counts.values())


@pytest.mark.parametrize('total', [200, 1500, 20000])
def test_class_counts_keep_the_ratio_and_the_total(total):
    counts = class_counts(total, tail_ratio=60)
    assert counts.sum() == total
    assert counts.min() >= 1 and counts.max() >= 50 * counts.min()


def test_pictures_hold_objects_that_are_neither_labelled_nor_verified():
    classes = demo_classes()
    plans = plan_split(200, 60, classes, np.random.default_rng(0))
    with_unlabelled = [p for p in plans if UNLABELLED in dict(map(reversed, p.objects))]
    assert len(with_unlabelled) >= 8
    for plan in with_unlabelled:
        *named, (hidden, kind) = plan.objects
        assert kind == UNLABELLED
        family = {VISIBLE[hidden].name} | classes.ancestors(VISIBLE[hidden].name)
        for index, _ in named:
            other = {VISIBLE[index].name} | classes.ancestors(VISIBLE[index].name)
            assert not family & other
    kinds = Counter(kind for plan in plans for _, kind in plan.objects)
    assert min(kinds[k] for k in (MASKED, GROUP_OF, LABEL_ONLY)) >= 3


def test_validation_shows_every_visible_class_with_masks(tmp_path):
    plans = plan_split(100, 6, demo_classes(), np.random.default_rng(3))
    masked = Counter(index for plan in plans for index, kind in plan.objects if kind == MASKED)
    assert set(masked) == set(range(len(VISIBLE))) and min(masked.values()) >= 5


def test_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    make_demo_data(tmp_path / 'a', num_images=16, seed=7)
    result = run_tool('tools/make_demo_data.py', '--out', tmp_path / 'b', '--images', 16,
                      '--seed', 7,
                      env={**os.environ, 'PYTHONHASHSEED': '1'})  # no set's order may matter
    assert result.returncode == 0, result.stderr
    make_demo_data(tmp_path / 'c', num_images=16, seed=8)
    first, again, other = (digests(tmp_path / name) for name in 'abc')
    assert first == again
    boxes = 'challenge-2019-train-segmentation-bbox.csv'
    assert first[boxes] != other[boxes]
    assert first[CLASSES_CSV] == other[CLASSES_CSV]


def test_the_plain_world_stays_as_it_is(tmp_path):
    """Whatever else changes in the code, these parameters give this data set."""
    make_demo_data(tmp_path / 'd', num_images=16, seed=0)
    assert _content_digest(tmp_path / 'd') == (
        '52fbda6b187af55aec732942edd1b49dd7162aba78d62ec3a4c26357898bd76b')


def _content_digest(folder: Path) -> str:
    """Of names, tables and pixels; compressed bytes would depend on the libraries' versions."""
    digest = hashlib.sha256()

    def add(name: str, data: bytes) -> None:
        if name.endswith(('.jpg', '.png')):
            image = Image.open(io.BytesIO(data))
            data = f'{image.mode} {image.size}'.encode() + np.asarray(image).tobytes()
        digest.update(f'{name} {len(data)} '.encode() + data)

    for path in sorted(path for path in folder.rglob('*') if path.is_file()):
        if path.suffix == '.zip':
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    add(f'{path.name} {name}', archive.read(name))
        else:
            add(str(path.relative_to(folder)), path.read_bytes())
    return digest.hexdigest()


def test_all_sixteen_archives_exist_even_when_some_are_empty(tmp_path):
    make_demo_data(tmp_path / 'a', num_images=16, seed=0)
    masks = list((tmp_path / 'a/masks').glob('*.zip'))
    assert len(masks) == 32
    assert all(zipfile.is_zipfile(path) for path in masks)
