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
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import atomic_write


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
        return cls(mids, names, _read_ancestors(hierarchy_json, mids))

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


def read_classes(path: str | os.PathLike) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """MIDs and names in file order; a header line, as V5 to V7 have it, is skipped."""
    mids: list[str] = []
    names: list[str] = []
    rows: dict[str, int] = {}
    try:
        with open(path, encoding='utf-8-sig', newline='') as file:
            reader = csv.reader(file)
            for fields in reader:
                if not fields or (reader.line_num == 1 and fields[0] == 'LabelName'):
                    continue
                mid, name = _class_row(fields, path, reader.line_num)
                if mid in rows:
                    raise UserError(f'class {mid} again, first in row {rows[mid]}', path=path,
                                    row=reader.line_num)
                rows[mid] = reader.line_num
                mids.append(mid)
                names.append(name)
    except FileNotFoundError:
        raise UserError('no such file (the class list)', path=path) from None
    except UnicodeDecodeError as error:
        raise UserError(f'not UTF-8 text: {error.reason}', path=path) from None
    if not mids:
        raise UserError('empty, expected MID,Name rows', path=path)
    return tuple(mids), tuple(names)


def _class_row(fields: list[str], path: str | os.PathLike, row: int) -> tuple[str, str]:
    if len(fields) != 2 or not _MID.fullmatch(fields[0]) or not fields[1]:
        raise UserError(f'{",".join(fields)!r} is not MID,Name', path=path, row=row)
    return fields[0], fields[1]


def _read_ancestors(path: str | os.PathLike, mids: tuple[str, ...]) -> np.ndarray:
    try:
        with open(path, encoding='utf-8') as file:
            root = json.load(file)
    except FileNotFoundError:
        raise UserError('no such file (the class hierarchy)', path=path) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f'not JSON: {error}', path=path) from None
    ids = {mid: class_id for class_id, mid in enumerate(mids)}
    matrix = np.zeros((len(mids), len(mids)), bool)
    seen: set[int] = set()

    def visit(node: object, above: tuple[int, ...]) -> None:
        # Follows the tree as written, as the official tool does: where a class with two parents
        # is written out under only one of them, its children have only that one's ancestors.
        if not isinstance(node, dict) or node.get('LabelName') not in ids:
            label = node.get('LabelName') if isinstance(node, dict) else node
            raise UserError(f'class {label!r} is not in the class list', path=path)
        class_id = ids[node['LabelName']]
        if class_id in above:
            raise UserError(f'{node["LabelName"]} is its own ancestor', path=path)
        seen.add(class_id)
        matrix[class_id, list(above)] = True
        for child in node.get('Subcategory', ()):
            visit(child, (*above, class_id))

    for child in root.get('Subcategory', ()) if isinstance(root, dict) else ():
        visit(child, ())
    if len(seen) != len(mids):
        missing = next(mid for mid, class_id in ids.items() if class_id not in seen)
        raise UserError(f'{len(mids) - len(seen)} classes of the list are not in the hierarchy, '
                        f'the first is {missing}', path=path)
    return matrix


def read_label_map(path: str | os.PathLike) -> dict[str, int]:
    """Read a TF ``label_map.pbtxt``: category id by item name, in file order.

    The small part of the text format that label maps use: ``item { name: "..." id: N ... }`` with
    either kind of quote, in any order, with further fields and ``#`` comments ignored.
    """
    try:
        with open(path, encoding='utf-8') as file:
            text = file.read()
    except FileNotFoundError:
        raise UserError('no such file (the label map)', path=path) from None
    label_map: dict[str, int] = {}
    for body in _ITEM.findall(_without_comments(text)):
        name = _NAME.search(body)
        number = _ID.search(body)
        if not name or not number:
            raise UserError(f'item without name or id: {" ".join(body.split())!r}', path=path)
        label_map[name.group(1) or name.group(2) or ''] = int(number.group(1))
    if not label_map:
        raise UserError('no item { name: "..." id: N } in the label map', path=path)
    return label_map


_QUOTED = r'''(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')'''
_ITEM = re.compile(r'\bitem\s*:?\s*\{((?:' + _QUOTED + r'''|[^{}"'])*)\}''')
_NAME = re.compile(r'''\bname\s*:\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)')''')
_ID = re.compile(r'\bid\s*:\s*(-?\d+)')


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
