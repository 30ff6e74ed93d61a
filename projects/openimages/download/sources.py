"""Where each release's files are published, and how much there is.

All addresses are here and nowhere else: paths below the two public buckets, or below a mirror that
has a folder of each bucket's name. Sources:
https://storage.googleapis.com/openimages/web/challenge2019.html,
https://storage.googleapis.com/openimages/web/download_v7.html and
https://github.com/cvdfoundation/open-images-dataset (the images).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from projects.openimages.common.errors import UserError
from projects.openimages.data.official.releases import CHALLENGE as CHALLENGE_FILES
from projects.openimages.data.official.releases import CHALLENGE_TEST
from projects.openimages.data.official.releases import FULL as FULL_FILES

DEFAULT_CONNECTIONS = 64
"""Files at a time: images are small, so what takes time is waiting for each."""

_ANNOTATIONS, _IMAGES = 'openimages', 'open-images-dataset'
_BUCKETS = {_ANNOTATIONS: 'https://storage.googleapis.com/openimages',
            _IMAGES: 'https://open-images-dataset.s3.amazonaws.com'}


@dataclass(frozen=True)
class Split:
    """A split's files; paths are below the annotations' bucket.

    Attributes:
        boxes, labels, masks: the CSVs; empty for a split that publishes none.
        archives: the mask zips, with ``{shard}``.
        images: how many images come with everything that is published.
        image_bytes: their mean size: that of the published tars, divided by their images.
    """

    boxes: str
    labels: str
    masks: str
    archives: str
    images: int
    image_bytes: int

    @property
    def tables(self) -> tuple[str, ...]:
        """The CSVs."""
        return tuple(path for path in (self.boxes, self.labels, self.masks) if path)


@dataclass(frozen=True)
class Release:
    """A release.

    Attributes:
        name: for ``--release``.
        classes, hierarchy: paths of the class list and its hierarchy.
        segmentable: path of the list of classes with masks; empty where the class list is that.
        masked_only: the boxes and labels are also of images without any mask, which are left out.
        splits: by name, which is also the name of the images' folder, in the bucket and here.
    """

    name: str
    classes: str
    hierarchy: str
    segmentable: str
    masked_only: bool
    splits: Mapping[str, Split]

    @property
    def class_files(self) -> tuple[str, ...]:
        """What describes the classes."""
        return tuple(path for path in (self.classes, self.hierarchy, self.segmentable) if path)


_TRAIN_BYTES, _VALIDATION_BYTES, _TEST_BYTES = 294_000, 288_000, 287_000


def _challenge(split: str, image_bytes: int) -> Split:
    stem = f'challenge_2019/challenge-2019-{split}'
    archives = f'challenge_2019/{split}-masks/challenge-2019-{split}-masks-{{shard}}.zip'
    return Split(f'{stem}-segmentation-bbox.csv', f'{stem}-segmentation-labels.csv',
                 f'{stem}-segmentation-masks.csv', archives,
                 CHALLENGE_FILES.published[split].images, image_bytes)


def _full(split: str, boxes: str, image_bytes: int) -> Split:
    return Split(boxes, f'v5/{split}-annotations-human-imagelabels-boxable.csv',
                 f'v5/{split}-annotations-object-segmentation.csv',
                 f'v5/{split}-masks/{split}-masks-{{shard}}.zip',
                 FULL_FILES.published[split].images, image_bytes)


CHALLENGE = Release(
    name='challenge',
    classes='challenge_2019/challenge-2019-classes-description-segmentable.csv',
    hierarchy='challenge_2019/challenge-2019-label300-segmentable-hierarchy.json',
    segmentable='', masked_only=False,
    splits=MappingProxyType({
        'train': _challenge('train', _TRAIN_BYTES),
        'validation': _challenge('validation', _VALIDATION_BYTES),
        CHALLENGE_TEST: Split('', '', '', '', CHALLENGE_FILES.published[CHALLENGE_TEST].images,
                              97_000)}))

V7 = Release(  # V6 and V7 changed the boxes of train and the class list; the rest is V5's
    name='v7',
    classes='v7/oidv7-class-descriptions-boxable.csv',
    hierarchy='2018_04/bbox_labels_600_hierarchy.json',
    segmentable='v5/classes-segmentation.txt', masked_only=True,
    splits=MappingProxyType({
        'train': _full('train', 'v6/oidv6-train-annotations-bbox.csv', _TRAIN_BYTES),
        'validation': _full('validation', 'v5/validation-annotations-bbox.csv',
                            _VALIDATION_BYTES),
        'test': _full('test', 'v5/test-annotations-bbox.csv', _TEST_BYTES)}))

RELEASES = {release.name: release for release in (CHALLENGE, V7)}


class Addresses:
    """The addresses of the files, at their publishers or at a mirror.

    Args:
        base_url: a mirror, with folders ``openimages`` and ``open-images-dataset`` below it that
            hold what the buckets of these names hold.
    """

    def __init__(self, base_url: str | None = None) -> None:
        if base_url is not None and not base_url.startswith(('http://', 'https://')):
            raise UserError(f'--base-url {base_url!r}, expected http://... or https://...')
        self._base_url = base_url

    def annotations(self, path: str) -> str:
        """The address of a CSV, a class file or a mask archive."""
        return f'{self._bucket(_ANNOTATIONS)}/{path}'

    def image(self, split: str, image_id: str) -> str:
        """The address of an image."""
        return f'{self._bucket(_IMAGES)}/{split}/{image_id}.jpg'

    def _bucket(self, name: str) -> str:
        return _BUCKETS[name] if self._base_url is None else f'{self._base_url.rstrip("/")}/{name}'
