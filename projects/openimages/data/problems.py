"""What is wrong with a data set, kind by kind, each finding with its file and row.

Two sorts: *bad* input stops the work at once unless the user asked to skip it; a *note* is worth
knowing and never stops anything. Both end up in the report.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from projects.openimages.common.errors import UserError

LISTED_PER_KIND = 10_000
"""The report counts everything and lists this many of a kind."""

BAD_KINDS = {
    'broken_row': 'rows of a CSV that cannot be read, left out',
    'contradicting_row': 'rows that say of the same thing something else than an earlier row, left '
                         'out',
    'unknown_class': 'rows with a MID that is not in the class list, left out',
    'box_outside_image': 'rows with a box outside 0..1 or with its sides swapped, left out',
    'missing_image': 'images listed in a CSV but absent, left out with all their rows',
    'broken_image': 'images that cannot be read, left out with all their rows',
    'broken_archive': 'mask archives that cannot be read, their masks count as missing',
    'unsafe_archive_name': 'archive entries whose name leaves the folder, left out',
    'missing_mask': 'masks listed in a CSV but absent, their boxes count as boxes without mask',
    'broken_mask': 'masks that cannot be read, their boxes count as boxes without mask',
}
NOTE_KINDS = {
    'repeated_row': 'rows that say again what an earlier row says, left out',
    'mask_without_box': 'masks with no box of their class near, kept as instances of their own',
    'distant_join': 'masks joined to a box that is further away than rounding explains',
    'empty_mask': 'masks without a pixel, their boxes count as boxes without mask',
    'mask_outside_box': 'masks that reach outside their box',
    'shape_mismatch': 'masks of another shape than their image, stretched',
    'box_without_area': 'boxes without width or height, kept',
    'unverified_class': 'boxes of a class that no label verifies in the image, kept',
    'absent_class': 'boxes of a class that a label says is absent from the image, kept',
    'rotated_image': 'images that EXIF turns or mirrors, which some loaders apply and others not',
    'rotated_original': 'images that the image CSV turns, which nothing here does: boxes and masks '
                        'are for the pixels as stored',
    'suspect_image': 'images that public solutions leave out, kept',
    'extra_image': 'images in the folder of which the CSVs say nothing of use, not in the index',
    'missing_file': 'official files that were not found and change what is prepared',
}


@dataclass(frozen=True)
class Problem:
    """One finding.

    Attributes:
        kind: a key of ``BAD_KINDS`` or ``NOTE_KINDS``.
        message: what is wrong, one line.
        file: where, as the user gave it; None if nowhere.
        row: line number in that file, the header being 1.
        image_id: the image it concerns, if any.
        instance: the instance's number in the prepared index, if it has one.
    """

    kind: str
    message: str
    file: str | None = None
    row: int | None = None
    image_id: str | None = None
    instance: int | None = None

    def to_json(self, root: Path) -> dict:
        """What is known of it, without its kind; files under ``root`` are named from there."""
        values = asdict(self)
        del values['kind']
        values['message'] = re.sub(rf'(?<!\S){re.escape(str(root))}/', '', self.message)
        if self.file and Path(self.file).is_relative_to(root):
            values['file'] = Path(self.file).relative_to(root).as_posix()
        return {key: value for key, value in values.items() if value is not None}


class ProblemLog:
    """Counts every finding, lists the first ``LISTED_PER_KIND`` of a kind, stops at bad input.

    Args:
        skip: kinds of bad input to go on after instead of raising.
    """

    def __init__(self, skip: Collection[str] = ()) -> None:
        self.skip = frozenset(skip)
        self.counts: dict[str, int] = {}
        self.listed: dict[str, list[Problem]] = {}

    def add(self, problem: Problem) -> None:
        """Record one finding; a UserError if it is bad input that must not be skipped."""
        if problem.kind in BAD_KINDS and problem.kind not in self.skip:
            raise UserError(f'{problem.message} (--skip {problem.kind} goes on without)',
                            path=problem.file, row=problem.row)
        self.counts[problem.kind] = self.counts.get(problem.kind, 0) + 1
        listed = self.listed.setdefault(problem.kind, [])
        if len(listed) < LISTED_PER_KIND:
            listed.append(problem)

    def bad(self, kind: str, message: str, *, path: str | os.PathLike | None = None,
            row: int | None = None, image_id: str | None = None) -> None:
        """Record bad input."""
        self.add(Problem(kind, message, None if path is None else os.fspath(path), row, image_id))

    def notes(self, kind: str, count: int, problems: Iterable[Problem]) -> None:
        """Record ``count`` findings of a kind of which only the first are made into words."""
        if not count:
            return
        self.counts[kind] = self.counts.get(kind, 0) + count
        listed = self.listed.setdefault(kind, [])
        for problem in problems:
            if len(listed) >= LISTED_PER_KIND:
                break
            listed.append(problem)
