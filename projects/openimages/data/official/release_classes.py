"""The label space of the full release V5 to V7.

Its class descriptions and hierarchy cover all 601 classes with boxes; 350 of them have masks, and
``classes-segmentation.txt`` says which. A class that is not used passes its ancestors on to the
classes below it.
"""

from __future__ import annotations

from pathlib import Path

from projects.openimages.common.errors import UserError
from projects.openimages.labels import LabelSpace, read_ancestors, read_classes, read_text


def read_release_classes(classes: Path, hierarchy: Path, segmentable: Path | None = None,
                         num_classes: int | None = None) -> LabelSpace:
    """Read the full release's classes.

    Args:
        classes: descriptions, ``MID,Name`` rows under a header line.
        hierarchy: nested ``{"LabelName", "Subcategory": [...]}``; also of other classes.
        segmentable: MIDs to keep, one a line; None keeps every class described.
        num_classes: the number of classes to insist on.
    """
    mids, names = read_classes(classes)
    if segmentable is not None:
        name_of = dict(zip(mids, names, strict=True))
        mids = _read_mids(segmentable, name_of, classes)
        names = tuple(name_of[mid] for mid in mids)
    if num_classes is not None and len(mids) != num_classes:
        raise UserError(f'{len(mids)} classes, expected {num_classes}',
                        path=segmentable or classes)
    return LabelSpace(mids, names, read_ancestors(hierarchy, mids, with_others=True))


def _read_mids(path: Path, name_of: dict[str, str], classes: Path) -> tuple[str, ...]:
    mids: list[str] = []
    text = read_text(path, 'the list of segmentable classes')
    for row, line in enumerate(text.splitlines(), start=1):
        mid = line.strip()
        if not mid:
            continue
        if mid not in name_of:
            raise UserError(f'class {mid!r} has no description in {classes.name}', path=path,
                            row=row)
        if mid in mids:
            raise UserError(f'class {mid} again', path=path, row=row)
        mids.append(mid)
    return tuple(mids)
