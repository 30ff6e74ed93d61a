"""Paints objects into an image: backgrounds, room for an object, shapes lit from one side.

Everything is painted at :data:`SUPERSAMPLING` times the image's size and averaged down at the end.
An extent is (centre x, centre y, width, height) in image pixels.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from projects.openimages.demo import looks

SUPERSAMPLING = 2
IMAGE_SIZES = ((256, 192), (192, 256), (240, 180), (256, 171))  # width, height
IMAGE_SIZE_SHARES = (0.70, 0.15, 0.10, 0.05)
SMALLEST_OBJECT = 30
OVERLAP_ALLOWED = 0.06  # of the smaller box

Extent = tuple[float, float, float, float]


def draw_size(rng: np.random.Generator) -> tuple[int, int]:
    """An image's width and height."""
    return IMAGE_SIZES[rng.choice(len(IMAGE_SIZES), p=IMAGE_SIZE_SHARES)]


def background(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """An empty supersampled canvas: a muted gradient with soft blotches and a few thin lines.

    Returns:
        (height * SUPERSAMPLING, width * SUPERSAMPLING, 3) float32 0..1
    """
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
    return canvas.repeat(SUPERSAMPLING, axis=0).repeat(SUPERSAMPLING, axis=1)


def place(sizes: tuple[float, float], aspect: float, image_size: tuple[int, int],
          taken: list[Extent], rng: np.random.Generator, *, smallest: float = SMALLEST_OBJECT,
          overlap_allowed: float = OVERLAP_ALLOWED) -> Extent:
    """Find room for an object.

    Starts with a free size and shrinks; what fits nowhere goes where it hides least.

    Args:
        sizes: the longer side is drawn between these, in pixels.
        aspect: width over height.
        image_size: width and height of the image.
        taken: extents of the objects that are there already.
        rng: decides.
        smallest: the longer side shrinks no further than this.
        overlap_allowed: shared area over the smaller extent's area.
    """
    longest = rng.uniform(*sizes)
    best, best_overlap = None, np.inf
    for attempt in range(60):
        size = max(smallest, longest * 0.985 ** attempt)
        width, height = (size, size / aspect) if aspect >= 1 else (size * aspect, size)
        width, height = width * rng.uniform(0.92, 1.08), height * rng.uniform(0.92, 1.08)
        margin = rng.choice([0.5, 0.5, 0.5, 0.42])  # now and then a little beyond the border
        x = rng.uniform(margin * width, image_size[0] - margin * width)
        y = rng.uniform(margin * height, image_size[1] - margin * height)
        extent = (float(x), float(y), float(width), float(height))
        overlap = max((_overlap(extent, other) for other in taken), default=0.0)
        if overlap < best_overlap:
            best, best_overlap = extent, overlap
        if overlap <= overlap_allowed:
            break
    return best


def _overlap(a: Extent, b: Extent) -> float:
    """Shared area over the smaller of two extents' areas."""
    across = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    down = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    return max(0.0, across) * max(0.0, down) / min(a[2] * a[3], b[2] * b[3])


def paint(canvas: np.ndarray, look: looks.Look, extent: Extent, angle: float,
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


def finish(canvas: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Average down to the image's size and add a camera's noise."""
    step = SUPERSAMPLING
    pixels = sum(canvas[y::step, x::step] for y in range(step) for x in range(step)) / step ** 2
    pixels += rng.normal(0, 0.015, (*pixels.shape[:2], 1)).astype(np.float32)
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))
