"""A choice of a release's classes, with everything that the others say of them kept.

The hierarchy makes a dog an animal: where animals are chosen and dogs are not, a dog's box and mask
are an animal's, or else every dog would be an animal that nobody annotated. A label says as much
by rule 1 of the challenge: a dog that is present makes an animal present, and where there is no
animal there is no dog.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from projects.openimages.common.errors import UserError
from projects.openimages.data.official.annotations import Annotations
from projects.openimages.labels import LabelSpace, read_text


@dataclass(frozen=True)
class ClassChoice:
    """Some classes of a label space.

    Attributes:
        space: the chosen ones, in their new order, with their ancestors among them.
        present_as: (C, K) bool, class ``c`` of the whole label space being there means that chosen
            class ``k`` is: itself, or the nearest of its ancestors.
        absent_as: (C, K) bool, the same of being absent: itself, or the nearest of its descendants.
    """

    space: LabelSpace
    present_as: np.ndarray
    absent_as: np.ndarray

    @classmethod
    def of(cls, space: LabelSpace, class_ids: list[int]) -> ClassChoice:
        """Choose classes of a label space by their ids, in the order of the new ones."""
        above = space.ancestor_matrix | np.eye(space.num_classes, dtype=bool)
        among = space.ancestor_matrix[np.ix_(class_ids, class_ids)]
        chosen = LabelSpace(tuple(space.mids[c] for c in class_ids),
                            tuple(space.names[c] for c in class_ids), among)
        return cls(chosen, _nearest(above[:, class_ids], among),
                   _nearest(above.T[:, class_ids], among.T))


def _nearest(related: np.ndarray, beyond: np.ndarray) -> np.ndarray:
    """(C, K) bool, without the classes ``k`` that lie beyond another one that is related.

    Args:
        related: (C, K) bool.
        beyond: (K, K) bool, ``[j, k]`` is True where ``k`` lies beyond ``j``.
    """
    return related & ~(related.astype(int) @ beyond.astype(int) > 0)


def read_choice(path: Path, space: LabelSpace) -> ClassChoice:
    """Read which classes are wanted: a MID, a name or ``MID,Name`` a line.

    Raises:
        UserError: no such file, a class that the release does not have or that is there twice.
    """
    of_name = {name.casefold(): class_id for class_id, name in enumerate(space.names)}
    class_ids: list[int] = []
    for row, line in enumerate(read_text(path, 'the list of classes').splitlines(), start=1):
        text = line.strip().strip('"')
        if not text or (row == 1 and text.startswith('LabelName')):
            continue
        class_id = space.ids.get(text.partition(',')[0], of_name.get(text.casefold(), -1))
        if class_id < 0:
            raise UserError(f'class {text[:60]!r} is not one of the {space.num_classes} of the '
                            'release', path=path, row=row)
        if class_id in class_ids:
            raise UserError(f'class {text[:60]!r} again', path=path, row=row)
        class_ids.append(class_id)
    if not class_ids:
        raise UserError('empty, expected a MID, a name or MID,Name a line', path=path)
    return ClassChoice.of(space, class_ids)


def choose_classes(rows: Annotations, choice: ClassChoice) -> Annotations:
    """A split with the chosen classes only; images that say nothing of them are left out."""
    instances, class_ids = _renamed(rows.class_ids, choice.present_as)
    labels, label_class_ids = _label_classes(rows, choice)
    images = rows.instance_images[instances]
    label_images = np.repeat(np.arange(len(rows.image_ids)), np.diff(rows.label_offsets))[labels]
    used = np.union1d(images, label_images)
    return replace(
        rows, image_ids=[rows.image_ids[n] for n in used.tolist()],
        instance_offsets=np.searchsorted(images, np.append(used, len(rows.image_ids))),
        class_ids=class_ids, boxes=rows.boxes[instances], is_group_of=rows.is_group_of[instances],
        mask_rows=rows.mask_rows[instances], join_distances=rows.join_distances[instances],
        box_lines=rows.box_lines[instances],
        label_offsets=np.searchsorted(label_images, np.append(used, len(rows.image_ids))),
        label_class_ids=label_class_ids, label_present=rows.label_present[labels],
        label_lines=rows.label_lines[labels],
        counts={**rows.counts, 'instances_of_other_classes':
                int((~choice.present_as[rows.class_ids].any(axis=1)).sum())})


def _renamed(class_ids: np.ndarray, as_chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M,) int64 rows that mean something to the choice, and (M,) int16 what; rows may repeat."""
    counts = as_chosen.sum(axis=1)
    starts = np.cumsum(counts) - counts
    rows = np.repeat(np.arange(len(class_ids)), counts[class_ids])
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts[class_ids]) - counts[class_ids],
                                              counts[class_ids])
    chosen = np.nonzero(as_chosen)[1][starts[class_ids[rows]] + within]
    return rows, chosen.astype(np.int16)


def _label_classes(rows: Annotations, choice: ClassChoice) -> tuple[np.ndarray, np.ndarray]:
    """The same of labels, in their order; of an image and class once, a present one if any."""
    parts = []
    for sign, as_chosen in ((True, choice.present_as), (False, choice.absent_as)):
        of_sign = np.flatnonzero(rows.label_present == sign)
        found, chosen = _renamed(rows.label_class_ids[of_sign], as_chosen)
        parts.append((of_sign[found], chosen))
    labels, class_ids = map(np.concatenate, zip(*parts, strict=True))
    images = np.searchsorted(rows.label_offsets, labels, 'right') - 1
    keys = images * choice.space.num_classes + class_ids
    first = np.unique(keys, return_index=True)[1]  # the present ones stand before the absent ones
    order = np.lexsort((class_ids[first], labels[first]))
    return labels[first][order], class_ids[first][order]
