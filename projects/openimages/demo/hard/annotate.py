"""From the truth about a split and its verdicts to the rows of the official tables.

Boxes are drawn for the most specific verified class of an object. More than five objects of one
class that touch become one group-of box. Masks are drawn for boxes that are not too small, dark or
depicted, until their class is full.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from projects.openimages.demo.hard.classes import HardClasses
from projects.openimages.demo.hard.knobs import Knobs
from projects.openimages.demo.hard.scenes import PaintedImage, Thing
from projects.openimages.demo.hard.verification import Verdict
from projects.openimages.demo.rows import Box, ImageAnnotations

MASK, GROUP_OF, LOST, UNLABELLED = 'mask', 'group-of', 'lost', 'unlabelled'
SMALL, DARK, DEPICTED, FULL = 'small', 'dark', 'depicted', 'full'
"""How an object is annotated; the last four are boxes without a mask, and why."""

TOO_SMALL_FOR_MASK = 28 ** 2  # of the box, in pixels
MASKS_OF_A_CLASS = 0.25  # at most, for each image of the split
FEWEST_IN_GROUP = 6

TRUTH_HEADER = ('ImageID', 'LabelName', 'XMin', 'XMax', 'YMin', 'YMax', 'Area', 'Hidden',
                'Blurred', 'Dark', 'Depicted', 'Tellable', 'Unit', 'Members', 'NamedAs',
                'Annotation', 'Mask')


def choose_annotations(images: Sequence[PaintedImage], verdicts: Sequence[Verdict], knobs: Knobs,
                       rng: np.random.Generator) -> list[list[str]]:
    """How each thing of each image is annotated: ``MASK``, ``GROUP_OF``, ..."""
    kinds = [[UNLABELLED if name is None else LOST if name in verdict.lost
              else _without_full(thing, knobs.boxonly, rng)
              for thing, name in zip(image.things, verdict.named, strict=True)]
             for image, verdict in zip(images, verdicts, strict=True)]
    for image, verdict, own in zip(images, verdicts, kinds, strict=True):
        for group in _groups(image.things, verdict.named):
            if own[group[0]] != LOST:
                for thing in group:
                    own[thing] = GROUP_OF
    limit = MASKS_OF_A_CLASS * len(images) / knobs.boxonly if knobs.boxonly else math.inf
    masks: Counter = Counter()
    for number in rng.permutation(len(images)).tolist():
        for thing, name in enumerate(verdicts[number].named):
            if kinds[number][thing] == MASK:
                masks[name] += 1
                if masks[name] > limit:
                    kinds[number][thing] = FULL
    return kinds


def _without_full(thing: Thing, strictness: float, rng: np.random.Generator) -> str:
    """``MASK``, or why a box of its own goes without, its class's number of masks aside."""
    reason = (SMALL if thing.box_area < TOO_SMALL_FOR_MASK else DARK if thing.dark
              else DEPICTED if thing.depicted else MASK)
    return reason if rng.random() < strictness else MASK


def _groups(things: Sequence[Thing], named: Sequence[str | None]) -> list[list[int]]:
    """Numbers of the things of a heap of which more than five, named alike, touch."""
    heaps = defaultdict(list)
    for number, (thing, name) in enumerate(zip(things, named, strict=True)):
        if name is not None and thing.members > 1:
            heaps[thing.unit].append(number)
    groups = []
    for heap in heaps.values():
        while heap:
            group = [heap.pop(0)]
            for member in group:  # grows while it is walked through
                touching = [n for n in heap if _touch(things[member].truth, things[n].truth)]
                group += touching
                heap = [n for n in heap if n not in touching]
            groups.append(sorted(group))
    return [group for group in groups if len(group) >= FEWEST_IN_GROUP]


def _touch(a: Box, b: Box) -> bool:
    return a[0] <= b[1] and b[0] <= a[1] and a[2] <= b[3] and b[2] <= a[3]


def annotate(image_id: str, image: PaintedImage, verdict: Verdict, kinds: Sequence[str],
             classes: HardClasses) -> ImageAnnotations:
    """The rows of one image."""
    result = ImageAnnotations()
    mid = classes.space.mid
    groups = defaultdict(list)
    for thing, name, kind in zip(image.things, verdict.named, kinds, strict=True):
        if kind == GROUP_OF:
            groups[thing.unit, name].append(thing.box)
        elif kind not in (UNLABELLED, LOST):
            result.add_box(image_id, mid(name), thing.box, group_of=False)
            if kind == MASK:
                result.add_mask(image_id, mid(name), thing.mask)
    for (_, name), boxes in groups.items():
        left, right, top, bottom = zip(*boxes, strict=True)
        around = (min(left), max(right), min(top), max(bottom))
        result.add_box(image_id, mid(name), around, group_of=True)
    result.labels = [(image_id, mid(name), '1') for name in verdict.present]
    result.labels += [(image_id, mid(name), '0') for name in verdict.absent]
    return result


def exact(image: PaintedImage) -> PaintedImage:
    """The same with every mask as it is painted, at the image's own size."""
    return replace(image, things=tuple(
        replace(thing, mask=replace(thing.mask, png=thing.exact)) for thing in image.things))


def truth_rows(image_id: str, image: PaintedImage, verdict: Verdict, kinds: Sequence[str],
               classes: HardClasses) -> list[tuple]:
    """What is true of one image: a row a thing, with :data:`TRUTH_HEADER`'s columns."""
    mid = classes.space.mid
    return [(image_id, mid(classes.leaves[thing.leaf].name),
             *(f'{value:.6f}' for value in thing.truth), thing.area, f'{thing.hidden:.3f}',
             *(int(flag) for flag in (thing.blurred, thing.dark, thing.depicted, thing.tellable)),
             thing.unit, thing.members, mid(name) if name else '', kind, thing.text)
            for thing, name, kind in zip(image.things, verdict.named, kinds, strict=True)]
