"""Releases by layouts: wherever files lie and whatever they are called, the same is prepared."""

import json
import shutil
from pathlib import Path

import pytest

from projects.openimages.common.errors import UserError
from projects.openimages.data.index import PreparedIndex
from projects.openimages.data.layout import find_classes, find_release, find_split
from tests.data.helpers import open_prepared, prepare
from tests.data.releases import (
    RELEASES,
    as_release,
    move_images,
    unpack_masks,
    without_challenge,
)
from tests.helpers import assert_one_line_error, run_tool

SPLIT = 'validation'
MASKS = {
    'zips': None,
    'zips in masks/SPLIT': 'zips',
    'a folder an archive': 'masks/{split}/{split}-masks-{{shard}}',
    'a folder an archive in the root': '{split}-masks-{{shard}}',
    'a flat folder a split': 'masks/{split}',
    'a flat folder with the archives\' name': '{split}-masks',
    'a flat folder for all': 'masks',
    'FiftyOne': '{split}/labels/masks/{{SHARD}}',
}
IMAGES = {
    'a folder a split': None,
    'shards': 'images/{split}_{{shard}}',
    'shards in the root': '{split}_{{shard}}',
    'a folder a split in the root': '{split}',
    'FiftyOne': '{split}/data',
}
TABLE = [(release, masks, images) for release in ('challenge', *RELEASES)
         for masks, images in [*((masks, 'a folder a split') for masks in MASKS),
                               *(('zips', images) for images in IMAGES), ('FiftyOne', 'FiftyOne'),
                               ('a flat folder for all', 'shards')]]


@pytest.fixture(scope='module')
def reference(prepared_data) -> PreparedIndex:
    """The demo data prepared as it is."""
    return open_prepared(prepared_data, SPLIT)


@pytest.fixture
def root(official_data, tmp_path) -> Path:
    """A copy without the train split."""
    return Path(shutil.copytree(official_data, tmp_path / 'data',
                                ignore=shutil.ignore_patterns('*train*')))


def arrange(root: Path, release: str, masks: str, images: str) -> None:
    if release != 'challenge':
        as_release(root, release, (SPLIT,))
        without_challenge(root)
    folder = MASKS[masks]
    if folder == 'zips':
        (root / 'masks' / SPLIT).mkdir()
        for path in (root / 'masks').glob(f'*{SPLIT}*.zip'):
            path.rename(root / 'masks' / SPLIT / path.name)
    elif folder:
        unpack_masks(root, SPLIT, folder.format(split=SPLIT))
    if IMAGES[images]:
        move_images(root, SPLIT, IMAGES[images].format(split=SPLIT))


def contents(index: PreparedIndex) -> dict[str, tuple]:
    """What an index says of each image that has instances."""
    records = {index.image_ids[n]: index.image(n) for n in range(index.num_images)}
    return {image_id: (record.width, record.height, record.class_ids.tolist(),
                       record.boxes.tolist(), record.is_group_of.tolist(), record.masks,
                       record.label_class_ids.tolist(), record.label_present.tolist())
            for image_id, record in records.items() if len(record.class_ids)}


@pytest.mark.parametrize(('release', 'masks', 'images'), TABLE)
def test_every_layout_of_every_release_prepares_to_the_same(root, reference, release, masks,
                                                            images):
    arrange(root, release, masks, images)
    prepare(root, SPLIT)
    index = open_prepared(root, SPLIT)
    assert index.num_instances and index.has_mask.any()
    assert contents(index) == contents(reference)
    assert index.label_space.mids == reference.label_space.mids
    report = json.loads((root / f'prepared/{SPLIT}/report.json').read_text('utf-8'))
    assert not [kind for kind, found in report['problems'].items() if found['stops']]
    assert report['release'] == ('challenge' if release == 'challenge' else 'v7')


def prepare_with_tool(root: Path, *arguments, split: str = SPLIT):
    result = run_tool('tools/prepare_data.py', '--data-root', root, '--split', split,
                      '--workers', 1, *arguments)
    assert result.returncode == 0, result.stderr
    return result


def lines_of(text: str) -> list[str]:
    return [' '.join(line.split()) for line in text.splitlines()]


def test_files_of_v7_are_named_as_they_are_taken(root):
    as_release(root, 'v7', (SPLIT,))
    without_challenge(root)
    lines = lines_of(prepare_with_tool(root).stderr)
    for line in ('classes oidv7-class-descriptions-boxable.csv',
                 'hierarchy bbox_labels_600_hierarchy.json',
                 'segmentable oidv7-classes-segmentation.txt',
                 f'{SPLIT}, full release, V5 to V7', 'boxes validation-annotations-bbox.csv',
                 'labels oidv7-val-annotations-human-imagelabels.csv',
                 'masks validation-annotations-object-segmentation.csv', f'images images/{SPLIT}'):
        assert line in lines
    assert not [line for line in lines if 'NOT FOUND' in line]
    assert open_prepared(root, SPLIT).label_space.num_classes == 300


