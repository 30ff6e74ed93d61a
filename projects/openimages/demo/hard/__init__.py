"""A made data set with the difficulties of Open Images, to prove training recipes on.

The same layout as the plain demo's. Who stands where is dealt in :mod:`.plan`, painted in
:mod:`.scenes`, verified by an imperfect process in :mod:`.verification` and written down in
:mod:`.annotate`; every difficulty is a knob in :mod:`.knobs`. See docs/hard_world.md.

>>> make_hard_world('data/hard', variant='A', seed=0)   # doctest: +SKIP
"""

from projects.openimages.demo.hard.knobs import Knobs
from projects.openimages.demo.hard.write import DEFAULT_IMAGES, make_hard_world

__all__ = ['DEFAULT_IMAGES', 'Knobs', 'make_hard_world']
