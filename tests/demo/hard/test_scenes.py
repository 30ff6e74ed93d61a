"""What is true of painted objects: whether they can be told, and which pixels are theirs."""

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from projects.openimages.demo.hard import Knobs
from projects.openimages.demo.hard.plan import ImagePlan
from projects.openimages.demo.hard.scenes import paint_image


def test_small_blurred_and_hidden_objects_cannot_be_told(painted):
    clear = replace(painted[0].things[0], blurred=False, hidden=0.29, box_area=36.0 ** 2)
    assert clear.tellable
    for change in ({'blurred': True}, {'hidden': 0.31}, {'box_area': 35.9 ** 2}):
        assert not replace(clear, **change).tellable


def test_what_a_sheet_of_paper_covers_is_not_seen_of_an_object(classes):
    """Paper is nearly grey, the crosses painted here are not."""
    assert classes.leaves[0].name == 'Plain cross'
    knobs = Knobs(depicted=0.3, occlusion=0.6, blur=0, dark=0, clutter=0)
    plan = ImagePlan(256, 192, ((0, 1),) * 7)
    covered = 0
    for seed in range(6):
        image = paint_image(plan, classes, knobs, np.random.default_rng(seed))
        pixels = np.asarray(Image.open(io.BytesIO(image.jpeg)), float)
        greyness = pixels.min(axis=-1) / pixels.max(axis=-1)
        for thing in image.things:
            mask = np.asarray(Image.open(io.BytesIO(thing.exact))) > 0
            assert (greyness[mask] > 0.75).mean() < 0.12
            covered += thing.hidden > 0.1
    assert covered > 3
