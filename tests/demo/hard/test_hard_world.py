"""The files of a hard world: the official layout, and rules that no image may break."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from projects.openimages.common.errors import UserError
from projects.openimages.data.index import PreparedIndex
from projects.openimages.data.problems import BAD_KINDS
from projects.openimages.demo.hard import make_hard_world
from projects.openimages.masks import decode_text, rle_to_mask
from tests.demo.hard.conftest import KNOBS, SPLITS, read_rows
from tests.helpers import assert_one_line_error, run_tool

BOXED = {'mask', 'small', 'dark', 'depicted', 'full', 'group-of'}
SIDES = ('XMin', 'XMax', 'YMin', 'YMax')


def test_files_and_folders_are_the_official_ones_and_the_oracle_and_the_truth(root):
    labelled = ('train', 'validation', 'oracle')
    expected = {'challenge-2019-classes-description-segmentable.csv', 'demo_data.json', 'truth',
                'challenge-2019-label300-segmentable-hierarchy.json', 'images', 'masks'}
    expected |= {f'challenge-2019-{split}-segmentation-{table}.csv'
                 for split in labelled for table in ('bbox', 'labels', 'masks')}
    found = {path.name for path in root.iterdir()} - {'prepared'}
    assert found == expected
    assert {path.name for path in (root / 'masks').iterdir()} == {
        f'challenge-2019-{split}-masks-{digit}.zip'
        for split in labelled for digit in '0123456789abcdef'}
    counts = {path.name: len(list(path.glob('*.jpg'))) for path in (root / 'images').iterdir()}
    assert counts == {'train': 160, 'validation': 32, 'test': 32, 'oracle': 32}


def test_oracle_has_the_images_of_validation(root):
    contents = [{path.name: path.read_bytes() for path in (root / 'images' / split).iterdir()}
                for split in ('validation', 'oracle')]
    assert contents[0] == contents[1]


def test_no_split_has_bad_rows_and_every_image_is_in_its_index(root, prepared):
    for split in SPLITS:
        report = json.loads((prepared[split] / 'report.json').read_text())
        assert not set(report['problems']) & {*BAD_KINDS, 'mask_without_box', 'mask_outside_box',
                                              'empty_mask', 'distant_join', 'absent_class',
                                              'unverified_class', 'extra_image'}
        index = PreparedIndex.open(prepared[split] / 'index.arrow')
        assert index.num_images == len(list((root / 'images' / split).iterdir()))


def test_every_mask_is_joined_to_its_box(split, prepared):
    index = PreparedIndex.open(prepared[split.name] / 'index.arrow')
    assert len(index.class_ids) == len(split.boxes)
    assert int(index.has_mask.sum()) == len(split.masks) > 20


def test_train_has_a_long_tail_and_validation_a_shorter_one(split):
    units = Counter(leaf for leaf, *_ in {
        (row['LabelName'], row['ImageID'], row['Unit']) for row in split.truth})
    low, high = {'train': (0.22, 0.31), 'validation': (0.06, 0.14)}[split.name]
    assert low < max(units.values()) / units.total() < high
    assert min(units.values()) <= 2


def test_four_in_ten_visible_classes_are_labelled(split):
    positive = {(r['ImageID'], r['LabelName']) for r in split.labels if r['Confidence'] == '1'}
    visible = {(row['ImageID'], row['LabelName']) for row in split.truth}
    labelled = [any((image, mid) in positive for mid in split.closure(leaf))
                for image, leaf in visible]
    assert abs(np.mean(labelled) - 0.43) < {'train': 0.05, 'validation': 0.11}[split.name]


def test_what_is_verified_absent_is_not_in_the_image(split):
    seen = defaultdict(set)
    for row in split.truth:
        seen[row['ImageID']] |= split.closure(row['LabelName'])
    absent = [row for row in split.labels if row['Confidence'] == '0']
    assert {split.is_parent(row['LabelName']) for row in absent} >= {False, split.name == 'train'}
    assert not any(row['LabelName'] in seen[row['ImageID']] for row in absent)


def test_all_objects_of_a_verified_class_are_boxed_unless_it_is_lost(split):
    kinds = defaultdict(set)
    for row in split.truth:
        for mid in split.closure(row['LabelName']):
            kinds[row['ImageID'], mid].add(row['Annotation'])
    positive = [row for row in split.labels if row['Confidence'] == '1']
    boxed = {(row['ImageID'], row['LabelName']) for row in split.boxes}
    lost = 0
    for row in positive:
        pair = row['ImageID'], row['LabelName']
        if 'lost' in kinds[pair]:
            lost += 1
            assert kinds[pair] == {'lost'} and pair not in boxed
        else:
            assert kinds[pair] <= BOXED
    assert 0.05 * len(positive) < lost < 0.3 * len(positive)


def test_boxes_are_those_that_the_truth_says(split):
    expected = Counter()
    groups = set()
    for row in split.truth:
        if row['Annotation'] == 'group-of':
            groups.add((row['ImageID'], row['NamedAs'], row['Unit']))
        elif row['Annotation'] in BOXED:
            expected[row['ImageID'], row['NamedAs'], '0'] += 1
    expected.update((image, name, '1') for image, name, _ in groups)
    assert Counter((r['ImageID'], r['LabelName'], r['IsGroupOf']) for r in split.boxes) == expected
    labels = {(r['ImageID'], r['LabelName']) for r in split.labels if r['Confidence'] == '1'}
    assert {(r['ImageID'], r['LabelName']) for r in split.boxes} <= labels


def test_parents_are_boxed_only_where_the_leaf_cannot_be_told(split, root):
    by_parent = [row for row in split.truth if row['NamedAs'] and split.is_parent(row['NamedAs'])]
    assert len(by_parent) > 5
    for row in by_parent:
        assert row['NamedAs'] in split.closure(row['LabelName'])
        width, height = Image.open(root / f'images/{split.name}/{row["ImageID"]}.jpg').size
        left, right, top, bottom = (float(row[side]) for side in SIDES)
        area = (right - left) * width * (bottom - top) * height
        assert row['Blurred'] == '1' or float(row['Hidden']) > 0.3 or area < 36 ** 2


def test_group_of_boxes_hold_more_than_five_objects_that_touch(split):
    heaps = defaultdict(list)
    for row in split.truth:
        if row['Annotation'] == 'group-of':
            heaps[row['ImageID'], row['NamedAs'], row['Unit']].append(
                [float(row[side]) for side in SIDES])
    assert len(heaps) >= (5 if split.name == 'train' else 1)
    assert sum(row['IsGroupOf'] == '1' for row in split.boxes) == len(heaps)
    for (image, name, _), boxes in heaps.items():
        assert len(boxes) > 5
        reached = {0}
        while more := {b for a in reached for b in range(len(boxes))
                       if _touch(boxes[a], boxes[b])} - reached:
            reached |= more
        assert len(reached) == len(boxes)
        low, high = np.min(boxes, axis=0), np.max(boxes, axis=0)
        around = [low[0], high[1], low[2], high[3]]
        stated = [[float(row[side]) for side in SIDES] for row in split.boxes
                  if (row['ImageID'], row['LabelName'], row['IsGroupOf']) == (image, name, '1')]
        assert np.abs(np.array(stated) - around).max(axis=1).min() < 0.01


def _touch(a, b):
    return a[0] <= b[1] and b[0] <= a[1] and a[2] <= b[3] and b[2] <= a[3]


def test_masks_are_of_the_objects_that_the_truth_says(split):
    rows = {(row['ImageID'], row['NamedAs'], row['Annotation']): [] for row in split.truth}
    for row in split.truth:
        rows[row['ImageID'], row['NamedAs'], row['Annotation']].append(row['Mask'])
    pngs = {}
    for path in sorted((split.root / 'masks').glob(f'*-{split.name}-masks-?.zip')):
        with zipfile.ZipFile(path) as archive:
            pngs |= {name: archive.read(name) for name in archive.namelist()}
    assert set(pngs) == {row['MaskPath'] for row in split.masks}
    for row in split.masks:
        width, height = Image.open(
            split.root / f'images/{split.name}/{row["ImageID"]}.jpg').size
        drawn = Image.open(io.BytesIO(pngs[row['MaskPath']])).resize((width, height), 0)
        drawn = np.asarray(drawn) > 0
        true = [rle_to_mask(decode_text(text, height, width))
                for text in rows[row['ImageID'], row['LabelName'], 'mask']]
        assert max((drawn & mask).sum() / (drawn | mask).sum() for mask in true) > 0.8


def test_oracle_holds_every_visible_object_as_it_was_painted(root, prepared, space):
    index = PreparedIndex.open(prepared['oracle'] / 'index.arrow')
    truth = defaultdict(list)
    for row in read_rows(root / 'truth/validation.csv'):
        truth[row['ImageID']].append((row['LabelName'], row['Mask']))
    assert not index.is_group_of.any() and index.has_mask.all()
    for row in range(index.num_images):
        height, width = int(index.heights[row]), int(index.widths[row])
        found = sorted((space.mids[class_id], counts)
                       for class_id, _, _, counts, _, _ in index.instances(row))
        expected = sorted((mid, decode_text(text, height, width)['counts'].decode())
                          for mid, text in truth[index.image_id(row)])
        assert found == expected


def test_oracle_verifies_every_visible_class_of_the_world(root, space, classes):
    truth, verified = defaultdict(set), defaultdict(dict)
    for row in read_rows(root / 'truth/validation.csv'):
        truth[row['ImageID']].add(row['LabelName'])
    for row in read_rows(root / 'challenge-2019-oracle-segmentation-labels.csv'):
        verified[row['ImageID']][row['LabelName']] = row['Confidence']
    visible = {classes.space.mid(name) for name in classes.above}
    unknown = 0
    for image, leaves in truth.items():
        assert {mid for mid, state in verified[image].items() if state == '1'} == leaves
        around = set().union(*(
            {mid, *(space.mids[i] for i in space.ancestors(space.class_id(mid)))}
            for mid in leaves))
        absent = {mid for mid, state in verified[image].items() if state == '0'}
        assert not absent & around
        unknown += len(visible - around - absent)
    assert unknown <= 0.01 * len(visible) * len(truth)  # classes that others hide


def _digests(folder):
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob('*')) if path.is_file()}


def test_bytes_depend_on_the_seed_and_not_on_workers(tmp_path):
    def make(name, **options):
        make_hard_world(tmp_path / name, num_images=40, **options)
        return _digests(tmp_path / name)

    first = make('a', seed=7, workers=1)
    assert make('b', seed=7, workers=2) == first
    boxes, names = (f'challenge-2019-{name}.csv' for name in (
        'train-segmentation-bbox', 'classes-description-segmentable'))
    other = make('c', seed=8, workers=1)
    assert other[boxes] != first[boxes] and other[names] == first[names]


def test_a_complete_world_is_reused_and_one_of_other_knobs_refused(root):
    options = {'num_images': 160, 'seed': 4}
    assert not make_hard_world(root, knobs=KNOBS, **options)
    for other in ({'knobs': replace(KNOBS, group=0.13)}, {'knobs': KNOBS, 'variant': 'B'}):
        with pytest.raises(UserError, match='holds another'):
            make_hard_world(root, **options, **other)


@pytest.mark.parametrize(('options', 'parts'), [
    (('--world', 'hard', '--set', 'tial=3'), ('tial=3', 'tail, confusable')),
    (('--world', 'hard', '--images', '39'), ('--images 39', 'at least 40')),
    (('--set', 'tail=3'), ('--world hard',)),
    (('--variant', 'B'), ('--world hard',)),
])
def test_mistakes_are_told_in_one_line(tmp_path, options, parts):
    result = run_tool('tools/make_demo_data.py', '--out', tmp_path / 'd', *options)
    assert_one_line_error(result, *parts)
    assert not list(tmp_path.iterdir())


def test_the_command_makes_the_world_that_its_options_ask_for(tmp_path):
    result = run_tool('tools/make_demo_data.py', '--world', 'hard', '--variant', 'B', '--seed', '3',
                      '--images', '40', '--set', 'group=0', 'lost=0', '--set', 'tail=5',
                      '--out', tmp_path / 'd')
    assert result.returncode == 0, result.stderr
    parameters = json.loads((tmp_path / 'd/demo_data.json').read_text())
    assert (parameters['variant'], parameters['seed'], parameters['images']) == ('B', 3, 40)
    expected = {'group': 0, 'lost': 0, 'tail': 5}
    assert expected.items() <= parameters['knobs'].items()
    boxes = read_rows(tmp_path / 'd/challenge-2019-train-segmentation-bbox.csv')
    assert {row['IsGroupOf'] for row in boxes} == {'0'}
