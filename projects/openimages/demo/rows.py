"""Rows of the official tables and mask PNGs for one object, with the traps of the real ones.

The masks table repeats each box with other decimals, and mask PNGs have sizes of their own and one
bit or eight.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from projects.openimages.demo.painting import SUPERSAMPLING

MASK_SCALES = (1.0, 1.0, 1.0, 0.75, 1.5, 0.5, 2.0)  # of the image's size
BOX_DISAGREEMENT = 0.002  # between the two tables, of the image's side

Box = tuple[float, float, float, float]
"""XMin, XMax, YMin, YMax, each 0..1."""


@dataclass(frozen=True)
class DrawnMask:
    """A mask as an annotator drew it, before it is known what class it is filed under.

    Attributes:
        box_id: eight hexadecimal digits.
        values: the masks table's columns from BoxXMin on.
        png: the file's contents.
    """

    box_id: str
    values: tuple[str, ...]
    png: bytes


@dataclass
class ImageAnnotations:
    """What the tables say about images: rows of text, and the masks' files.

    Attributes:
        boxes, labels, masks: rows of the three tables.
        pngs: MaskPath and file contents of each mask.
    """

    boxes: list[tuple[str, ...]] = field(default_factory=list)
    labels: list[tuple[str, ...]] = field(default_factory=list)
    masks: list[tuple[str, ...]] = field(default_factory=list)
    pngs: list[tuple[str, bytes]] = field(default_factory=list)

    def add_box(self, image_id: str, mid: str, box: Box, group_of: bool) -> None:
        self.boxes.append((image_id, mid, *(f'{value:.7g}' for value in box),
                           str(int(group_of))))

    def add_mask(self, image_id: str, mid: str, drawn: DrawnMask) -> None:
        path = f'{image_id}_{mid.replace("/", "")}_{drawn.box_id}.png'
        self.masks.append((path, image_id, mid, drawn.box_id, *drawn.values))
        self.pngs.append((path, drawn.png))

    def extend(self, other: ImageAnnotations) -> None:
        """Append another image's rows."""
        for name in ('boxes', 'labels', 'masks', 'pngs'):
            getattr(self, name).extend(getattr(other, name))


def tight_box(mask: np.ndarray) -> Box:
    """The box of a (H, W) bool mask that is not empty."""
    height, width = mask.shape
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (float(xs[0] / width), float((xs[-1] + 1) / width),
            float(ys[0] / height), float((ys[-1] + 1) / height))


def draw_box(mask: np.ndarray, rng: np.random.Generator) -> Box:
    """The box as a careful person draws it: within half a pixel of the supersampled mask."""
    height, width = mask.shape
    careless = rng.uniform(-0.5, 0.5, 4) * SUPERSAMPLING / np.array([width, width, height, height])
    return tuple(float(value) for value in (np.array(tight_box(mask)) + careless).clip(0, 1))


def draw_mask(mask: np.ndarray, box: Box, width: int, height: int,
              rng: np.random.Generator) -> DrawnMask:
    """Draw an object's mask.

    Args:
        mask: (H, W) bool, supersampled, not empty.
        box: the boxes table's box of the object.
        width, height: of the image in pixels.
        rng: decides the PNG's size and depth, the other box's decimals, and the clicks.
    """
    box_id = rng.bytes(4).hex()
    drift = rng.uniform(-BOX_DISAGREEMENT, BOX_DISAGREEMENT, 4)
    other_box = (np.array(box) + drift).clip(0, 1)
    quality = 0.0 if rng.random() < 0.2 else rng.uniform(0.7, 0.97)  # 0: not estimated
    values = (*(f'{value:.6f}' for value in other_box), f'{quality:.5f}', _clicks(mask, rng))
    scale = rng.choice(MASK_SCALES)
    size = (round(width * scale), round(height * scale))
    return DrawnMask(box_id, values, mask_png(mask, size, int(rng.integers(4))))


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


def mask_png(mask: np.ndarray, size: tuple[int, int], kind: int = 0) -> bytes:
    """The mask at ``size`` (width, height): one bit a pixel (kinds 0 and 1), or eight with 1
    (kind 2) or 255 (kind 3) for the object."""
    image = Image.fromarray(mask).convert('L').resize(size, Image.Resampling.NEAREST)
    if kind < 2:
        image = image.convert('1', dither=Image.Dither.NONE)
    elif kind == 2:
        image = image.point(lambda value: value // 255)
    buffer = io.BytesIO()
    image.save(buffer, format='PNG')
    return buffer.getvalue()