def test_missing_lists_are_never_silent(root):
    """Without the two files everything can be prepared: with 301 classes and no labels."""
    as_release(root, 'v7', (SPLIT,))
    without_challenge(root)
    for name in ('oidv7-classes-segmentation.txt', 'oidv7-val-annotations-human-imagelabels.csv'):
        (root / name).unlink()
    result = prepare_with_tool(root, '--skip', 'missing_image')  # that of the class without masks
    lost = [line for line in lines_of(result.stderr) if 'NOT FOUND' in line]
    assert len(lost) == 2
    assert 'classes-segmentation.txt: all classes' in lost[0]
    assert 'oidv*-validation-annotations-human-imagelabels.csv' in lost[1]
    assert 'no class is verified' in lost[1]
    report = json.loads((root / f'prepared/{SPLIT}/report.json').read_text('utf-8'))
    assert report['problems']['missing_file']['count'] == 2
    assert 'missing_file' in result.stdout
    index = open_prepared(root, SPLIT)
    assert index.label_space.num_classes == 301 and not len(index.label_class_ids)


def test_labels_of_images_without_boxes_are_counted_and_not_kept(root, reference):
    as_release(root, 'v7', (SPLIT,))
    without_challenge(root)
    prepare(root, SPLIT)
    index = open_prepared(root, SPLIT)
    assert list(index.image_ids) == list(contents(reference))
    counts = json.loads((root / f'prepared/{SPLIT}/report.json').read_text('utf-8'))['counts']
    labels = len(reference.label_class_ids)
    assert counts['label_rows'] == 4 * labels + 1
    assert counts['rows_of_other_images'] + counts['rows_of_other_classes'] - 1 + 2 * len(
        index.label_class_ids) == counts['label_rows']


def test_newest_of_several_label_files_is_taken(root):
    as_release(root, 'v7', (SPLIT,))
    for name in ('validation-annotations-human-imagelabels-boxable.csv',
                 'oidv6-validation-annotations-human-imagelabels.csv'):
        shutil.copy(root / 'oidv7-val-annotations-human-imagelabels.csv', root / name)
    files = find_split(root, SPLIT, 'v7')
    assert files.labels.name == 'oidv6-validation-annotations-human-imagelabels.csv'
    files.labels.unlink()
    assert find_split(root, SPLIT, 'v7').labels.name.startswith('oidv7-val-')


def test_challenge_and_release_lie_side_by_side(root, prepared_data):
    as_release(root, 'v7', (SPLIT,))
    boxes = root / 'validation-annotations-bbox.csv'
    boxes.write_text(''.join(boxes.read_text('utf-8').splitlines(True)[:-1]), 'utf-8')
    prepare_with_tool(root)
    prepare_with_tool(root, '--release', 'v7', '--out', root / 'prepared_v7')
    path = f'prepared/{SPLIT}/index.arrow'
    assert (root / path).read_bytes() == (prepared_data / path).read_bytes()
    other = PreparedIndex.open(root / f'prepared_v7/{SPLIT}/index.arrow')
    lone = json.loads((root / f'prepared_v7/{SPLIT}/report.json').read_text('utf-8'))
    assert lone['release'] == 'v7'
    assert other.num_instances + 1 == open_prepared(root, SPLIT).num_instances + len(
        lone['problems'].get('mask_without_box', {'rows': []})['rows'])
    taken = {path.name for path in find_split(root, SPLIT).archives}
    assert taken and all(name.startswith('challenge-2019') for name in taken)
    assert taken == {f'challenge-2019-{path.name}'
                     for path in find_split(root, SPLIT, 'v7').archives}


def test_files_of_the_other_release_are_pointed_out(root):
    as_release(root, 'v5', (SPLIT,))
    (root / f'challenge-2019-{SPLIT}-segmentation-bbox.csv').unlink()
    result = run_tool('tools/prepare_data.py', '--data-root', root, '--split', SPLIT)
    assert_one_line_error(result, f'no challenge-2019-{SPLIT}-segmentation-bbox.csv',
                          '--release v7 takes those')


def test_coco_json_names_the_folders_of_shards(root, reference):
    move_images(root, SPLIT, 'images/validation_{shard}')
    prepare(root, SPLIT)
    coco = json.loads((root / f'prepared/{SPLIT}/coco.json').read_text('utf-8'))
    assert [image['file_name'] for image in coco['images']] == [
        f'validation_{image_id[0]}/{image_id}.jpg' for image_id in reference.image_ids]


def test_missing_image_of_a_shard_is_said(root, reference):
    move_images(root, SPLIT, 'images/validation_{shard}')
    image_id = reference.image_ids[0]
    (root / f'images/validation_{image_id[0]}/{image_id}.jpg').unlink()
    with pytest.raises(UserError, match=rf'{image_id}\.jpg: no such image'):
        prepare(root, SPLIT)


def test_test_images_of_the_challenge_are_a_split(root):
    (root / 'images/test').rename(root / 'images/challenge2018')
    with pytest.raises(UserError, match=r'images/test: no such.*; challenge2018 is there'):
        prepare(root, 'test')
    result = prepare_with_tool(root, split='challenge2018')
    assert 'annotations none: a split of images only' in lines_of(result.stderr)
    index = open_prepared(root, 'challenge2018')
    assert index.num_images == len(list((root / 'images/challenge2018').iterdir()))
    assert f'images {index.num_images} of 99,999' in ' '.join(result.stdout.split())


def test_release_is_the_one_that_is_there(tmp_path, root):
    assert find_release(tmp_path).name == 'challenge'
    assert find_release(root).name == 'challenge'
    as_release(root, 'v7', (SPLIT,))
    assert find_release(root).name == 'challenge'
    assert find_classes(root, release='v7').segmentable.name == 'oidv7-classes-segmentation.txt'
    without_challenge(root)
    assert find_release(root).name == 'v7'
