"""How classes of the hard world look: an outline, a pattern of two colours, and perhaps a trait.

A class and its rare neighbour share outline and pattern; the neighbour has a trait besides: a mark
in a third colour, a piece cut out, or another hue. All are functions of the object's own plane, as
in :mod:`projects.openimages.demo.looks`: ``u`` to the right and ``v`` down, both in -1..1.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from projects.openimages.demo.looks import BLACK, WHITE, Look, choose, over, polar, star
from projects.openimages.demo.looks import polygon_radius as polygon

Colour = tuple[float, float, float]
Region = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""``(u, v)``, each (H, W) float -> (H, W) bool."""

INKS = (BLACK, WHITE, (0.98, 0.90, 0.10), (0.90, 0.10, 0.75))
PAPER = (0.93, 0.90, 0.82)
RIM, RIM_SHADE = 1.1, 0.45  # a darker rim tells overlapping objects apart
HUE_SHIFT = 0.13  # of the colour circle
SHADOW = 0.38


@dataclass(frozen=True)
class Outline:
    """A shape that fills the plane, and its width over its height."""

    inside: Region
    aspect: float = 1.0


@dataclass(frozen=True)
class Trait:
    """What a rare class has and its frequent neighbour has not.

    Attributes:
        kind: ``ink`` (a mark of a third colour), ``cut`` (a piece missing) or ``hue`` (the main
            colour moved round the colour circle).
        region: where the mark or the cut is.
    """

    kind: str
    region: Region = lambda u, v: np.abs(u) < 9


