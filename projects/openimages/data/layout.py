"""Where the official downloads lie under a data root, and what of them is not there.

Names are those of :mod:`projects.openimages.data.official.releases`. Files of the two releases may
lie side by side; they are not mixed. Mask archives and their extracted folders, masks in one flat
folder, images in one folder a split or in the shards of the image archives, and FiftyOne's folders
are all found.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from projects.openimages.common.errors import UserError
from projects.openimages.data.folders import has_files, shards_of
from projects.openimages.data.official.release_classes import read_release_classes
from projects.openimages.data.official.releases import (
    CHALLENGE,
    FULL,
    RELEASES,
    TEST_SPLITS,
    Release,
    patterns_of,
)
from projects.openimages.labels import LabelSpace


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split.

    Attributes:
        root: the data root.
        split: its name in the files' names, such as ``train``.
        release: what they belong to.
        boxes, labels, masks: the CSVs; None where the split has none.
        images: the CSV with the images' rotation; None without one.
        image_folders: folders of ``<ImageID>.jpg``; of those only the first may not exist.
        archives: mask zips.
        mask_folders: folders of extracted masks.
    """

    root: Path
    split: str
    release: Release
    boxes: Path | None
    labels: Path | None
    masks: Path | None
    images: Path | None
    image_folders: tuple[Path, ...]
    archives: tuple[Path, ...]
    mask_folders: tuple[Path, ...]

    @property
    def is_challenge(self) -> bool:
        """All rows must have listed classes; the full release also has rows of other classes."""
        return self.release is CHALLENGE

    @property
    def tables(self) -> tuple[Path, ...]:
        """The CSVs that exist."""
        return tuple(path for path in (self.boxes, self.labels, self.masks, self.images) if path)

    @property
    def missing(self) -> dict[str, str]:
        """What was not found and is not needed, and what that changes."""
        if self.boxes is None:
            return {} if self.is_challenge else {
                'annotations': f'no {_shown(self.release.boxes, self.split)}: a split of images '
                               'without annotations'}
        if self.labels is None:
            return {'labels': f'no {_shown(self.release.labels, self.split)}: no class is '
                              'verified in any image, and none is known to be absent'}
        return {}

    def describe(self) -> Iterator[str]:
        """For people: which file was taken for what, and what was not found."""
        yield f'{self.split}, {self.release.title}'
        if self.boxes is None:
            yield ('  annotations  ' + (f'NOT FOUND: {self.missing["annotations"]}'
                                        if self.missing else 'none: a split of images only'))
        for name in ('boxes', 'labels', 'masks') if self.boxes else ():
            yield _line(name, self.root, getattr(self, name), self.missing.get(name, ''))
        if self.masks:
            yield _line('mask files', self.root, (*self.mask_folders, *self.archives),
                        f'no archive {self.release.archives} and no folder of masks')
        if self.images:
            yield _line('rotation', self.root, self.images)
        there = [folder for folder in self.image_folders if folder.is_dir()]
        yield _line('images', self.root, there, f'no folder {self.image_folders[0]}')


def _line(what: str, root: Path, paths: Path | Sequence[Path] | None, missing: str = '') -> str:
    paths = [paths] if isinstance(paths, Path) else list(paths or ())
    names = [os.path.relpath(path, root) if path.is_relative_to(root) else str(path)
             for path in paths]
    shown = ', '.join(names) if len(names) < 3 else f'{names[0]} ... {names[-1]} ({len(names)})'
    return f'  {what:<12} {shown or "NOT FOUND: " + missing}'


def _shown(names: tuple[str, ...], split: str = '') -> str:
    """The names that Google gives a file, for a message."""
    google = [pattern for pattern in patterns_of(names, split) if '/' not in pattern]
    return ' or '.join(google[:3])


def find_release(root: Path, name: str | None = None) -> Release:
    """The release whose files lie in a data root; the challenge, where both do.

    Args:
        root: the data root.
        name: a key of ``RELEASES`` that is taken whatever lies there.

    Raises:
        UserError: no such folder.
    """
    if not root.is_dir():
        raise UserError('no such folder (the data root)', path=root)
    if name is not None:
        return RELEASES[name]
    for release in (CHALLENGE, FULL):
        if any(_matches(root, pattern.replace('{split}', '*'))
               for pattern in (*release.classes, *release.boxes, *release.masks)):
            return release
    return CHALLENGE


def find_split(root: str | os.PathLike, split: str, release: str | None = None) -> SplitFiles:
    """Find a split's files.

    Args:
        root: the data root.
        split: its name.
        release: see :func:`find_release`.

    Raises:
        UserError: no such folder, or a CSV that the split needs is not there. A test split may
            have none at all.
        OSError: a CSV is a link to nothing.
    """
    root = Path(root)
    of = find_release(root, release)
    boxes, labels, masks = (_first(root, names, split)
                            for names in (of.boxes, of.labels, of.masks))
    if boxes or labels or masks or split not in TEST_SPLITS:
        needed = [(boxes, of.boxes), (masks, of.masks),
                  *([(labels, of.labels)] if of is CHALLENGE else [])]
        for path, names in needed:
            if path is None:
                raise UserError(f'no {_shown(names, split)}' + _hint(root, of, split), path=root)
    archives, mask_folders = _find_mask_files(root, of, split)
    return SplitFiles(root, split, of, boxes, labels, masks,
                      _first(root, of.images, split) if boxes else None,
                      find_image_folders(root, split), archives, mask_folders)


