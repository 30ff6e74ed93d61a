"""The demo's label space: 300 invented classes, shaped like the challenge's.

25 of them are parents, the hierarchy is three levels deep, and one visible class has two parents.
Only :data:`VISIBLE` ever appear in a picture; the others exist so that every array, table and
classifier has the real size. The machine ids look like real ones but contain vowels, which real
ones never do, so that they cannot be mistaken for classes of Open Images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from projects.openimages.demo import looks

NUM_CLASSES = 300
ROOT = '/m/0bl9f'
TOY, BEACH_TOY, SIGN, TABLEWARE, SEA = (
    'Toy', 'Beach toy', 'Sign', 'Tableware', 'Sea creature, small')


@dataclass(frozen=True)
class VisibleClass:
    """A class that appears in pictures.

    Attributes:
        name: its display name.
        look: draws it.
        parents: names of its parents.
        aspect: width over height.
        tilt: the largest angle it is turned by, in degrees.
    """

    name: str
    look: looks.Look
    parents: tuple[str, ...]
    aspect: float = 1.0
    tilt: float = 15.0


# From the commonest to the rarest. The rare ones share no colour with the others: a handful of
# examples must be enough to learn them.
VISIBLE = (
    VisibleClass('Beach ball', looks.beach_ball, (BEACH_TOY,), tilt=180),
    VisibleClass('Plate, blue-rimmed', looks.plate, (TABLEWARE,), aspect=1.3),
    VisibleClass('Stop sign', looks.stop_sign, (SIGN,)),
    VisibleClass('Mug', looks.mug, (TABLEWARE,)),
    VisibleClass('Starfish', looks.starfish, (SEA,), tilt=180),
    VisibleClass('Warning sign', looks.warning_sign, (SIGN,), aspect=1.15),
    VisibleClass('Bucket', looks.bucket, (BEACH_TOY,), aspect=0.95),
    VisibleClass('Life ring', looks.life_ring, (BEACH_TOY, SIGN), tilt=180),
    VisibleClass('Traffic cone', looks.traffic_cone, (SIGN,), aspect=0.75),
    VisibleClass(SIGN, looks.direction_sign, ()),  # boxes of a parent itself occur in the real data
    VisibleClass('Crème-brûlée bowl', looks.bowl, (TABLEWARE,), aspect=1.6),
    VisibleClass('Měsíční mušle', looks.moon_shell, (SEA,), tilt=180),
    VisibleClass('Sea urchin', looks.sea_urchin, (SEA,), tilt=180),
)
TWO_PARENT_CLASS = 'Life ring'

_VISIBLE_PARENTS = {TOY: (), BEACH_TOY: (TOY,), SIGN: (), TABLEWARE: (), SEA: ()}
ADJECTIVES = ('Amber', 'Brass', 'Cedar', 'Denim', 'Ebony', 'Felt', 'Glass', 'Hemp', 'Ivory-white',
              'Jade', 'Knitted', 'Linen', 'Marble', 'Nickel', 'Oak', 'Paper', 'Quilted', 'Rattan')
NOUNS = ('lantern', 'drawer', 'kettle', 'hat', 'flute', 'ladder', 'clock', 'basket', 'piñata',
         'comb', 'carafe, tall', 'chaise longue', 'étagère', 'kürbis', 'wheel', 'brush')
INVISIBLE_FAMILIES = (
    'Furniture, indoor', 'Musical instrument', 'Garden tool', 'Headgear', 'Luggage', 'Lamp',
    'Kitchen appliance', 'Sewing kit', 'Game', 'Écriture', 'Timepiece', 'Fastener', 'Container',
    'Bird feeder', 'Optical device', 'Bicycle part', 'Straßenmöbel', 'Gymnastics', 'Candle',
    'Weaving')


@dataclass(frozen=True)
class DemoClasses:
    """The label space as the official files hold it.

    Attributes:
        mids: the 300 machine ids in file order; the position is the class id.
        names: their names.
        children: parent name -> names of its children, in file order; '' is the root.
    """

    mids: tuple[str, ...]
    names: tuple[str, ...]
    children: dict[str, tuple[str, ...]]

    def mid(self, name: str) -> str:
        return self.mids[self.names.index(name)]

    def ancestors(self, name: str) -> set[str]:
        """Names of all classes above ``name``, the root left out."""
        direct = {parent for parent, names in self.children.items() if parent and name in names}
        return direct.union(*(self.ancestors(parent) for parent in direct))

    def hierarchy(self) -> dict:
        """The nested ``LabelName``/``Subcategory`` form of the official JSON."""
        return self._node('')

    def _node(self, name: str) -> dict:
        node: dict = {'LabelName': self.mid(name) if name else ROOT}
        if name in self.children:
            node['Subcategory'] = [self._node(child) for child in self.children[name]]
        return node


def demo_classes() -> DemoClasses:
    """The label space of every demo data set: always the same, whatever the seed."""
    rng = np.random.default_rng(2019)
    invisible = [f'{adjective} {noun}' for noun in NOUNS for adjective in ADJECTIVES]
    parents = [*_VISIBLE_PARENTS, *INVISIBLE_FAMILIES]
    visible_leaves = [c.name for c in VISIBLE if c.parents]
    invisible = invisible[:NUM_CLASSES - len(parents) - len(visible_leaves)]
    names = [*parents, *visible_leaves, *invisible]
    names = [names[i] for i in rng.permutation(len(names))]
    mids = machine_ids('/m/0demo', rng)
    parents_of = dict(_VISIBLE_PARENTS)
    parents_of |= {c.name: c.parents for c in VISIBLE if c.parents}
    parents_of |= adopt(invisible, INVISIBLE_FAMILIES, rng)
    return DemoClasses(mids, tuple(names), children_of(names, parents_of))


def machine_ids(prefix: str, rng: np.random.Generator) -> tuple[str, ...]:
    """300 distinct machine ids.

    Like some real ids, every seventh ends in an underscore, the very character that separates the
    parts of a mask's file name.
    """
    digits = '0123456789abcdefghijklmnopqrstuvwxyz'
    return tuple(f'{prefix}{digits[n // 36]}{digits[n % 36]}' + '_' * (i % 7 == 3)
                 for i, n in enumerate(rng.permutation(36 ** 2)[:NUM_CLASSES]))


def adopt(names: Sequence[str], families: Sequence[str], rng: np.random.Generator
          ) -> dict[str, tuple[str, ...]]:
    """Give each family two to four of ``names``: name -> its parents, for those adopted."""
    order = rng.permutation(len(names))
    return {names[i]: (family,) for number, family in enumerate(families)
            for i in order[number * 4:number * 4 + 2 + number % 3]}


def children_of(names: Sequence[str], parents_of: Mapping[str, tuple[str, ...]]
                ) -> dict[str, tuple[str, ...]]:
    """Turn names and their parents round; whoever has none is a child of the root, ''."""
    children: dict[str, list[str]] = {'': []}
    for name in names:
        for parent in parents_of.get(name, ()) or ('',):
            children.setdefault(parent, []).append(name)
    return {parent: tuple(kids) for parent, kids in children.items()}
