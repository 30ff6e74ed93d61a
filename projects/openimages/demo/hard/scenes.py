"""Paints an image of the hard world and keeps the whole truth about it.

Each object is followed through the painting: what later ones hide of it, whether it is blurred,
dark or a picture on paper. What an annotator would draw of it is made here too, by whichever
process paints; :mod:`.verification` and :mod:`.annotate` decide what of that gets into the tables.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from projects.openimages.demo.files import JPEG_QUALITY
from projects.openimages.demo.hard.classes import HardClasses
from projects.openimages.demo.hard.knobs import Knobs
from projects.openimages.demo.hard.looks import OUTLINES, in_shadow, on_paper, sheet
from projects.openimages.demo.hard.plan import ImagePlan
from projects.openimages.demo.looks import stone
from projects.openimages.demo.painting import (
    SUPERSAMPLING,
    Extent,
    background,
    finish,
    paint,
    place,
)
from projects.openimages.demo.rows import (
    Box,
    DrawnMask,
    draw_box,
    draw_mask,
    mask_png,
    tight_box,
)
from projects.openimages.masks import encode_text, rle_from_mask

TYPICAL_SIDE = 54  # pixels, the geometric mean of the longer side
HEAP_SIDES = (26, 36)
HEAP_SPACING = 0.78  # of the member's sides, so that neighbours touch
TILT = 30  # degrees
BLUR = 0.12  # standard deviation over the square root of the area
SHEET = 1.35  # sides of a sheet over those of the picture on it
FILL = 0.9  # of the image's sides, at most
LEAST_SEEN = 0.25  # what shows less of itself is no object

UNTELLABLE_AREA = 36 ** 2  # of the box, in pixels; below it the leaf cannot be told
UNTELLABLE_HIDDEN = 0.3


@dataclass(frozen=True)
class Thing:
    """One visible object.

    Attributes:
        leaf: its class, a number of ``HardClasses.leaves``.
        unit: which unit of the image's plan; the members of a heap share it.
        members: objects that the unit has; 1 for a single one.
        truth: the tight box of what is seen of it.
        box_area, area: of that box and of the mask, in image pixels.
        hidden: share of it that others hide.
        blurred, dark, depicted: how it was painted.
        box, mask: as an annotator draws them.
        exact: the mask's PNG at the image's size.
        text: the mask at the image's size as submission text.
    """

    leaf: int
    unit: int
    members: int
    truth: Box
    box_area: float
    area: int
    hidden: float
    blurred: bool
    dark: bool
    depicted: bool
    box: Box
    mask: DrawnMask
    exact: bytes
    text: str

    @property
    def tellable(self) -> bool:
        """Whether a person sees which leaf it is, not only the parent."""
        return not (self.blurred or self.hidden > UNTELLABLE_HIDDEN
                    or self.box_area < UNTELLABLE_AREA)


@dataclass(frozen=True)
class PaintedImage:
    """An image and the truth about it.

    Attributes:
        width, height: in pixels.
        jpeg: the file's contents.
        things: every object of which enough is seen.
        leaves: numbers of all leaves that were painted, those of hidden objects included.
    """

    width: int
    height: int
    jpeg: bytes
    things: tuple[Thing, ...]
    leaves: frozenset[int]


@dataclass
class Sketch:
    """An object to be painted; :class:`Thing` has more of the fields' meaning.

    Attributes:
        extent: its place, sheet of paper not included.
        angle: how far it is turned, in degrees.
        full_area: supersampled pixels inside the image, known when it is painted.
    """

    leaf: int
    unit: int
    members: int
    extent: Extent
    angle: float
    blurred: bool = False
    dark: bool = False
    depicted: bool = False
    full_area: int = 0


def paint_image(plan: ImagePlan, classes: HardClasses, knobs: Knobs,
                rng: np.random.Generator) -> PaintedImage:
    """Paint a planned image."""
    size = (plan.width, plan.height)
    canvas = background(*size, rng)
    for _ in range(rng.poisson(knobs.clutter)):
        paint(canvas, stone, place((24, 40), 1.0, size, [], rng), rng.uniform(-180, 180), rng)
    sketches = arrange(plan, classes, knobs, rng)
    owner = np.full(canvas.shape[:2], -1, np.int16)
    for number, sketch in enumerate(sketches):
        _paint_sketch(canvas, owner, number, sketch, classes, knobs, rng)
    buffer = io.BytesIO()
    finish(canvas, rng).save(buffer, format='JPEG', quality=JPEG_QUALITY)
    things = [_thing(sketch, owner == number, size, rng)
              for number, sketch in enumerate(sketches)
              if (owner == number).sum() > LEAST_SEEN * sketch.full_area]
    return PaintedImage(*size, buffer.getvalue(), tuple(things),
                        frozenset(leaf for leaf, _ in plan.units))


def arrange(plan: ImagePlan, classes: HardClasses, knobs: Knobs,
            rng: np.random.Generator) -> list[Sketch]:
    """Find a place for every unit, and decide how each object is painted."""
    taken: list[Extent] = []
    sketches = []
    for unit, (leaf, members) in enumerate(plan.units):
        aspect = OUTLINES[classes.leaves[leaf].appearance.outline].aspect
        flags = _blurred_dark_depicted(knobs, rng) if members == 1 else (False, False, False)
        if members > 1:
            extents = _place_heap(members, aspect, plan, taken, knobs, rng)
        else:
            side = TYPICAL_SIDE * knobs.sizes ** rng.uniform(-0.25, 0.25)
            margin = SHEET if flags[2] else 1
            x, y, width, height = _find_room(margin * side, aspect, plan, taken, knobs, rng)
            extents = [(x, y, width / margin, height / margin)]
        sketches += [Sketch(leaf, unit, members, extent, rng.uniform(-TILT, TILT), *flags)
                     for extent in extents]
    return sketches


def _blurred_dark_depicted(knobs: Knobs, rng: np.random.Generator) -> tuple[bool, bool, bool]:
    """At most one of the three: a blurred print in the shadow would be nothing at all."""
    dark = knobs.blur + knobs.dark
    draw = rng.random()
    return draw < knobs.blur, knobs.blur <= draw < dark, dark <= draw < dark + knobs.depicted


def _find_room(side: float, aspect: float, plan: ImagePlan, taken: list[Extent], knobs: Knobs,
               rng: np.random.Generator) -> Extent:
    """A place for something that long; it may shrink as far as ``knobs.sizes`` has smaller ones."""
    side = min(side, FILL * plan.width / min(1, aspect), FILL * plan.height * max(1, aspect))
    smallest = max(0.6 * side, TYPICAL_SIDE / knobs.sizes ** 0.25)
    extent = place((side, side), aspect, (plan.width, plan.height), taken, rng,
                   smallest=min(side, smallest), overlap_allowed=knobs.occlusion)
    taken.append(extent)
    return extent


def _place_heap(members: int, aspect: float, plan: ImagePlan, taken: list[Extent], knobs: Knobs,
                rng: np.random.Generator) -> list[Extent]:
    """Extents of a heap's objects: in rows, each touching its neighbours."""
    across = 3 if members > 4 else 2
    down = -(-members // across)
    side = rng.uniform(*HEAP_SIDES)
    width, height = min(1, aspect) * side, side / max(1, aspect)
    full_width = width * (1 + HEAP_SPACING * (across - 1))
    full_height = height * (1 + HEAP_SPACING * (down - 1))
    x, y, room, _ = _find_room(max(full_width, full_height), full_width / full_height, plan, taken,
                               knobs, rng)
    width, height = width * room / full_width, height * room / full_width
    return [(x + width * (HEAP_SPACING * (n % across - (across - 1) / 2) + rng.uniform(-.05, .05)),
             y + height * (HEAP_SPACING * (n // across - (down - 1) / 2) + rng.uniform(-.05, .05)),
             width, height) for n in range(members)]


def _paint_sketch(canvas: np.ndarray, owner: np.ndarray, number: int, sketch: Sketch,
                  classes: HardClasses, knobs: Knobs, rng: np.random.Generator) -> None:
    look = classes.look(classes.leaves[sketch.leaf], knobs.confusable)
    x, y, width, height = sketch.extent
    if sketch.depicted:
        look = on_paper(look)
        paper = (x, y, SHEET * width, SHEET * height)
        rows, columns, inside = paint(canvas, sheet, paper, sketch.angle, rng)
        owner[rows, columns][inside] = -1
    if sketch.dark:
        look = in_shadow(look)
    rows, columns, inside = paint(canvas, look, sketch.extent, sketch.angle, rng)
    owner[rows, columns][inside] = number
    sketch.full_area = int(inside.sum())
    if sketch.blurred:
        window = canvas[rows, columns]
        window[:] = _blurred(window, inside, BLUR * SUPERSAMPLING * math.sqrt(width * height))


def _blurred(window: np.ndarray, inside: np.ndarray, sigma: float) -> np.ndarray:
    """An object out of focus, and around it what it bleeds into."""
    smooth = ImageFilter.GaussianBlur(sigma)
    pixels = Image.fromarray((window.clip(0, 1) * 255).astype(np.uint8)).filter(smooth)
    alpha = Image.fromarray(inside.astype(np.uint8) * 255).filter(smooth)
    share = np.minimum(np.asarray(alpha, np.float32)[..., None] / 128, 1)
    return window * (1 - share) + np.asarray(pixels, np.float32) / 255 * share


def _thing(sketch: Sketch, mask: np.ndarray, size: tuple[int, int],
           rng: np.random.Generator) -> Thing:
    """What is to be known of a painted object; ``mask`` is what is seen of it."""
    seen = mask[1::SUPERSAMPLING, 1::SUPERSAMPLING]  # as scaling to the image's size takes it
    truth, box = tight_box(mask), draw_box(mask, rng)
    sides = (truth[1] - truth[0]) * size[0], (truth[3] - truth[2]) * size[1]
    return Thing(
        sketch.leaf, sketch.unit, sketch.members, truth, sides[0] * sides[1], int(seen.sum()),
        1 - float(mask.sum()) / sketch.full_area, sketch.blurred, sketch.dark, sketch.depicted,
        box, draw_mask(mask, box, *size, rng), mask_png(mask, size),
        encode_text(rle_from_mask(seen)['counts']))
