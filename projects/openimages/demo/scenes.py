"""Plans and paints the demo's pictures: what stands where, its pixels, its visible mask.

A split is planned first (how often each class occurs, in which pictures, annotated how), so that
the long tail and the share of boxes without a mask are exact; then each picture is painted from
its own random stream, so that any picture can be painted alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from projects.openimages.demo import looks
from projects.openimages.demo.classes import VISIBLE, DemoClasses
from projects.openimages.demo.painting import (
    Extent,
    background,
    draw_size,
    finish,
    paint,
    place,
)

OBJECTS_PER_IMAGE = (2, 3, 3, 3, 4, 5)  # of pictures with boxes, dealt round and round
IMAGES_WITHOUT_BOXES = 0.08
WITHOUT_BOXES_BUT_AN_OBJECT = 0.3  # share of those
IMAGES_WITH_UNLABELLED = 0.07
BOXES_WITHOUT_MASK = 0.25  # group-of boxes included
GROUP_OF_BOXES = 0.04
OBJECT_SIZES = (44, 100)  # pixels, the longer side

# How an object is annotated. LABEL_ONLY: its class is verified present, but it has no box.
MASKED, BOX_ONLY, GROUP_OF, LABEL_ONLY, UNLABELLED = (
    'masked', 'box only', 'group-of', 'label only', 'unlabelled')


@dataclass(frozen=True)
class ScenePlan:
    """One picture before it is painted.

    Attributes:
        width, height: in pixels.
        objects: (index into :data:`VISIBLE`, how it is annotated) in painting order.
        stones: how many pebbles of no boxed class lie about.
    """

    width: int
    height: int
    objects: tuple[tuple[int, str], ...]
    stones: int


@dataclass(frozen=True)
class PaintedObject:
    """One object of a painted picture.

    Attributes:
        visible_class: index into :data:`VISIBLE`.
        annotation: MASKED, BOX_ONLY, GROUP_OF, LABEL_ONLY or UNLABELLED.
        mask: (height * SUPERSAMPLING, width * SUPERSAMPLING) bool, what of it is not hidden.
    """

    visible_class: int
    annotation: str
    mask: np.ndarray


def plan_split(num_images: int, tail_ratio: float, classes: DemoClasses,
               rng: np.random.Generator) -> list[ScenePlan]:
    """Plan the pictures of a split.

    Args:
        num_images: how many.
        tail_ratio: boxes of the commonest visible class over those of the rarest.
        classes: says which classes share a parent.
        rng: decides everything else.
    """
    without_boxes = max(1, round(IMAGES_WITHOUT_BOXES * num_images))
    room = [OBJECTS_PER_IMAGE[i % len(OBJECTS_PER_IMAGE)]
            for i in range(num_images - without_boxes)]
    objects = _annotated_objects(sum(room), tail_ratio)
    objects = [objects[i] for i in rng.permutation(len(objects))]
    ends = np.cumsum(room)
    contents = [tuple(objects[end - n:end]) for n, end in zip(room, ends, strict=True)]
    examples = round(WITHOUT_BOXES_BUT_AN_OBJECT * without_boxes)
    contents += [((i % (len(VISIBLE) // 2), LABEL_ONLY),) for i in range(examples)]
    contents += [()] * (without_boxes - examples)
    contents = [contents[i] for i in rng.permutation(num_images)]
    for i in rng.permutation(num_images)[:max(1, round(IMAGES_WITH_UNLABELLED * num_images))]:
        contents[i] += _unlabelled_object(contents[i], classes, rng)
    return [_scene_plan(content, rng) for content in contents]


def _scene_plan(objects: tuple, rng: np.random.Generator) -> ScenePlan:
    width, height = draw_size(rng)
    return ScenePlan(width, height, objects, stones=int(rng.integers(0, 3)))


def class_counts(total: int, tail_ratio: float) -> np.ndarray:
    """Split ``total`` boxes over the visible classes, geometrically from common to rare.

    The rarest class gets one at least, the commonest ``tail_ratio`` times the rarest or more.
    """
    shares = float(tail_ratio) ** -np.linspace(0, 1, len(VISIBLE))
    counts = np.maximum(1, np.floor(total * shares / shares.sum()).astype(int))
    counts[0] = max(1, total - counts[1:].sum())  # the remainder goes to the commonest
    return counts


def _annotated_objects(total: int, tail_ratio: float) -> list[tuple[int, str]]:
    objects = []
    for index, count in enumerate(class_counts(total, tail_ratio)):
        groups = round(GROUP_OF_BOXES * count)
        bare = max(0, round(BOXES_WITHOUT_MASK * count) - groups)
        kinds = [GROUP_OF] * groups + [BOX_ONLY] * bare
        kinds += [MASKED] * (count - len(kinds))
        objects += [(index, kind) for kind in kinds]
    return objects[:total]


def _unlabelled_object(content: tuple, classes: DemoClasses, rng: np.random.Generator) -> tuple:
    """An object that nobody labelled, of a class of which nothing is verified in the picture."""
    def family(index: int) -> set[str]:
        name = VISIBLE[index].name
        return {name} | classes.ancestors(name)

    taken = set().union(*(family(index) for index, _ in content))
    common = [i for i in range(len(VISIBLE) // 2) if not family(i) & taken]
    return ((int(rng.choice(common)), UNLABELLED),) if common else ()


def paint_scene(plan: ScenePlan, rng: np.random.Generator) -> tuple[Image.Image,
                                                                     list[PaintedObject]]:
    """Paint a picture and return it with every object of which something is to be seen."""
    image_size = (plan.width, plan.height)
    canvas = background(*image_size, rng)
    for _ in range(plan.stones):
        extent = place((24, 40), 1.0, image_size, [], rng)
        paint(canvas, looks.stone, extent, rng.uniform(-180, 180), rng)
    owner = np.full(canvas.shape[:2], -1, dtype=np.int16)
    extents: list[Extent] = []
    for index, (class_index, annotation) in enumerate(plan.objects):
        visible = VISIBLE[class_index]
        sizes = (84, 120) if annotation == GROUP_OF else OBJECT_SIZES
        aspect = 1.2 if annotation == GROUP_OF else visible.aspect
        extents.append(place(sizes, aspect, image_size, extents, rng))
        parts = _cluster(extents[-1], rng) if annotation == GROUP_OF else [extents[-1]]
        for part in parts:
            angle = rng.uniform(-visible.tilt, visible.tilt)
            rows, columns, inside = paint(canvas, visible.look, part, angle, rng)
            owner[rows, columns][inside] = index
    image = finish(canvas, rng)
    painted = [PaintedObject(class_index, annotation, owner == index)
               for index, (class_index, annotation) in enumerate(plan.objects)]
    return image, [thing for thing in painted if thing.mask.any()]


def _cluster(extent: Extent, rng: np.random.Generator) -> list[Extent]:
    """Six small objects in two rows that fill ``extent``."""
    x, y, width, height = extent
    size = min(width / 2.6, height / 1.7)
    return [(x + width * (column - 1) / 3.1 + rng.uniform(-3, 3),
             y + height * (row - 0.5) / 2.2 + rng.uniform(-3, 3), size, size)
            for row in range(2) for column in range(3)]
