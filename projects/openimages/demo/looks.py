"""How the demo's visible classes look: shapes, colours and textures as functions of the plane.

A look takes the object's own coordinates ``u`` (to the right) and ``v`` (down), both in -1..1 over
the object's extent, and returns which points belong to the object and the colour of each point.
Being functions, looks can be drawn at any size and angle without losing an edge.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Look = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""``(u, v)``, each (H, W) float -> ``inside`` (H, W) bool, ``colour`` (H, W, 3) float 0..1."""

WHITE, BLACK = (0.96, 0.96, 0.94), (0.08, 0.08, 0.10)
RED, ORANGE, YELLOW = (0.84, 0.10, 0.12), (0.97, 0.52, 0.08), (0.98, 0.84, 0.10)
GREEN, CYAN, BLUE = (0.10, 0.60, 0.25), (0.15, 0.80, 0.85), (0.10, 0.25, 0.80)
PURPLE, PINK, GOLD = (0.50, 0.15, 0.65), (0.98, 0.45, 0.70), (0.72, 0.58, 0.10)


def beach_ball(u, v):
    """A disc of red and white sectors with a small yellow cap."""
    radius, angle = polar(u, v)
    colour = choose(np.sin(3 * angle) > 0, RED, WHITE)
    return radius <= 1, over(colour, radius < 0.25, YELLOW)


def plate(u, v):
    """A white disc with two blue rims."""
    radius, _ = polar(u, v)
    rim = (radius > 0.82) | ((radius > 0.55) & (radius < 0.64))
    return radius <= 1, choose(rim, BLUE, WHITE)


def stop_sign(u, v):
    """A red octagon with a white border and a white bar."""
    size = polygon_radius(u, v, 8)
    colour = choose(size > 0.84, WHITE, RED)
    return size <= 1, over(colour, (np.abs(u) < 0.6) & (np.abs(v) < 0.18), WHITE)


def mug(u, v):
    """A green square with a handle, striped darker."""
    body = (u > -1) & (u < 0.5) & (np.abs(v) <= 0.95)
    radius = np.hypot((u - 0.45) / 0.55, v / 0.6)
    handle = (u >= 0.4) & (radius <= 1) & (radius > 0.55)
    return body | handle, choose(np.sin(9 * v) > 0.55, (0.03, 0.33, 0.12), GREEN)


def starfish(u, v):
    """An orange five-pointed star with white dots."""
    dots = (np.sin(11 * u) * np.sin(11 * v)) > 0.45
    return star(u, v, points=5, inner=0.45), choose(dots, WHITE, ORANGE)


def warning_sign(u, v):
    """A yellow triangle with a black border and a black stroke in the middle."""
    size = np.maximum(v, 2 * np.abs(u) - v)  # of the triangle (-1, 1), (1, 1), (0, -1): <= 1
    colour = choose(size > 0.72, BLACK, YELLOW)
    return size <= 1, over(colour, (np.abs(u) < 0.12) & (v > -0.3) & (v < 0.5), BLACK)


def bucket(u, v):
    """A blue trapezoid, wide at the top, with a yellow band."""
    inside = (np.abs(v) <= 1) & (np.abs(u) <= 0.85 - 0.25 * v)
    colour = choose(np.abs(v + 0.1) < 0.25, YELLOW, BLUE)
    return inside, over(colour, v < -0.75, (0.05, 0.12, 0.45))


def life_ring(u, v):
    """A ring of orange and white quarters."""
    radius, angle = polar(u, v)
    colour = choose(np.cos(4 * angle) > 0.3, WHITE, (0.95, 0.30, 0.05))
    return (radius <= 1) & (radius > 0.48), colour


def traffic_cone(u, v):
    """A slim orange cone on a foot, with two white bands."""
    cone = (np.abs(v) <= 1) & (np.abs(u) <= 0.38 + 0.3 * v)
    foot = (v > 0.72) & (v <= 1) & (np.abs(u) <= 0.95)
    bands = (np.abs(v + 0.35) < 0.16) | (np.abs(v - 0.3) < 0.16)
    return cone | foot, choose(bands, WHITE, ORANGE)


def direction_sign(u, v):
    """A blue diamond with a white arrow: a sign that is none of the finer classes."""
    arrow = ((np.abs(u) < 0.12) & (np.abs(v) < 0.45)) | (
        (v < -0.1) & (v > -0.6) & (np.abs(u) < 0.6 * (v + 0.62)))
    return np.abs(u) + np.abs(v) <= 1, choose(arrow, WHITE, (0.15, 0.45, 0.95))


def bowl(u, v):
    """A purple half disc, chequered with pink."""
    inside = (v >= -1) & (u ** 2 + ((v + 1) / 2) ** 2 <= 1)
    squares = (np.sin(8 * u) * np.sin(6 * v)) > 0
    return inside, choose(squares, PURPLE, PINK)


def moon_shell(u, v):
    """A cyan crescent with fine dark ribs."""
    radius, angle = polar(u, v)
    inside = (radius <= 1) & (np.hypot(u - 0.55, v) > 0.75)
    return inside, choose(np.sin(16 * angle) > 0.6, (0.0, 0.45, 0.55), CYAN)


def sea_urchin(u, v):
    """A black star of twelve spikes with a golden heart."""
    radius, _ = polar(u, v)
    return star(u, v, points=12, inner=0.6), choose(radius < 0.3, GOLD, BLACK)


def stone(u, v):
    """A grey pebble: in the picture, of no class of the demo that has boxes."""
    radius, angle = polar(u, v)
    wobble = 0.82 + 0.1 * np.sin(3 * angle + 1) + 0.08 * np.sin(5 * angle)
    return radius <= wobble, choose(np.sin(7 * u + 4 * v) > 0.8, (0.40, 0.40, 0.40),
                                     (0.52, 0.51, 0.50))


def polar(u, v):
    return np.hypot(u, v), np.arctan2(v, u)


def polygon_radius(u, v, sides: int):
    """Distance in units of a regular polygon that fills -1..1: 1 on its edge."""
    radius, angle = polar(u, v)
    sector = 2 * np.pi / sides
    return radius * np.cos((angle + sector / 2) % sector - sector / 2)


def star(u, v, points: int, inner: float):
    """Inside a star of that many points whose notches lie at ``inner`` of its radius."""
    radius, angle = polar(u, v)
    phase = ((angle + np.pi / 2) * points / (2 * np.pi)) % 1.0
    return radius <= inner + (1 - inner) * np.abs(2 * phase - 1)


def choose(where, colour, otherwise):
    return np.array([otherwise, colour], dtype=np.float32)[where.view(np.uint8)]


def over(base, where, colour):
    base[where] = colour
    return base
