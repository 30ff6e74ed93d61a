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
