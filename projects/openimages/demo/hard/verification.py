"""The imperfect process that says which classes are in an image and which are not.

A classifier proposes classes for each image and people verify them. True ones are found the more
easily the larger they are and the more frequent their class is; false ones are mostly those that
look like something in the image, and people reject them. Where the leaf cannot be told, the parent
is verified instead. People make no mistakes here: what is verified present is there, and what is
verified absent is nowhere in the image, hidden objects included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from projects.openimages.demo.hard.classes import HardClasses
from projects.openimages.demo.hard.knobs import Knobs
from projects.openimages.demo.hard.scenes import PaintedImage

SIZE_WEIGHT, FREQUENCY_WEIGHT = 1.0, 0.4


@dataclass(frozen=True)
class Verdict:
    """What was verified of an image.

    Attributes:
        present: names of classes verified present, sorted.
        lost: those of them that nobody boxed.
        absent: names of classes verified absent.
        named: for each of the image's things the most specific of ``present`` that it is, or None.
    """

    present: tuple[str, ...]
    lost: frozenset[str]
    absent: tuple[str, ...]
    named: tuple[str | None, ...]


def verify_split(images: Sequence[PaintedImage], classes: HardClasses, knobs: Knobs,
                 rng: np.random.Generator) -> list[Verdict]:
    """Verify all images of a split; ``recall`` of their visible leaves are found on average."""
    pairs = [(number, leaf) for number, image in enumerate(images)
             for leaf in sorted({thing.leaf for thing in image.things})]
    chances = _chances(pairs, images, knobs)
    found: list[set[int]] = [set() for _ in images]
    for (number, leaf), chance, draw in zip(pairs, chances, rng.random(len(pairs)), strict=True):
        if draw < chance:
            found[number].add(leaf)
    return [_verdict(image, leaves, classes, knobs, rng)
            for image, leaves in zip(images, found, strict=True)]


def full_verdict(image: PaintedImage, classes: HardClasses) -> Verdict:
    """Everything verified and named by its leaf: the oracle's view."""
    named = tuple(classes.leaves[thing.leaf].name for thing in image.things)
    around = _names_around(image, classes)
    absent = tuple(name for name in classes.space.names
                   if name in classes.above and name not in around)
    return Verdict(tuple(sorted(set(named))), frozenset(), absent, named)


def _chances(pairs: list[tuple[int, int]], images: Sequence[PaintedImage], knobs: Knobs
             ) -> np.ndarray:
    """(P,) probability that each pair of image and visible leaf is found; ``recall`` on average."""
    if knobs.recall == 1 or not pairs:
        return np.ones(len(pairs))
    areas = [max(t.area for t in images[number].things if t.leaf == leaf)
             for number, leaf in pairs]
    images_with = np.bincount([leaf for _, leaf in pairs])
    score = knobs.uneven * (
        SIZE_WEIGHT * _standard(np.log(areas))
        + FREQUENCY_WEIGHT * _standard(np.log(images_with[[leaf for _, leaf in pairs]])))
    low, high = -50.0, 50.0
    for _ in range(60):  # the offset at which the mean is the recall
        middle = (low + high) / 2
        chances = 1 / (1 + np.exp(-(score + middle)))
        low, high = (middle, high) if chances.mean() < knobs.recall else (low, middle)
    return chances


def _standard(values: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1; zeros where they do not vary."""
    return (values - values.mean()) / max(float(values.std()), 1e-9)


def _verdict(image: PaintedImage, found: set[int], classes: HardClasses, knobs: Knobs,
             rng: np.random.Generator) -> Verdict:
    present = _labels_of(image, found, classes, knobs, rng)
    named = []
    for thing in image.things:
        leaf = classes.leaves[thing.leaf]
        named.append(next((name for name in (leaf.name, *leaf.families) if name in present), None))
    # A lost class stands alone: of one whose parent or child is verified too, some boxes exist.
    alone = [name for name in sorted(present) if not any(
        other in classes.above[name] or name in classes.above[other] for other in present)]
    lost = frozenset(name for name in alone if rng.random() < knobs.lost)
    return Verdict(tuple(sorted(present)), lost, _absent(image, classes, knobs, rng), tuple(named))


def _labels_of(image: PaintedImage, found: set[int], classes: HardClasses, knobs: Knobs,
               rng: np.random.Generator) -> set[str]:
    """Names of the classes that people verify for the leaves found.

    The parent is named only where every object that would then be boxed under its name is one
    whose leaf cannot be told.
    """
    tellable = {thing.leaf for thing in image.things if thing.tellable}
    others = {thing.leaf for thing in image.things} - found
    present = set()
    for number in sorted(found):
        leaf = classes.leaves[number]
        parent = leaf.families[0]
        by_parent = number not in tellable and rng.random() < knobs.parents and not any(
            parent in classes.leaves[other].families for other in others & tellable)
        present.add(parent if by_parent else leaf.name)
    return present


def _names_around(image: PaintedImage, classes: HardClasses) -> set[str]:
    """Names of all classes in an image, with those above them."""
    leaves = {classes.leaves[number].name for number in image.leaves}
    return leaves.union(*(classes.above[name] for name in leaves))


def _absent(image: PaintedImage, classes: HardClasses, knobs: Knobs,
            rng: np.random.Generator) -> tuple[str, ...]:
    """False candidates, rejected: what resembles something here, and anything else."""
    if not knobs.negatives:
        return ()
    around = _names_around(image, classes)
    similar = sorted({other for number in image.leaves
                      for other in classes.similar[classes.leaves[number].name]} - around)
    count = max(1, int(rng.poisson(knobs.negatives)))
    similar = [similar[i] for i in rng.permutation(len(similar))[:rng.binomial(
        count, knobs.hardneg)]]
    visible = [name for name in classes.above if name not in around and name not in similar]
    anything = visible + list(classes.invisible[:len(visible)])
    others = [anything[i] for i in rng.permutation(len(anything))[:count - len(similar)]]
    return (*similar, *others)
