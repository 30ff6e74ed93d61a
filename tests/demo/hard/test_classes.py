"""The label space of both variants, and what tells neighbours apart."""

import re

import numpy as np
import pytest

from projects.openimages.demo.hard.classes import hard_classes
from projects.openimages.demo.hard.looks import OUTLINES, PATTERNS, TRAITS

V, U = np.mgrid[-1:1:64j, -1:1:64j]


@pytest.fixture(scope='module', params=['A', 'B'])
def variant(request):
    return hard_classes(request.param)


def test_label_space_has_the_challenge_shape(variant):
    space = variant.space
    assert len(set(space.mids)) == len(set(space.names)) == 300
    assert len(set(space.children) - {''}) == 25
    assert all(re.fullmatch(r'/m/0hard[ab][0-9a-z]{2}_?', mid) for mid in space.mids)
    assert any(mid.endswith('_') for mid in space.mids)
    assert any(',' in name for name in space.names)
    assert any(not name.isascii() for name in space.names)


def test_sixty_leaves_are_visible_two_levels_under_sixteen_parents(variant):
    assert len(variant.leaves) == 60 and len(variant.parents) == 16
    leaves = {leaf.name for leaf in variant.leaves}
    assert not leaves & set(variant.space.children)
    assert all(len(variant.above[name]) >= 2 for name in leaves)
    assert sum(len(leaf.families) == 2 for leaf in variant.leaves) == 3
    assert len(variant.invisible) == 300 - 76


def test_variants_share_no_name_id_or_look():
    a, b = hard_classes('A'), hard_classes('B')
    assert not set(a.space.mids) & set(b.space.mids)
    assert not set(a.space.names) & set(b.space.names)
    assert not {leaf.appearance.pattern for leaf in a.leaves} & {
        leaf.appearance.pattern for leaf in b.leaves}
    assert not {leaf.appearance.trait for leaf in a.leaves} & {
        leaf.appearance.trait for leaf in b.leaves} - {None}


def test_neighbours_are_rarer_than_any_class_of_its_own(variant):
    rare = [leaf.neighbour_of is not None for leaf in variant.leaves]
    assert rare == [False] * 36 + [True] * 24


def test_neighbours_share_family_outline_and_pattern(variant):
    for leaf in variant.leaves:
        if leaf.neighbour_of:
            base = variant.by_name[leaf.neighbour_of]
            assert leaf.families == base.families and leaf.scene == base.scene
            assert leaf.appearance.outline == base.appearance.outline
            assert leaf.appearance.pattern == base.appearance.pattern
            assert leaf.appearance.trait and not base.appearance.trait


def _difference(variant, leaf, confusable):
    """Share of the base's points that look otherwise in its neighbour."""
    base = variant.look(variant.by_name[leaf.neighbour_of], confusable)
    inside, colour = base(U, V)
    other_inside, other = variant.look(leaf, confusable)(U, V)
    differs = (inside != other_inside) | (np.abs(colour - other).max(axis=-1) > 0.08)
    return differs[inside].mean()


def test_confusable_neighbours_differ_in_the_trait_and_clear_ones_in_colour_too(variant):
    for leaf in variant.leaves:
        if leaf.neighbour_of:
            near, clear = (_difference(variant, leaf, knob) for knob in (1.0, 0.0))
            if TRAITS[leaf.appearance.trait].kind != 'hue':
                assert 0.08 <= near <= 0.5
            assert clear > 0.5 and clear >= near > 0.2 * (near > 0.45)


def test_half_confusable_lies_between(variant):
    leaf = next(leaf for leaf in variant.leaves if leaf.neighbour_of)
    colours = [np.array(variant.look(leaf, knob).main) for knob in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(colours[1], (colours[0] + colours[2]) / 2)
    np.testing.assert_allclose(colours[2], variant.by_name[leaf.neighbour_of].appearance.main)


@pytest.mark.parametrize('name', OUTLINES)
def test_outlines_fill_their_extent(name):
    inside = OUTLINES[name].inside(U, V)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    assert rows[-1] - rows[0] > 54 and columns[-1] - columns[0] > 54
    assert 0.25 < inside.mean() < 0.9


@pytest.mark.parametrize('name', [name for name in PATTERNS if name != 'plain'])
def test_patterns_show_both_colours(name):
    assert 0.1 < PATTERNS[name](U, V).mean() < 0.7
