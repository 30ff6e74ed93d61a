"""The hard world's label space and the looks of its visible classes.

300 classes, 25 of them parents. 76 are visible: 60 leaves, 12 families over them and four kinds
over the families; three leaves have a second family. A family has two outlines, and an outline two
or three leaves: a base, its *neighbour* (rarer than any base, told from it by one trait), and in
half of the outlines an *odd one* of another pattern and other colours. The two variants differ in
every name, machine id, family, pattern, trait and colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from projects.openimages.demo.classes import (
    ADJECTIVES,
    INVISIBLE_FAMILIES,
    NOUNS,
    NUM_CLASSES,
    DemoClasses,
    adopt,
    children_of,
    machine_ids,
)
from projects.openimages.demo.hard.looks import (
    OUTLINES,
    TRAITS,
    Appearance,
    from_hue,
    touched_share,
)
from projects.openimages.demo.looks import BLACK, WHITE

FAMILIES, SCENES, HUES, INVISIBLE_PARENTS = 12, 6, 5, 9
TRAIT_SHARES = (0.1, 0.45)  # of the object's area, that a mark or a cut may touch


@dataclass(frozen=True)
class Style:
    """What the variants do differently.

    Attributes:
        stream: of random numbers that deal outlines, names and ids.
        prefix: of the machine ids.
        kinds: names of the four classes on top.
        family_name, invisible_name: how names are put together.
        patterns, traits: keys of ``looks.PATTERNS`` and ``looks.TRAITS``.
        first_hue: where the colours start.
        invisible_families: the first of the names that are taken.
    """

    stream: int
    prefix: str
    kinds: tuple[str, ...]
    family_name: str
    invisible_name: str
    patterns: tuple[str, ...]
    traits: tuple[str, ...]
    first_hue: float
    invisible_families: int


VARIANTS = {
    'A': Style(101, '/m/0harda', ('Ornament', 'Implement', 'Emblem', 'Plaything'), '{} or {}',
               '{adjective} {noun}', ('plain', 'striped', 'dotted', 'chequered'),
               ('barred', 'notched', 'footed', 'tinted'), 0.02, 0),
    'B': Style(202, '/m/0hardb', ('Trinket', 'Utensil', 'Token', 'Keepsake'), '{}, {} and such',
               '{noun}, {adjective}', ('banded', 'ringed', 'slanted', 'halved'),
               ('slashed', 'holed', 'capped', 'dyed'), 0.11, INVISIBLE_PARENTS),
}


@dataclass(frozen=True)
class Leaf:
    """A visible class without classes below it.

    Attributes:
        name: its display name.
        families: names of its one or two parents.
        scene: number of the scene where it belongs.
        appearance: its own look.
        neighbour_of: name of the class it is nearly like; None for a class of its own.
    """

    name: str
    families: tuple[str, ...]
    scene: int
    appearance: Appearance
    neighbour_of: str | None = None


@dataclass(frozen=True)
class HardClasses:
    """The label space of a variant.

    Attributes:
        leaves: the visible leaves, from the commonest to the rarest.
        space: all 300 classes.
        parents: names of the 16 visible parents.
        stream: the variant's own random numbers.
    """

    leaves: tuple[Leaf, ...]
    space: DemoClasses
    parents: tuple[str, ...]
    stream: int

    def look(self, leaf: Leaf, confusable: float) -> Appearance:
        """A class as it is painted: a neighbour has the other's colours by ``confusable``."""
        if leaf.neighbour_of is None:
            return leaf.appearance
        return leaf.appearance.towards(self.by_name[leaf.neighbour_of].appearance, confusable)

    @cached_property
    def by_name(self) -> dict[str, Leaf]:
        return {leaf.name: leaf for leaf in self.leaves}

    @cached_property
    def above(self) -> dict[str, frozenset[str]]:
        """Names of all visible classes above each visible class."""
        return {name: frozenset(self.space.ancestors(name))
                for name in (*self.by_name, *self.parents)}

    @cached_property
    def similar(self) -> dict[str, tuple[str, ...]]:
        """For each leaf, those it can be taken for: of the same outline, or of a family of it."""
        return {leaf.name: tuple(other.name for other in self.leaves if other is not leaf and (
            other.appearance.outline == leaf.appearance.outline
            or set(other.families) & set(leaf.families))) for leaf in self.leaves}

    @cached_property
    def invisible(self) -> tuple[str, ...]:
        return tuple(name for name in self.space.names if name not in self.above)


