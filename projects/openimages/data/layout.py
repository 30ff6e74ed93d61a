"""Where the official downloads lie under a data root.

Two releases are known: the 2019 challenge (300 classes) and the full release V5 to V7 (350
segmentable classes). Names are tried in the order below; the first that exists is taken.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from projects.openimages.common.errors import UserError
from projects.openimages.data.official.release_classes import read_release_classes
from projects.openimages.labels import LabelSpace

SPLITS = ('train', 'validation', 'test')
CHALLENGE_CLASSES = 'challenge-2019-classes-description-segmentable.csv'
CHALLENGE_HIERARCHY = 'challenge-2019-label300-segmentable-hierarchy.json'
CHALLENGE_NUM_CLASSES = 300

_BOXES = ('challenge-2019-{split}-segmentation-bbox.csv', 'oidv6-{split}-annotations-bbox.csv',
          '{split}-annotations-bbox.csv')
_LABELS = ('challenge-2019-{split}-segmentation-labels.csv',
           'challenge-2019-{split}-segmentation-imagelabels.csv',
           'oidv6-{split}-annotations-human-imagelabels.csv',
           'oidv7-{split}-annotations-human-imagelabels.csv',
           '{split}-annotations-human-imagelabels-boxable.csv',
           '{split}-annotations-human-imagelabels.csv')
_MASKS = ('challenge-2019-{split}-segmentation-masks.csv',
          '{split}-annotations-object-segmentation.csv')
_CLASSES = (CHALLENGE_CLASSES, 'oidv7-class-descriptions-segmentable.csv',
            'class-descriptions-segmentable.csv', 'oidv7-class-descriptions-boxable.csv',
            'oidv6-class-descriptions-boxable.csv', 'class-descriptions-boxable.csv',
            'oidv7-class-descriptions.csv', 'oidv6-class-descriptions.csv')
_HIERARCHIES = (CHALLENGE_HIERARCHY, 'bbox_labels_600_hierarchy.json',
                'oidv6-bbox_labels_600_hierarchy.json')
SEGMENTABLE_LIST = 'classes-segmentation.txt'


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split.

    Attributes:
        root: the data root.
        split: its name in the files' names, such as ``train``.
        boxes, labels, masks: the CSVs; None where the split has none.
        images: the folder of ``<ImageID>.jpg``.
        archives: mask zips.
        mask_folders: folders of extracted masks.
        is_challenge: the files are of the challenge, whose rows all have listed classes; the full
            release also has boxes and labels of classes without masks.
    """

    root: Path
    split: str
    boxes: Path | None
    labels: Path | None
    masks: Path | None
    images: Path
    archives: tuple[Path, ...]
    mask_folders: tuple[Path, ...]
    is_challenge: bool

    @property
    def tables(self) -> tuple[Path, ...]:
        """The CSVs that exist."""
        return tuple(path for path in (self.boxes, self.labels, self.masks) if path)


def find_split(root: str | os.PathLike, split: str) -> SplitFiles:
    """Find a split's files.

    Raises:
        UserError: no such folder, or a CSV that the split needs is not there. A test split may
            have none at all.
        OSError: a CSV is a link to nothing.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError('no such folder (the data root)', path=root)
    boxes, labels, masks = (_first(root, names, split) for names in (_BOXES, _LABELS, _MASKS))
    is_challenge = _is_challenge(boxes, labels, masks)
    if boxes or labels or masks or split != 'test':
        needed = ((boxes, _BOXES), (masks, _MASKS), *([(labels, _LABELS)] if is_challenge else []))
        for path, names in needed:
            if path is None:
                shown = ' or '.join(name.format(split=split) for name in names[:2])
                raise UserError(f'no {shown}', path=root)
    folders = (root, root / 'masks', root / 'masks' / split)
    return SplitFiles(
        root, split, boxes, labels, masks, root / 'images' / split,
        tuple(path for folder in folders for path in sorted(folder.glob('*.zip'))
              if _is_archive(path.name, split)),
        tuple(path for folder in folders[1:] for path in sorted(folder.glob('*'))
              if path.is_dir() and _is_archive(f'{path.name}.zip', split)),
        is_challenge)


def _is_challenge(*paths: Path | None) -> bool:
    return all(path is None or path.name.startswith('challenge-') for path in paths)


def _is_archive(name: str, split: str) -> bool:
    stem = name.removesuffix('.zip')
    return stem.rpartition('-')[0] in (f'challenge-2019-{split}-masks', f'{split}-masks')


def _first(root: Path, names: tuple[str, ...], split: str) -> Path | None:
    """The first that is there; an OSError if it is a link that leads nowhere or in a circle."""
    paths = (root / name.format(split=split) for name in names)
    found = next((path for path in paths if os.path.lexists(path)), None)
    if found is not None:
        found.stat()
    return found


@dataclass(frozen=True)
class ClassFiles:
    """Where the classes are described.

    Attributes:
        classes: the class list.
        hierarchy: its hierarchy.
        segmentable: the full release's list of classes with masks, where it is there.
        num_classes: how many to insist on; None for any number.
    """

    classes: Path
    hierarchy: Path
    segmentable: Path | None
    num_classes: int | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that exist."""
        return tuple(path for path in (self.classes, self.hierarchy, self.segmentable) if path)


def find_classes(root: str | os.PathLike, classes: Path | None = None,
                 hierarchy: Path | None = None, num_classes: int | None = None) -> ClassFiles:
    """Find the class list and the hierarchy of a data root.

    Args:
        root: the data root.
        classes, hierarchy: other files than those found under their official names.
        num_classes: insist on this many; the challenge's own list must have its 300.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError('no such folder (the data root)', path=root)
    classes = classes or _first(root, _CLASSES, '')
    hierarchy = hierarchy or _first(root, _HIERARCHIES, '')
    if classes is None:
        raise UserError(f'no {CHALLENGE_CLASSES}', path=root)
    if hierarchy is None:
        raise UserError(f'no {CHALLENGE_HIERARCHY}', path=root)
    if classes.name == CHALLENGE_CLASSES:
        return ClassFiles(classes, hierarchy, None, num_classes or CHALLENGE_NUM_CLASSES)
    return ClassFiles(classes, hierarchy, _first(root, (SEGMENTABLE_LIST,), ''), num_classes)


def read_classes_of(files: ClassFiles) -> LabelSpace:
    """The label space: strictly the challenge's, or the full release's with classes left out."""
    if files.classes.name == CHALLENGE_CLASSES:
        return LabelSpace.read(files.classes, files.hierarchy, files.num_classes)
    return read_release_classes(files.classes, files.hierarchy, files.segmentable,
                                files.num_classes)
