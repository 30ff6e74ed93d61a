"""What stands in which image of the hard world.

A split is dealt like cards, so that the long tail is exact: every class has its number of units
(an object, or a heap of them), every image its scene and its number of places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from projects.openimages.demo.hard.classes import SCENES, HardClasses
from projects.openimages.demo.hard.knobs import Knobs
from projects.openimages.demo.painting import draw_size

UNITS_PER_IMAGE = (2, 3, 3, 4, 4, 5, 6, 7)  # dealt round and round
HEAP_SIZES = (4, 9)
TAIL_FLATTENING = 2.0  # Zipf's law is shifted by so many ranks


@dataclass(frozen=True)
class ImagePlan:
    """An image before it is painted.

    Attributes:
        width, height: in pixels.
        units: (leaf number, how many objects) in painting order; more than one is a heap.
    """

    width: int
    height: int
    units: tuple[tuple[int, int], ...]


def plan_split(num_images: int, tail: float, classes: HardClasses, knobs: Knobs,
               rng: np.random.Generator) -> list[ImagePlan]:
    """Plan the images of a split.

    Args:
        num_images: how many.
        tail: units of the commonest class over those of the rarest.
        classes: the label space.
        knobs: ``group`` and ``cooccurrence`` are used.
        rng: decides everything else.
    """
    room = np.resize(UNITS_PER_IMAGE, num_images)
    counts = class_counts(int(room.sum()), tail, len(classes.leaves))
    units = _units(counts, knobs.group, rng)
    contents: list[list[tuple[int, int]]] = [[] for _ in range(num_images)]
    scene_of = np.array([leaf.scene for leaf in classes.leaves])
    for unit, image in _deal(units, scene_of, room, knobs.cooccurrence, rng):
        contents[image].append(unit)
    return [ImagePlan(*draw_size(rng), tuple(content)) for content in contents]


def class_counts(total: int, tail: float, num_classes: int) -> np.ndarray:
    """Split ``total`` units over the classes from common to rare, by a shifted Zipf's law.

    Args:
        total: units to deal.
        tail: share of the first class over that of the last.
        num_classes: how many.

    Returns:
        (num_classes,) int64, adding up to ``total``; the rarest have none where that is too small.
    """
    ranks = TAIL_FLATTENING + np.arange(1, num_classes + 1)
    shares = ranks ** -(np.log(tail) / np.log(ranks[-1] / ranks[0]))
    exact = total * shares / shares.sum()
    counts = np.floor(exact).astype(np.int64)
    most_missing = np.argsort(counts - exact, kind='stable')
    counts[most_missing[:total - counts.sum()]] += 1
    return counts


def _units(counts: np.ndarray, group: float, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Every class's units in random order, ``group`` of them heaps."""
    units = []
    for leaf, count in enumerate(counts.tolist()):
        heaps = round(group * count)
        low, high = HEAP_SIZES
        units += [(leaf, int(n)) for n in rng.integers(low, high + 1, heaps)]
        units += [(leaf, 1)] * (count - heaps)
    return [units[i] for i in rng.permutation(len(units))]


def _deal(units: list[tuple[int, int]], scene_of: np.ndarray, room: np.ndarray,
          cooccurrence: float, rng: np.random.Generator):
    """Yield (unit, image): to a place in its class's scene, or to any that is left."""
    weights = np.bincount(scene_of[[leaf for leaf, _ in units]], minlength=SCENES)
    scenes = rng.choice(SCENES, size=len(room), p=weights / weights.sum())
    places = rng.permutation(np.repeat(np.arange(len(room)), room))
    of_scene = [places[scenes[places] == scene].tolist() for scene in range(SCENES)]
    anywhere = []
    for unit in units:
        own = of_scene[scene_of[unit[0]]]
        if own and rng.random() < cooccurrence:
            yield unit, own.pop()
        else:
            anywhere.append(unit)
    left = rng.permutation(np.concatenate(of_scene)).astype(int).tolist()
    yield from zip(anywhere, left, strict=True)
