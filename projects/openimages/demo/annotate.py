"""From a painted picture to the rows and mask PNGs that the official files would hold for it.

Here the traps of the real data set are laid: the masks table repeats each box with other
decimals, mask PNGs have sizes of their own and one bit or eight, and the verified labels say less
(and, of absent classes, more) than the boxes do.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from projects.openimages.demo.classes import VISIBLE, DemoClasses
from projects.openimages.demo.scenes import (
    GROUP_OF,
    LABEL_ONLY,
    MASKED,
    SUPERSAMPLING,
    UNLABELLED,
    PaintedObject,
    ScenePlan,
)

MASK_SCALES = (1.0, 1.0, 1.0, 0.75, 1.5, 0.5, 2.0)  # of the picture's size
BOX_DISAGREEMENT = 0.002  # between the two tables, of the picture's side
PARENT_NAMED_TOO = 0.1  # share of labelled pictures where an annotator verified a parent as well


@dataclass
class ImageAnnotations:
    """What the tables say about one picture: rows of text, and the masks' files.

    Attributes:
        boxes, labels, masks: rows of the three tables.
        pngs: MaskPath and file contents of each mask.
    """

    boxes: list[tuple[str, ...]] = field(default_factory=list)
    labels: list[tuple[str, ...]] = field(default_factory=list)
    masks: list[tuple[str, ...]] = field(default_factory=list)
    pngs: list[tuple[str, bytes]] = field(default_factory=list)


def annotate(image_id: str, plan: ScenePlan, objects: list[PaintedObject], classes: DemoClasses,
             rng: np.random.Generator) -> ImageAnnotations:
    """Write down one picture as the annotators of Open Images would have."""
    result = ImageAnnotations()
    for thing in objects:
        if thing.annotation in (LABEL_ONLY, UNLABELLED):
            continue
        mid = classes.mid(VISIBLE[thing.visible_class].name)
        box = _box(thing.mask, rng)
        group_of = str(int(thing.annotation == GROUP_OF))
        result.boxes.append((image_id, mid, *(f'{value:.7g}' for value in box), group_of))
        if thing.annotation == MASKED:
            _add_mask(result, image_id, mid, box, plan, thing.mask, rng)
    seen = {VISIBLE[thing.visible_class].name for thing in objects}
    named = {VISIBLE[t.visible_class].name for t in objects if t.annotation != UNLABELLED}
    result.labels = [(image_id, classes.mid(name), confidence)
                     for name, confidence in _labels(seen, named, plan, classes, rng)]
    return result


def _box(mask: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """XMin, XMax, YMin, YMax as a careful person draws it: within half a pixel of the mask."""
    height, width = mask.shape
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    edges = np.array([xs[0] / width, (xs[-1] + 1) / width, ys[0] / height, (ys[-1] + 1) / height])
    careless = rng.uniform(-0.5, 0.5, 4) * SUPERSAMPLING / np.array([width, width, height, height])
    return tuple(float(value) for value in (edges + careless).clip(0, 1))


def _add_mask(result: ImageAnnotations, image_id: str, mid: str, box: tuple, plan: ScenePlan,
              mask: np.ndarray, rng: np.random.Generator) -> None:
    box_id = rng.bytes(4).hex()
    path = f'{image_id}_{mid.replace("/", "")}_{box_id}.png'
    drift = rng.uniform(-BOX_DISAGREEMENT, BOX_DISAGREEMENT, 4)
    other_box = (np.array(box) + drift).clip(0, 1)
    quality = 0.0 if rng.random() < 0.2 else rng.uniform(0.7, 0.97)  # 0: not estimated
    result.masks.append((path, image_id, mid, box_id, *(f'{value:.6f}' for value in other_box),
                         f'{quality:.5f}', _clicks(mask, rng)))
    result.pngs.append((path, _png(mask, plan, rng)))


def _clicks(mask: np.ndarray, rng: np.random.Generator) -> str:
    """``X Y T;...``: where the annotator clicked, T being 1 on the object and 0 off it."""
    height, width = mask.shape
    inside = np.argwhere(mask)
    clicks = []
    for number in range(int(rng.integers(1, 5))):
        on_object = inside[rng.integers(len(inside))]  # the first click always, then half of them
        anywhere = rng.integers((height, width))
        y, x = on_object if number % 2 == 0 else anywhere
        clicks.append(f'{x / width:.5f} {y / height:.5f} {int(mask[y, x])}')
    return ';'.join(clicks)


def _png(mask: np.ndarray, plan: ScenePlan, rng: np.random.Generator) -> bytes:
    """The mask at a size of its own, with one bit or with eight (object 255, or 1) a pixel."""
    scale = rng.choice(MASK_SCALES)
    size = (round(plan.width * scale), round(plan.height * scale))
    image = Image.fromarray(mask).convert('L').resize(size, Image.Resampling.NEAREST)
    kind = int(rng.integers(4))
    if kind < 2:
        image = image.convert('1', dither=Image.Dither.NONE)
    elif kind == 2:
        image = image.point(lambda value: value // 255)
    buffer = io.BytesIO()
    image.save(buffer, format='PNG')
    return buffer.getvalue()


def _labels(seen: set[str], named: set[str], plan: ScenePlan, classes: DemoClasses,
            rng: np.random.Generator) -> list[tuple[str, str]]:
    """Verified labels: (class name, '1' or '0'), present ones first.

    Nothing is verified of an object that nobody labelled, neither of its class nor above it; and
    what is verified absent is truly not in the picture.
    """
    above = {name: classes.ancestors(name) for name in seen}
    hidden = set().union(*({name} | above[name] for name in seen - named))
    present = sorted(named)
    if named and rng.random() < PARENT_NAMED_TOO:
        parents = set().union(*(above[name] for name in named)) - named
        present += sorted(parents)[:1]
    invisible = _invisible(classes)
    if plan.stones:  # a pebble is called by a name that never has boxes
        present.append(invisible[int(rng.integers(len(invisible)))])
    possible = {v.name for v in VISIBLE} | {a for v in VISIBLE for a in classes.ancestors(v.name)}
    present_anywhere = seen | set().union(*above.values())
    absent = sorted(possible - present_anywhere - hidden)
    absent = [absent[i] for i in rng.permutation(len(absent))[:int(rng.integers(2, 6))]]
    absent += [invisible[int(i)] for i in rng.integers(len(invisible), size=2)]
    labels = [(name, '1') for name in present]
    return labels + [(name, '0') for name in dict.fromkeys(absent) if name not in present]


def _invisible(classes: DemoClasses) -> list[str]:
    visible = {v.name for v in VISIBLE}
    visible |= {a for v in VISIBLE for a in classes.ancestors(v.name)}
    return [name for name in classes.names if name not in visible]