@dataclass(frozen=True)
class Appearance:
    """What a class looks like; called with the plane, as a :data:`~.looks.Look` is.

    Attributes:
        outline: a key of :data:`OUTLINES`.
        pattern: a key of :data:`PATTERNS`: where the accent is.
        main, accent: colours.
        trait: a key of :data:`TRAITS`, or None.
    """

    outline: str
    pattern: str
    main: Colour
    accent: Colour
    trait: str | None = None

    def __call__(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inside = OUTLINES[self.outline].inside(u, v)
        main, trait = self.main, TRAITS.get(self.trait)
        if trait and trait.kind == 'hue':
            main = shift_hue(main, HUE_SHIFT)
        colour = choose(PATTERNS[self.pattern](u, v), self.accent, main)
        if trait and trait.kind == 'ink':
            over(colour, trait.region(u, v), _contrast(self.main, self.accent))
        colour[inside & ~OUTLINES[self.outline].inside(RIM * u, RIM * v)] *= RIM_SHADE
        if trait and trait.kind == 'cut':
            inside &= ~trait.region(u, v)
        return inside, colour

    def towards(self, other: Appearance, share: float) -> Appearance:
        """The same with its colours moved to another's by ``share``, 0 to 1."""
        def mixed(own: Colour, its: Colour) -> Colour:
            return tuple(a + share * (b - a) for a, b in zip(own, its, strict=True))

        return replace(self, main=mixed(self.main, other.main),
                       accent=mixed(self.accent, other.accent))


def in_shadow(look: Look) -> Look:
    """The same look in little light."""
    def dark(u, v):
        inside, colour = look(u, v)
        return inside, colour * np.float32(SHADOW)

    return dark


def on_paper(look: Look) -> Look:
    """The same look as a faded print."""
    def printed(u, v):
        inside, colour = look(u, v)
        return inside, 0.55 * colour + 0.45 * np.float32(PAPER)

    return printed


def sheet(u, v):
    """A sheet of paper with a darker edge."""
    edge = np.maximum(np.abs(u), np.abs(v))
    return edge <= 1, choose(edge > 0.93, (0.55, 0.52, 0.45), PAPER)


def from_hue(hue: float, saturation: float, value: float) -> Colour:
    return colorsys.hsv_to_rgb(hue % 1, saturation, value)


def shift_hue(colour: Colour, by: float) -> Colour:
    hue, saturation, value = colorsys.rgb_to_hsv(*colour)
    return from_hue(hue + by, saturation, value)


def _contrast(*colours: Colour) -> Colour:
    """The ink that is furthest from the nearest of ``colours``."""
    def distance(ink: Colour) -> float:
        return min(float(np.abs(np.subtract(ink, colour)).sum()) for colour in colours)

    return max(INKS, key=distance)


def _disc(u, v, x=0.0, y=0.0, radius=1.0):
    return np.hypot(u - x, v - y) <= radius


def _box(u, v, left, right, top, bottom):
    return (u >= left) & (u <= right) & (v >= top) & (v <= bottom)


def _heart(u, v):
    lobes = _disc(u, v, -0.48, -0.42, 0.52) | _disc(u, v, 0.48, -0.42, 0.52)
    return lobes | ((v > -0.45) & (np.abs(u) <= 0.98 - 0.68 * (v + 0.45)))


def _drop(u, v):
    round_part = np.hypot(u, (v - 0.3) / 0.7) <= 1
    return round_part | ((v <= 0.1) & (v >= -1) & (np.abs(u) <= 0.87 * (v + 1)))


def _crescent(u, v):
    u = 0.78 * u - 0.22  # the horns end at 0.56 of the disc
    return _disc(u, v) & ~_disc(u, v, 0.6, 0, 0.8)


def _mug(u, v):
    radius = np.hypot((u - 0.45) / 0.55, v / 0.6)
    return _box(u, v, -1, 0.5, -0.95, 0.95) | ((u >= 0.4) & (radius <= 1) & (radius > 0.5))


def _bell(u, v):
    dome = np.hypot(u / 0.6, (v + 0.35) / 0.65) <= 1
    return (dome & (v < 0)) | ((v >= -0.35) & (v <= 0.7) & (np.abs(u) <= 0.6 + 0.4 * (
        np.maximum(v, 0) / 0.7) ** 2)) | _disc(u, v, 0, 0.75, 0.25)


def _bottle(u, v):
    body = (v > -0.25) & (v <= 1) & (np.abs(u) <= 0.95)
    shoulders = (v <= -0.25) & (v > -0.55) & (np.abs(u) <= 0.4 + 0.55 * (v + 0.55) / 0.3)
    return body | shoulders | _box(u, v, -0.4, 0.4, -1, -0.5)


def _mushroom(u, v):
    cap = (v <= 0.1) & (np.hypot(u, (v - 0.1) / 1.1) <= 1)
    return cap | _box(u, v, -0.32, 0.32, 0, 1)


def _fish(u, v):
    body = np.hypot((u + 0.25) / 0.75, v / 0.95) <= 1
    return body | ((u > 0.2) & (u <= 1) & (np.abs(v) <= 0.95 * (u - 0.1)))


def _clover(u, v):
    return _disc(u, v, 0, -0.48, 0.5) | _disc(u, v, -0.5, 0.2, 0.5) | _disc(
        u, v, 0.5, 0.2, 0.5) | _box(u, v, -0.14, 0.14, 0, 1)


def _gear(u, v):
    radius, angle = polar(u, v)
    return radius <= choose(np.cos(8 * angle) > 0, 1.0, 0.74)


OUTLINES = {
    'disc': Outline(_disc),
    'ring': Outline(lambda u, v: _disc(u, v) & ~_disc(u, v, radius=0.45)),
    'square': Outline(lambda u, v: _box(u, v, -0.92, 0.92, -0.92, 0.92)),
    'diamond': Outline(lambda u, v: np.abs(u) + np.abs(v) <= 1, 0.75),
    'triangle': Outline(lambda u, v: np.maximum(v, 2 * np.abs(u) - v) <= 1, 1.1),
    'hexagon': Outline(lambda u, v: polygon(u, v, 6) <= 0.9, 1.25),
    'star': Outline(lambda u, v: star(u, v, points=5, inner=0.45)),
    'cross': Outline(lambda u, v: (np.minimum(np.abs(u), np.abs(v)) <= 0.36) & (
        np.maximum(np.abs(u), np.abs(v)) <= 1)),
    'heart': Outline(_heart),
    'drop': Outline(_drop, 0.65),
    'crescent': Outline(_crescent, 0.7),
    'arrow': Outline(lambda u, v: _box(u, v, -1, 0.1, -0.38, 0.38) | (
        (u >= 0) & (u <= 1) & (np.abs(v) <= 1 - u)), 1.3),
    'bottle': Outline(_bottle, 0.5),
    'mug': Outline(_mug),
    'bowl': Outline(lambda u, v: (v >= -1) & (np.hypot(u, (v + 1) / 2) <= 1), 1.6),
    'bell': Outline(_bell),
    'house': Outline(lambda u, v: _box(u, v, -0.75, 0.75, -0.1, 1) | (
        (v >= -1) & (v <= 0) & (np.abs(u) <= v + 1))),
    'gear': Outline(_gear),
    'hourglass': Outline(lambda u, v: (np.abs(v) <= 1) & (
        np.abs(u) <= 0.2 + 0.8 * np.abs(v)), 0.75),
    'lens': Outline(lambda u, v: np.abs(u) <= 1 - v ** 2, 0.5),
    'anvil': Outline(lambda u, v: _box(u, v, -1, 1, -1, -0.3) | _box(u, v, -0.4, 0.4, -0.4, 1)),
    'boot': Outline(lambda u, v: _box(u, v, -1, -0.1, -1, 1) | _box(u, v, -1, 1, 0.25, 1)),
    'mushroom': Outline(_mushroom),
    'fish': Outline(_fish, 1.4),
    'clover': Outline(_clover),
    'stairs': Outline(lambda u, v: _box(u, v, -1, -0.33, -1, 1) | _box(
        u, v, -0.4, 0.33, -0.33, 1) | _box(u, v, 0.25, 1, 0.33, 1)),
}

PATTERNS: dict[str, Region] = {
    'plain': lambda u, v: np.abs(u) > 9,
    'striped': lambda u, v: np.sin(9 * u) > 0.1,
    'dotted': lambda u, v: np.sin(7 * u + 1) * np.sin(7 * v + 1) > 0.35,
    'chequered': lambda u, v: np.sin(5 * u) * np.sin(5 * v) > 0,
    'banded': lambda u, v: np.sin(9 * v) > 0.1,
    'ringed': lambda u, v: np.sin(9 * np.hypot(u, v)) > 0.2,
    'slanted': lambda u, v: np.sin(7 * (u + v)) > 0.1,
    'halved': lambda u, v: u > 0,
}

TRAITS = {
    'barred': Trait('ink', lambda u, v: np.abs(v) < 0.2),
    'notched': Trait('cut', lambda u, v: (u > 0.05) & (np.abs(v) < 0.55 * u)),
    'footed': Trait('ink', lambda u, v: v > 0.5),
    'tinted': Trait('hue'),
    'slashed': Trait('ink', lambda u, v: np.abs(u - v) < 0.3),
    'holed': Trait('cut', lambda u, v: np.hypot(u, v) < 0.4),
    'capped': Trait('ink', lambda u, v: v < -0.45),
    'dyed': Trait('hue'),
}


def touched_share(outline: str, trait: str) -> float:
    """The part of an outline's area that a mark or a cut touches; 1 for a hue."""
    v, u = np.mgrid[-1:1:81j, -1:1:81j]
    inside = OUTLINES[outline].inside(u, v)
    return float(TRAITS[trait].region(u, v)[inside].mean())