def _hint(root: Path, release: Release, split: str) -> str:
    """What to do where the other release's files are there."""
    for other in RELEASES.values():
        if other is not release and _first(root, other.boxes, split):
            return f'; but files of the {other.title} are: --release {other.name} takes those'
    return ''


def _find_mask_files(root: Path, release: Release,
                     split: str) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Archives, and folders of extracted masks: each archive's, or a flat one."""
    names = [of.archives.removesuffix('{shard}.zip').replace('{split}', split)
             for of in (release, FULL)]  # the challenge's, extracted, are often called like this
    flat = (root / 'masks' / split, *(folder / name.removesuffix('-')
                                      for folder in (root, root / 'masks') for name in names))
    bases = tuple(dict.fromkeys((root, root / 'masks', *flat)))
    archives: tuple[Path, ...] = ()
    folders: list[Path] = []
    for name in dict.fromkeys(names):
        found = [path for base in bases for path in sorted(base.glob(f'{name}?*'))
                 if '-' not in path.name.removeprefix(name)]
        folders += [path for path in found if path.is_dir() and path not in flat]
        # Another release's archives do where its own are not.
        archives = archives or tuple(path for path in found if path.suffix == '.zip')
    of_fiftyone = sorted((root / split / 'labels' / 'masks').glob('?'))
    return archives, (*folders, *of_fiftyone,
                      *(folder for folder in bases[1:] if has_files(folder, '.png')))


def find_image_folders(root: Path, split: str) -> tuple[Path, ...]:
    """The split's own folder, the image archives' shards, FiftyOne's folder: all that exist.

    Where none does, it is the split's own, ``images/<split>``.
    """
    usual = root / 'images' / split
    others = (*shards_of(usual), root / split / 'data', *shards_of(root / split), root / split)
    found = [folder for folder in others if has_files(folder, '.jpg')]
    return (usual, *found) if usual.is_dir() or not found else tuple(found)


def _first(root: Path, names: tuple[str, ...], split: str = '') -> Path | None:
    """The first that is there; an OSError if it is a link that leads nowhere or in a circle."""
    found = next((path for pattern in patterns_of(names, split)
                  for path in _matches(root, pattern)), None)
    if found is not None:
        found.stat()
    return found


def _matches(root: Path, pattern: str) -> list[Path]:
    """Files of a pattern, the newest release's first; in ``annotations`` as CVAT has them."""
    return [folder / name for folder in (root, root / 'annotations')
            for name in sorted(glob.glob(pattern, root_dir=folder), reverse=True)]


@dataclass(frozen=True)
class ClassFiles:
    """Where the classes are described.

    Attributes:
        root: the data root.
        classes: the class list.
        hierarchy: its hierarchy.
        segmentable: the full release's list of classes with masks, where it is there.
        num_classes: how many to insist on; None for any number.
        missing: what was not found, and what that changes.
    """

    root: Path
    classes: Path
    hierarchy: Path
    segmentable: Path | None
    num_classes: int | None
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that exist."""
        return tuple(path for path in (self.classes, self.hierarchy, self.segmentable) if path)

    def describe(self) -> Iterator[str]:
        """For people: which file was taken for what, and what was not found."""
        yield 'classes'
        for name in ('classes', 'hierarchy', 'segmentable'):
            path = getattr(self, name)
            if path or name in self.missing:
                yield _line(name, self.root, path, self.missing.get(name, ''))


def has_class_list(root: str | os.PathLike, release: str | None = None) -> bool:
    """Whether a release's own class list is there."""
    return _first(Path(root), find_release(Path(root), release).classes) is not None


def find_classes(root: str | os.PathLike, classes: Path | None = None,
                 hierarchy: Path | None = None, num_classes: int | None = None,
                 release: str | None = None) -> ClassFiles:
    """Find the class list and the hierarchy of a data root.

    Args:
        root: the data root.
        classes, hierarchy: other files than those found under their official names.
        num_classes: insist on this many; the challenge's own list must have its 300.
        release: see :func:`find_release`.
    """
    root = Path(root)
    of = find_release(root, release)
    is_official = classes is None
    classes = classes or _first(root, of.classes)
    hierarchy = hierarchy or _first(root, of.hierarchy)
    for path, names in ((classes, of.classes), (hierarchy, of.hierarchy)):
        if path is None:
            raise UserError(f'no {_shown(names)}', path=root)
    assert classes and hierarchy
    if of is CHALLENGE and is_official:
        return ClassFiles(root, classes, hierarchy, None, num_classes or of.num_classes)
    segmentable = _first(root, of.segmentable) if is_official else None
    missing = {}
    if is_official and segmentable is None and 'segmentable' not in classes.name:
        missing['segmentable'] = (f'no {_shown(of.segmentable)}: all classes of {classes.name} '
                                  f'are taken, not the {of.num_classes} with masks')
    return ClassFiles(root, classes, hierarchy, segmentable, num_classes, missing)


def read_classes_of(files: ClassFiles) -> LabelSpace:
    """The label space: strictly the challenge's, or the full release's with classes left out."""
    if files.classes.name == CHALLENGE.classes[0]:
        return LabelSpace.read(files.classes, files.hierarchy, files.num_classes)
    return read_release_classes(files.classes, files.hierarchy, files.segmentable,
                                files.num_classes)
