"""A small data set in exactly the official layout of the Open Images 2019 challenge.

It is for trying the whole stack in minutes and for tests. 300 invented classes, of which 13 appear
in the pictures as shapes with colours and textures of their own; every trap of the real files is
in it: see :mod:`.annotate` and :mod:`.scenes`. The same parameters give the same bytes. Beside it
:mod:`.hard` makes data with the difficulties of Open Images, to prove training recipes on.

>>> make_demo_data('data/demo', num_images=500, seed=0)   # doctest: +SKIP
"""

from projects.openimages.demo.files import PARAMETERS_FILE
from projects.openimages.demo.write import DEFAULT_IMAGES, make_demo_data

__all__ = ['DEFAULT_IMAGES', 'PARAMETERS_FILE', 'make_demo_data']
