"""The classes of a data root, or those of them that somebody wants."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from projects.openimages.common.errors import UserError
from projects.openimages.data.layout import (
    ClassFiles,
    find_classes,
    has_class_list,
    read_classes_of,
)
from projects.openimages.data.official.class_choice import ClassChoice, read_choice
from projects.openimages.labels import LabelSpace


@dataclass(frozen=True)
class Classes:
    """The classes to prepare.

    Attributes:
        files: where they are described.
        space: the release's.
        choice: those of them that are wanted; None for all.
        chosen_in: the file that says so.
    """

    files: ClassFiles
    space: LabelSpace
    choice: ClassChoice | None = None
    chosen_in: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that were read."""
        return (*self.files.paths, *([self.chosen_in] if self.chosen_in else []))

    def describe(self) -> Iterator[str]:
        """For people: which file was taken for what, and what was not found."""
        yield from self.files.describe()
        if self.choice:
            yield (f'  chosen       {self.choice.space.num_classes} of {self.space.num_classes}, '
                   f'{self.chosen_in}')


def find_label_space(root: Path, classes: Path | None = None, hierarchy: Path | None = None,
                     num_classes: int | None = None, release: str | None = None) -> Classes:
    """Find and read the classes.

    Args:
        root: the data root.
        classes: those that are wanted of the release's. Where the release's own list is not in
            the data root, this is the class list itself.
        hierarchy: another file than the one found under its official name.
        num_classes: insist on so many.
        release: see :func:`projects.openimages.data.layout.find_release`.
    """
    if classes is None or not has_class_list(root, release):
        files = find_classes(root, classes, hierarchy, num_classes, release)
        return Classes(files, read_classes_of(files))
    files = find_classes(root, None, hierarchy, None, release)
    space = read_classes_of(files)
    if classes.exists() and os.path.samefile(classes, files.classes):
        return Classes(files, space)
    choice = read_choice(classes, space)
    if num_classes is not None and choice.space.num_classes != num_classes:
        raise UserError(f'{choice.space.num_classes} classes, expected {num_classes}',
                        path=classes)
    return Classes(files, space, choice, classes)
