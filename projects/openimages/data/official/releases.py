"""The releases of Open Images with masks: their files' names, what is published of them, traps.

Two are known: the 2019 challenge (300 classes) and the full release, V5 to V7 (350 classes). All
names of official files are here and nowhere else. A name is a glob pattern below the data root or
its folder ``annotations``; ``{split}`` stands for the split, which V7 calls ``val`` in one name.

Sources: https://storage.googleapis.com/openimages/web/challenge2019.html,
https://storage.googleapis.com/openimages/web/download_v7.html and, for the counts,
https://storage.googleapis.com/openimages/web/factsfigures_v7.html. FiftyOne's names are those of
its ``open-images-v6`` and ``-v7`` datasets, which are the full release's files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

CHALLENGE_TEST = 'challenge2018'
"""The 99,999 test images of the challenges of 2018 and 2019, as the image storage calls them. The
split ``test`` of the full release is another one."""
SPLITS = ('train', 'validation', 'test', CHALLENGE_TEST)
TEST_SPLITS = ('test', CHALLENGE_TEST)
"""These may have images only."""
SHARDS = '0123456789abcdef'
"""The first character of an ImageID says which mask archive and which image archive it is in."""


class Published(NamedTuple):
    """How much of a split is published: images (with a mask, where there are masks) and masks."""

    images: int
    masks: int


@dataclass(frozen=True)
class Release:
    """The files of a release; of each pattern's matches the last in the alphabet is the newest.

    Attributes:
        name: for ``--release``.
        title: for people.
        classes, hierarchy: patterns, the best first; Google's own names before other programs'.
        segmentable: the list of classes with masks, where the class list has more than those.
        num_classes: how many have masks.
        boxes, labels, masks: the CSVs of a split.
        images: a split's CSV with a ``Rotation`` column.
        archives: zips of masks, ``{shard}`` being one of ``SHARDS``, below one of the folders
            ``.``, ``masks`` and ``masks/{split}``.
        published: by split.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    hierarchy: tuple[str, ...]
    segmentable: tuple[str, ...]
    num_classes: int
    boxes: tuple[str, ...]
    labels: tuple[str, ...]
    masks: tuple[str, ...]
    images: tuple[str, ...]
    archives: str
    published: Mapping[str, Published]


_IMAGES = ('{split}-images-boxable-with-rotation.csv', '{split}-images-with-rotation.csv',
           'image_ids_and_rotation.csv', '{split}/metadata/image_ids.csv')

CHALLENGE = Release(
    name='challenge', title='challenge 2019',
    classes=('challenge-2019-classes-description-segmentable.csv',),
    hierarchy=('challenge-2019-label300-segmentable-hierarchy.json',),
    segmentable=(), num_classes=300,
    boxes=('challenge-2019-{split}-segmentation-bbox.csv',),
    labels=('challenge-2019-{split}-segmentation-labels.csv',
            'challenge-2019-{split}-segmentation-imagelabels.csv'),
    masks=('challenge-2019-{split}-segmentation-masks.csv',),
    images=_IMAGES,
    archives='challenge-2019-{split}-masks-{shard}.zip',
    published=MappingProxyType({'train': Published(848_512, 2_125_530),
                                'validation': Published(12_965, 23_366),
                                CHALLENGE_TEST: Published(99_999, 0)}))

FULL = Release(
    name='v7', title='full release, V5 to V7',
    classes=('oidv*-class-descriptions-segmentable.csv', 'class-descriptions-segmentable.csv',
             'oidv*-class-descriptions-boxable.csv', 'class-descriptions-boxable.csv',
             'oidv*-class-descriptions.csv', 'class-descriptions.csv',
             '*/metadata/classes.csv'),
    hierarchy=('bbox_labels_600_hierarchy.json', 'oidv*bbox_labels_600_hierarchy.json',
               '*/metadata/hierarchy.json'),
    segmentable=('oidv*-classes-segmentation.txt', 'classes-segmentation.txt',
                 '*/metadata/segmentation_classes.csv'),
    num_classes=350,
    boxes=('oidv*-{split}-annotations-bbox.csv', '{split}-annotations-bbox.csv',
           '{split}/labels/detections.csv'),
    labels=('oidv*-{split}-annotations-human-imagelabels.csv',
            '{split}-annotations-human-imagelabels.csv',
            'oidv*-{split}-annotations-human-imagelabels-boxable.csv',
            '{split}-annotations-human-imagelabels-boxable.csv',
            '{split}/labels/classifications.csv'),
    masks=('oidv*-{split}-annotations-object-segmentation.csv',
           '{split}-annotations-object-segmentation.csv', '{split}/labels/segmentations.csv'),
    images=_IMAGES,
    archives='{split}-masks-{shard}.zip',
    published=MappingProxyType({'train': Published(944_037, 2_686_666),
                                'validation': Published(13_524, 24_730),
                                'test': Published(40_386, 74_102)}))

RELEASES = {release.name: release for release in (CHALLENGE, FULL)}

RELEASE_TEST_IMAGES = 125_436
"""Images of the full release's split ``test``, with masks or without."""

SUSPECT_IMAGES = frozenset({'1d5ef05c8da80e31', '1af17f3d912e9aac', '3095084b358d3f2d',
                            '3ad7415a11ac1f5e', '42a30d8f8fba8b40'})
"""Training images that several public solutions leave out, without saying why."""


def split_names(split: str) -> tuple[str, ...]:
    """What the files of a split call it: its own name, then its other one."""
    return (split, 'val') if split == 'validation' else (split,)


def patterns_of(names: tuple[str, ...], split: str) -> Iterator[str]:
    """The patterns of a split's file, in the order in which they are tried."""
    for name in names:
        for alias in split_names(split):
            yield name.replace('{split}', alias)
