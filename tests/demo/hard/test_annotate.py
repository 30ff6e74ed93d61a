"""What becomes one group-of box."""

from dataclasses import replace

import numpy as np
import pytest

from projects.openimages.demo.hard import Knobs
from projects.openimages.demo.hard.annotate import choose_annotations
from projects.openimages.demo.hard.verification import Verdict


@pytest.fixture
def kinds_of(painted):
    """How objects of one heap are annotated, given their places in a row and their names."""
    image = painted[0]

    def kinds(places, names, lost=()):
        things = tuple(replace(image.things[0], unit=0, members=9, box_area=2000, dark=False,
                               depicted=False, truth=(x / 10, (x + 1) / 10, 0.0, 0.1))
                       for x in places)
        present = tuple(sorted(set(names) - {None}))
        verdict = Verdict(present, frozenset(lost), (), tuple(names))
        own, = choose_annotations([replace(image, things=things)], [verdict],
                                  Knobs(boxonly=0), np.random.default_rng(0))
        return own

    return kinds


def test_six_that_touch_are_a_group_and_five_are_not(kinds_of):
    assert kinds_of(range(6), ['Star'] * 6) == ['group-of'] * 6
    assert kinds_of(range(5), ['Star'] * 5) == ['mask'] * 5


def test_objects_apart_are_not_of_the_group(kinds_of):
    assert kinds_of([0, 1, 2, 3, 4, 5, 8], ['Star'] * 7) == ['group-of'] * 6 + ['mask']
    assert kinds_of([0, 1, 2, 5, 6, 7], ['Star'] * 6) == ['mask'] * 6


def test_a_heap_that_is_lost_or_unlabelled_is_no_group(kinds_of):
    assert kinds_of(range(6), ['Star'] * 6, lost=['Star']) == ['lost'] * 6
    assert kinds_of(range(6), [None] * 6) == ['unlabelled'] * 6
