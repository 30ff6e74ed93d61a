"""The label space: classes, their hierarchy, and expansion over it.

In: the class list (``MID,Name``; its order gives the class index) and the hierarchy JSON of Open
Images. Out: a :class:`LabelSpace`, which knows every class's ancestors and descendants and repeats
annotations over them as rule 1 of the challenge asks (instances and positive labels go up to the
ancestors, negative labels down to the descendants; the root is not a class).

``class_id`` is 0-based, ``category_id`` = ``class_id + 1`` as in COCO and TF files.
Source of the rules: https://storage.googleapis.com/openimages/web/challenge2019.html, and
``oid_hierarchical_labels_expansion.py`` of the TF Object Detection API.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import atomic_write, open_regular


@dataclass(frozen=True, eq=False)
class LabelSpace:
    """Classes in their order, and who is whose ancestor.

    Attributes:
        mids: machine ids, such as ``/m/0jy4k``, by class id.
        names: display names by class id.
        ancestor_matrix: (C, C) bool, ``[c, a]`` is True where ``a`` is a proper ancestor of ``c``.
    """

    mids: tuple[str, ...]
    names: tuple[str, ...]
    ancestor_matrix: np.ndarray

    @classmethod
    def read(cls, classes_csv: str | os.PathLike, hierarchy_json: str | os.PathLike,
             num_classes: int | None = None) -> LabelSpace:
        """Read the official files.

        Args:
            classes_csv: ``MID,Name`` rows, with or without a header line (V5 to V7 have one).
            hierarchy_json: nested ``{"LabelName", "Subcategory": [...]}``.
            num_classes: the number of rows to insist on, such as 300.

        Raises:
            UserError: a row that is not two fields, a repeated or malformed MID, another number
                of classes, or a hierarchy that does not fit the list.
        """
        mids, names = read_classes(classes_csv)
        if num_classes is not None and len(mids) != num_classes:
            raise UserError(f'{len(mids)} classes, expected {num_classes}', path=classes_csv)
        return cls(mids, names, read_ancestors(hierarchy_json, mids))

    @property
    def num_classes(self) -> int:
        return len(self.mids)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Class id by MID."""
        return {mid: class_id for class_id, mid in enumerate(self.mids)}

    def class_id(self, mid: str) -> int:
        """The class id of a MID; a UserError if there is no such class."""
        try:
            return self.ids[mid]
        except KeyError:
            raise UserError(f'unknown class {mid!r}, expected one of the {self.num_classes} MIDs '
                            'of the class list') from None

    @cached_property
    def leaves(self) -> np.ndarray:
        """(C,) bool: classes without descendants."""
        return ~self.ancestor_matrix.any(axis=0)

    @property
    def parents(self) -> np.ndarray:
        """(C,) bool: classes with descendants."""
        return ~self.leaves

    def ancestors(self, class_id: int) -> tuple[int, ...]:
        """Class ids of all proper ancestors, sorted, the root excluded."""
        return self._up[class_id]

    def descendants(self, class_id: int) -> tuple[int, ...]:
        """Class ids of all proper descendants, sorted."""
        return self._down[class_id]

    @cached_property
    def _up(self) -> list[tuple[int, ...]]:
        return [tuple(np.flatnonzero(row).tolist()) for row in self.ancestor_matrix]

    @cached_property
    def _down(self) -> list[tuple[int, ...]]:
        return [tuple(np.flatnonzero(row).tolist()) for row in self.ancestor_matrix.T]

    def expand_instances(self, class_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Repeat each instance for every ancestor class (rule 1).

        Args:
            class_ids: (N,) int.

        Returns:
            ``rows`` (M,) int64 into the input, and ``class_ids`` (M,) int64: every instance as it
            is, followed by its ancestors in ascending class id.
        """
        return _expand(np.asarray(class_ids, np.int64), self._up)

    def expand_labels(self, class_ids: np.ndarray,
                      present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Repeat positive image labels for ancestors, negative ones for descendants (rule 1).

        Args:
            class_ids: (N,) int.
            present: (N,) bool, True where the class is verified present, False where absent.

        Returns:
            As :meth:`expand_instances`.
        """
        class_ids = np.asarray(class_ids, np.int64)
        shift = np.where(np.asarray(present, bool), 0, self.num_classes)
        rows, expanded = _expand(class_ids + shift, [*self._up, *self._down])
        return rows, np.where(expanded >= self.num_classes, expanded - self.num_classes, expanded)

    def to_json(self) -> str:
        """The whole label space as text; :meth:`from_json` reads it back."""
        pairs = np.argwhere(self.ancestor_matrix).tolist()
        return json.dumps({'mids': self.mids, 'names': self.names, 'ancestors': pairs},
                          ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> LabelSpace:
        """Read what :meth:`to_json` wrote."""
        data = json.loads(text)
        matrix = np.zeros((len(data['mids']),) * 2, bool)
        if data['ancestors']:
            matrix[tuple(np.array(data['ancestors']).T)] = True
        return cls(tuple(data['mids']), tuple(data['names']), matrix)


def _expand(keys: np.ndarray, table: list[tuple[int, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """Each key itself, then the entries of ``table[key]``: a gather, not a loop over rows."""
    lengths = np.array([1 + len(entries) for entries in table], np.int64)
    flat = np.array([value for key, entries in enumerate(table) for value in (key, *entries)],
                    np.int64)
    starts = np.cumsum(lengths) - lengths
    counts = lengths[keys]
    rows = np.repeat(np.arange(len(keys)), counts)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rows, flat[starts[keys][rows] + within]


_MID = re.compile(r'/[a-z]/\w+')
_MOST_BYTES = 1 << 26


def read_text(path: str | os.PathLike, what: str) -> str:
    """A small text file as a whole, with or without a byte-order mark.

    Args:
        path: the file.
        what: what it should be, for the error message, such as ``'the class list'``.

    Raises:
        UserError: no such file, no file at all, or anything but text.
    """
    try:
        with open_regular(path) as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f'no such file ({what})', path=path) from None
    if len(data) > _MOST_BYTES:
        raise UserError(f'more than {_MOST_BYTES >> 20} MB, which {what} cannot be', path=path)
    if b'\0' in data:
        raise UserError(f'NUL bytes, expected text ({what})', path=path,
                        row=data.count(b'\n', 0, data.index(b'\0')) + 1)
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise UserError(f'not UTF-8 text: {error.reason}', path=path,
                        row=data.count(b'\n', 0, error.start) + 1) from None


def read_classes(path: str | os.PathLike) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """MIDs and names in file order; a header line, as V5 to V7 have it, is skipped.

    People write such lists by hand, so the last row needs no line end.
    """
    names: dict[str, str] = {}
    rows: dict[str, int] = {}
    is_name_first = False
    reader = csv.reader(io.StringIO(read_text(path, 'the class list'), newline=''))
    try:
        for fields in reader:
            if not fields:
                continue
            if reader.line_num == 1 and 'LabelName' in fields:
                is_name_first = fields[0] != 'LabelName'
                continue
            mid, name = _class_row(fields[::-1] if is_name_first else fields, path,
                                   reader.line_num)
            if mid in rows:
                raise UserError(f'class {mid} again, first in row {rows[mid]}', path=path,
                                row=reader.line_num)
            rows[mid], names[mid] = reader.line_num, name
    except csv.Error as error:
        raise UserError(f'not MID,Name: {error}', path=path, row=reader.line_num) from None
    if not names:
        raise UserError('empty, expected MID,Name rows', path=path)
    return tuple(names), tuple(names.values())


def _class_row(fields: list[str], path: str | os.PathLike, row: int) -> tuple[str, str]:
    if len(fields) != 2 or not _MID.fullmatch(fields[0]) or not fields[1]:
        raise UserError(f'{",".join(fields)[:120]!r} is not MID,Name', path=path, row=row)
    return fields[0], fields[1]


def read_ancestors(path: str | os.PathLike, mids: Sequence[str], *,
                   with_others: bool = False) -> np.ndarray:
    """Read who is whose ancestor from a hierarchy.

    Follows the tree as it is written, as the official tool does: where a class with two parents is
    written out under only one of them, its children have only that one's ancestors.

    Args:
        path: nested ``{"LabelName", "Subcategory": [...]}`` as JSON; the root is no class, and a
            ``"Part"`` is no subclass.
        mids: the C classes.
        with_others: the hierarchy is of more classes, or of less. One that is not in ``mids``
            passes its ancestors on to the classes below it. Otherwise it must have them all, and
            no other.

    Returns:
        (C, C) bool, ``[c, a]`` is True where ``a`` is a proper ancestor of ``c``.
    """
    ids = {mid: class_id for class_id, mid in enumerate(mids)}
    matrix = np.zeros((len(mids), len(mids)), bool)
    seen: set[int] = set()
    waiting: list[tuple[dict, tuple[int, ...]]] = [
        (child, ()) for child in reversed(_children(_read_json(path), path))]
    while waiting:  # a stack, since a tree may be deeper than Python calls
        node, above = waiting.pop()
        children, mid = _children(node, path), node['LabelName']
        class_id = ids.get(mid)
        if class_id is None and not with_others:
            raise UserError(f'class {mid[:60]!r} is not in the class list', path=path)
        if class_id is not None:
            if class_id in above:
                raise UserError(f'{mid} is its own ancestor', path=path)
            seen.add(class_id)
            matrix[class_id, list(above)] = True
            above = (*above, class_id)
        waiting.extend((child, above) for child in reversed(children))
    if len(seen) != len(mids) and not with_others:
        missing = next(mid for mid, class_id in ids.items() if class_id not in seen)
        raise UserError(f'{len(mids) - len(seen)} classes of the list are not in the hierarchy, '
                        f'the first is {missing}', path=path)
    return matrix


def _read_json(path: str | os.PathLike) -> object:
    text = read_text(path, 'the class hierarchy')
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f'not JSON: {error}', path=path) from None
    except RecursionError:
        raise UserError('nested hundreds of classes deep, which no hierarchy is',
                        path=path) from None


def _children(node: object, path: str | os.PathLike) -> list[dict]:
    children = None
    if isinstance(node, dict) and isinstance(node.get('LabelName'), str):
        children = node.get('Subcategory', [])
    if not isinstance(children, list):
        raise UserError('not a hierarchy of {"LabelName": ..., "Subcategory": [...]}', path=path)
    return children


def read_label_map(path: str | os.PathLike) -> dict[str, int]:
    """Read a TF ``label_map.pbtxt``: category id by item name, in file order.

    The part of the text format that label maps use: ``item { name: "..." id: N ... }`` with either
    kind of quote, in any order, with further fields and ``#`` comments ignored.

    Raises:
        UserError: no text, anything that is not an item, or a name or an id that is there twice.
    """
    text = _without_comments(read_text(path, 'the label map'))
    label_map: dict[str, int] = {}
    ids: set[int] = set()
    place = len(text) - len(text.lstrip())

    def error(message: str) -> UserError:
        return UserError(message, path=path, row=text.count('\n', 0, place) + 1)

    while place < len(text):
        item = _ITEM.match(text, place)
        if item is None:
            raise error(f'{text[place:place + 40]!r} is not an item {{ name: "..." id: N }}')
        fields = dict(_FIELD.findall(item[1]))
        name, number = fields.get('name', '')[1:-1], fields.get('id', '')
        if not name or not re.fullmatch('-?[0-9]{1,10}', number):
            raise error(f'item without name or id: {" ".join(item[1].split())[:120]!r}')
        if name in label_map or int(number) in ids:
            raise error(f'name {name!r} or id {number} again')
        label_map[name] = int(number)
        ids.add(int(number))
        place = item.end()
    if not label_map:
        raise UserError('no item { name: "..." id: N } in the label map', path=path)
    return label_map


_QUOTED = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
_ITEM = re.compile(r'item\s*:?\s*\{((?:' + _QUOTED + r"""|[^{}"'])*)\}\s*""")
_FIELD = re.compile(r'(\w+)\s*:\s*(' + _QUOTED + r"""|[^\s,;"']+)""")


def _without_comments(text: str) -> str:
    return re.sub(_QUOTED + r'|#[^\n]*', lambda m: '' if m[0].startswith('#') else m[0], text)


def write_label_map(path: str | os.PathLike, label_space: LabelSpace) -> None:
    """Write ``label_map.pbtxt`` for the TF evaluator: item name = MID, id = class id + 1."""
    with atomic_write(path) as file:
        file.writelines(_label_map_items(zip(label_space.mids, label_space.names, strict=True)))


def _label_map_items(classes: Iterable[tuple[str, str]]) -> Iterable[str]:
    for category_id, (mid, name) in enumerate(classes, start=1):
        display = name.replace('\\', '\\\\').replace('"', '\\"')
        yield (f'item {{\n  name: "{mid}"\n  id: {category_id}\n'
               f'  display_name: "{display}"\n}}\n')
