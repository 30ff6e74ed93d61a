"""Which images of a split are fetched.

In: the split's CSVs, and what the user asked for. Out: a :class:`Choice`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from projects.openimages.common.csv_files import Distinct, distinct, read_columns, read_header
from projects.openimages.common.errors import UserError
from projects.openimages.labels import LabelSpace, read_text

_NAME = pa.dictionary(pa.int32(), pa.string())
_IMAGE_ID = re.compile(r'[\w-]+', re.ASCII)
_LISTED = re.compile(r'(?:([\w-]+)/)?([\w-]+)(?:\.jpg)?', re.ASCII)
_ID_COLUMNS = ('ImageID', 'image_id')


@dataclass(frozen=True)
class Choice:
    """Images to fetch.

    Attributes:
        image_ids: ascending.
        shards: first characters of those with masks: which mask archives are needed.
    """

    image_ids: tuple[str, ...]
    shards: tuple[str, ...]


class ImageList:
    """A user's list of images.

    Args:
        path: a CSV with a column ``ImageID``, such as the challenge's sample submission, or ids,
            one a line, also as ``train/0a1b2c...`` for one split only.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = path
        self._entries = _read_csv_list(path) or _read_plain_list(path)

    def of_split(self, split: str) -> set[str]:
        """The ids that may be of a split."""
        return {image_id for folder, image_id in self._entries if folder in ('', split)}


def _read_csv_list(path: str | os.PathLike) -> list[tuple[str, str]]:
    header = read_header(path)
    column = next((name for name in _ID_COLUMNS if name in header), None)
    if column is None:
        return []
    table = read_columns(path, {column: pa.string()})
    ids = table[column].to_pylist()
    for record, image_id in enumerate(ids):
        if not _IMAGE_ID.fullmatch(image_id):
            raise table.error(record, f'image id {image_id[:60]!r} is not letters and digits')
    if not ids:
        raise UserError('no image in the list', path=path)
    return [('', image_id) for image_id in ids]


def _read_plain_list(path: str | os.PathLike) -> list[tuple[str, str]]:
    entries = []
    for row, line in enumerate(read_text(path, 'the list of images').splitlines(), start=1):
        if not line.strip():
            continue
        found = _LISTED.fullmatch(line.strip())
        if found is None:
            raise UserError(f'{line[:60]!r} is no image id; expected one a line, or a CSV with a '
                            f'column {_ID_COLUMNS[0]}', path=path, row=row)
        entries.append((found[1] or '', found[2]))
    return entries


def find_classes(wanted: Iterable[str], space: LabelSpace) -> set[str]:
    """The MIDs of classes and of all classes below them.

    Args:
        wanted: MIDs or names, in any case.
        space: the classes there are.
    """
    by_name = {name.lower(): class_id for class_id, name in enumerate(space.names)}
    mids: set[str] = set()
    for text in wanted:
        class_id = space.ids.get(text, by_name.get(text.lower()))
        if class_id is None:
            near = difflib.get_close_matches(text.lower(), by_name, n=3)
            hint = ', '.join(space.names[by_name[name]] for name in near)
            raise UserError(f'--classes: no class {text!r}' + (f'; near: {hint}' if near else ''))
        mids |= {space.mids[each] for each in (class_id, *space.descendants(class_id))}
    return mids


def choose_images(masks: Path, others: Sequence[Path], mids: set[str] | None = None,
                  listed: set[str] | None = None, most: int | None = None) -> Choice:
    """Choose images by their rows.

    Those of all CSVs that are given, or those with a mask of certain classes; of them only the
    listed ones; of those the first in the order of their ids. Ids are random, so the first are a
    fair sample, and need few mask archives, since an archive holds one first character.

    Args:
        masks: the masks CSV.
        others: further CSVs whose images are wanted, such as boxes and labels.
        mids: classes; None for any image.
        listed: ids; None for all.
        most: how many images; None for all.
    """
    masked, classes = _columns(masks, 'ImageID', 'LabelName')
    everything = set(masked.values)
    for path in others:
        everything |= set(_columns(path, 'ImageID')[0].values)
    chosen = everything
    if mids is not None:
        is_wanted = np.array([mid in mids for mid in classes.values], bool)[classes.codes]
        chosen = {masked.values[code] for code in np.unique(masked.codes[is_wanted]).tolist()}
    if listed is not None:
        chosen = chosen & listed
    # What is no id would become a path; preparing reports such rows.
    ids = sorted(image_id for image_id in chosen if _IMAGE_ID.fullmatch(image_id))[:most]
    shards = {image_id[0] for image_id in set(masked.values).intersection(ids)}
    return Choice(tuple(ids), tuple(sorted(shards)))


def _columns(path: Path, *names: str) -> list[Distinct]:
    """Columns of the rows that can be read; preparing reports the others."""
    table = read_columns(path, dict.fromkeys(names, _NAME), on_bad=lambda row, message: None)
    return [distinct(table[name]) for name in names]
