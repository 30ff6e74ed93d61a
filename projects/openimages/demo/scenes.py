"""Plans and paints the demo's pictures: what stands where, its pixels, its visible mask.

A split is planned first (how often each class occurs, in which pictures, annotated how), so that
the long tail and the share of boxes without a mask are exact; then each picture is painted from
its own random stream, so that any picture can be painted alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from projects.openimages.demo import looks
from projects.openimages.demo.classes import VISIBLE, DemoClasses

SUPERSAMPLING = 2
IMAGE_SIZES = ((256, 192), (192, 256), (240, 180), (256, 171))  # width, height
IMAGE_SIZE_SHARES = (0.70, 0.15, 0.10, 0.05)
OBJECTS_PER_IMAGE = (2, 3, 3, 3, 4, 5)  # of pictures with boxes, dealt round and round
IMAGES_WITHOUT_BOXES = 0.08
WITHOUT_BOXES_BUT_AN_OBJECT = 0.3  # share of those
IMAGES_WITH_UNLABELLED = 0.07
BOXES_WITHOUT_MASK = 0.25  # group-of boxes included
GROUP_OF_BOXES = 0.04
OBJECT_SIZES = (44, 100)  # pixels, the longer side
SMALLEST_OBJECT = 30
OVERLAP_ALLOWED = 0.06  # of the smaller box

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
    width, height = IMAGE_SIZES[rng.choice(len(IMAGE_SIZES), p=IMAGE_SIZE_SHARES)]
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
    height, width = plan.height * SUPERSAMPLING, plan.width * SUPERSAMPLING
    canvas = _background(plan.height, plan.width, rng)
    canvas = canvas.repeat(SUPERSAMPLING, axis=0).repeat(SUPERSAMPLING, axis=1)
    for _ in range(plan.stones):
        extent = _place((24, 40), 1.0, plan, [], rng)
        _paint(canvas, looks.stone, extent, rng.uniform(-180, 180), rng)
    owner = np.full((height, width), -1, dtype=np.int16)
    extents: list[tuple] = []
    for index, (class_index, annotation) in enumerate(plan.objects):
        visible = VISIBLE[class_index]
        sizes = (84, 120) if annotation == GROUP_OF else OBJECT_SIZES
        aspect = 1.2 if annotation == GROUP_OF else visible.aspect
        extents.append(_place(sizes, aspect, plan, extents, rng))
        parts = _cluster(extents[-1], rng) if annotation == GROUP_OF else [extents[-1]]
        for part in parts:
            angle = rng.uniform(-visible.tilt, visible.tilt)
            rows, columns, inside = _paint(canvas, visible.look, part, angle, rng)
            owner[rows, columns][inside] = index
    image = _finish(canvas, plan, rng)
    painted = [PaintedObject(class_index, annotation, owner == index)
               for index, (class_index, annotation) in enumerate(plan.objects)]
    return image, [thing for thing in painted if thing.mask.any()]


def _background(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A muted gradient with soft blotches and a few thin lines. (height, width, 3) float 0..1"""
    base = rng.uniform(0.35, 0.75, 3) * 0.4 + rng.uniform(0.35, 0.75) * 0.6
    slope = rng.uniform(-0.12, 0.12, (2, 1))
    ramp = (np.linspace(-1, 1, height)[:, None] * slope[0]
            + np.linspace(-1, 1, width)[None] * slope[1]).astype(np.float32)
    blotches = Image.fromarray(rng.uniform(-0.07, 0.07, (7, 9)).astype(np.float32))
    ramp += np.asarray(blotches.resize((width, height), Image.Resampling.BICUBIC))
    canvas = np.float32(base) + ramp[..., None]
    for _ in range(int(rng.integers(0, 4))):
        tone = np.float32(rng.uniform(-0.12, 0.12))
        start = int(rng.integers(0, height))
        canvas[start:start + int(rng.integers(1, 6))] += tone
    return canvas


def _place(sizes: tuple[int, int], aspect: float, plan: ScenePlan, taken: list[tuple],
           rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Find room for an object: (centre x, centre y, width, height) in picture pixels.

    Starts with a free size and shrinks; what fits nowhere goes where it hides least.
    """
    longest = rng.uniform(*sizes)
    best, best_overlap = None, np.inf
    for attempt in range(60):
        size = max(SMALLEST_OBJECT, longest * 0.985 ** attempt)
        width, height = (size, size / aspect) if aspect >= 1 else (size * aspect, size)
        width, height = width * rng.uniform(0.92, 1.08), height * rng.uniform(0.92, 1.08)
        margin = rng.choice([0.5, 0.5, 0.5, 0.42])  # now and then a little beyond the border
        x = rng.uniform(margin * width, plan.width - margin * width)
        y = rng.uniform(margin * height, plan.height - margin * height)
        extent = (float(x), float(y), float(width), float(height))
        overlap = max((_overlap(extent, other) for other in taken), default=0.0)
        if overlap < best_overlap:
            best, best_overlap = extent, overlap
        if overlap <= OVERLAP_ALLOWED:
            break
    return best


def _overlap(a: tuple, b: tuple) -> float:
    """Shared area over the smaller of two extents' areas."""
    across = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    down = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    return max(0.0, across) * max(0.0, down) / min(a[2] * a[3], b[2] * b[3])


def _cluster(extent: tuple, rng: np.random.Generator) -> list[tuple]:
    """Six small objects in two rows that fill ``extent``."""
    x, y, width, height = extent
    size = min(width / 2.6, height / 1.7)
    return [(x + width * (column - 1) / 3.1 + rng.uniform(-3, 3),
             y + height * (row - 0.5) / 2.2 + rng.uniform(-3, 3), size, size)
            for row in range(2) for column in range(3)]


def _paint(canvas: np.ndarray, look: looks.Look, extent: tuple, angle: float,
           rng: np.random.Generator) -> tuple[slice, slice, np.ndarray]:
    """Paint one object in place; returns the window it touches and its shape in there."""
    x, y, width, height = (value * SUPERSAMPLING for value in extent)
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    reach_x = (width * abs(cosine) + height * abs(sine)) / 2
    reach_y = (height * abs(cosine) + width * abs(sine)) / 2
    rows = slice(max(0, int(y - reach_y)), min(canvas.shape[0], int(y + reach_y) + 1))
    columns = slice(max(0, int(x - reach_x)), min(canvas.shape[1], int(x + reach_x) + 1))
    down = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + 0.5
    across = np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5
    u = ((across - x) * cosine + (down - y) * sine) / (width / 2)
    v = ((down - y) * cosine - (across - x) * sine) / (height / 2)
    inside, colour = look(u, v)
    light = rng.uniform(0.85, 1.1) - 0.10 * u - 0.12 * v  # lit from the upper left
    tint = rng.uniform(0.94, 1.06, 3).astype(np.float32)
    canvas[rows, columns][inside] = colour[inside] * light[inside][:, None] * tint
    return rows, columns, inside


def _finish(canvas: np.ndarray, plan: ScenePlan, rng: np.random.Generator) -> Image.Image:
    """Average down to the picture's size and add a camera's noise."""
    step = SUPERSAMPLING
    pixels = sum(canvas[y::step, x::step] for y in range(step) for x in range(step)) / step ** 2
    pixels += rng.normal(0, 0.015, (plan.height, plan.width, 1)).astype(np.float32)
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))