def hard_classes(variant: str) -> HardClasses:
    """The label space of variant ``'A'`` or ``'B'``: always the same, whatever the seed."""
    style = VARIANTS[variant]
    rng = np.random.default_rng(style.stream)
    outlines = [list(OUTLINES)[i] for i in rng.permutation(len(OUTLINES))[:2 * FAMILIES]]
    families = [style.family_name.format(a.capitalize(), b)
                for a, b in zip(outlines[::2], outlines[1::2], strict=True)]
    common, rare = _deal_leaves(style, outlines, families)
    leaves = tuple([common[i] for i in rng.permutation(len(common))]
                   + [rare[i] for i in rng.permutation(len(rare))])
    parents_of = {leaf.name: leaf.families for leaf in leaves}
    parents_of |= {family: (style.kinds[i // 3],) for i, family in enumerate(families)}
    invisible_families = INVISIBLE_FAMILIES[style.invisible_families:][:INVISIBLE_PARENTS]
    visible = [*style.kinds, *families, *(leaf.name for leaf in leaves)]
    invisible = [style.invisible_name.format(adjective=adjective, noun=noun)
                 for noun in NOUNS for adjective in ADJECTIVES]
    invisible = invisible[:NUM_CLASSES - len(visible) - INVISIBLE_PARENTS]
    parents_of |= adopt(invisible, invisible_families, rng)
    names = [*visible, *invisible_families, *invisible]
    names = [names[i] for i in rng.permutation(len(names))]
    space = DemoClasses(machine_ids(style.prefix, rng), tuple(names),
                        children_of(names, parents_of))
    return HardClasses(leaves, space, (*style.kinds, *families), style.stream)


def _deal_leaves(style: Style, outlines: list[str], families: list[str]
                 ) -> tuple[list[Leaf], list[Leaf]]:
    """The common leaves (bases and odd ones) and the rare ones (neighbours of bases)."""
    common, rare = [], []
    uses = dict.fromkeys(style.traits, 0)
    for number, outline in enumerate(outlines):
        family = number // 2
        pattern, other = (style.patterns[(number + step) % 4] for step in (0, 2))
        hue = style.first_hue + number * 2 % HUES / HUES  # shared: no colour gives a class away
        trait = _least_used_trait(outline, uses)
        looks = {name: Appearance(outline, kind, *_colours(hue + turn, number + step), mark)
                 for name, kind, turn, step, mark in (
                     (f'{pattern.capitalize()} {outline}', pattern, 0.0, 0, None),
                     (f'{pattern.capitalize()} {outline}, {trait}', pattern, 0.5, 1, trait),
                     (f'{other.capitalize()} {outline}', other, 2 / HUES, 2, None))}
        base, neighbour, odd = looks
        scene, home = family % SCENES, (families[family],)
        common.append(Leaf(base, home, scene, looks[base]))
        rare.append(Leaf(neighbour, home, scene, looks[neighbour], neighbour_of=base))
        if number % 2:
            second = (families[(family + 5) % FAMILIES],) if family % 4 == 0 else ()
            common.append(Leaf(odd, home + second, scene, looks[odd]))
    return common, rare


def _least_used_trait(outline: str, uses: dict[str, int]) -> str:
    """The trait that fewest have so far, of those that show on an outline."""
    low, high = TRAIT_SHARES
    fitting = [trait for trait in uses
               if TRAITS[trait].kind == 'hue' or low <= touched_share(outline, trait) <= high]
    trait = min(fitting, key=uses.__getitem__)
    uses[trait] += 1
    return trait


def _colours(hue: float, number: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Main and accent: saturated, and beside it white, black or another hue."""
    main = from_hue(hue, 0.75, (0.9, 0.65)[number % 2])
    return main, (WHITE, BLACK, from_hue(hue + 0.42, 0.6, 0.95))[number % 3]
