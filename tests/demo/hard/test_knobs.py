"""Every knob turns its difficulty off at one end and up towards the other."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image

from projects.openimages.common.errors import UserError
from projects.openimages.demo.hard import Knobs
from projects.openimages.demo.hard.plan import ImagePlan, class_counts, plan_split
from projects.openimages.demo.hard.scenes import arrange, paint_image
from tests.demo.hard.conftest import each_plan, paint_images
from tests.helpers import REPOSITORY


def test_the_page_has_every_knob_with_its_default_and_range():
    page = (REPOSITORY / 'docs/hard_world.md').read_text(encoding='utf-8')
    for knob in fields(Knobs):
        low, high = knob.metadata['low'], knob.metadata['high']
        assert f'| `{knob.name}` | {knob.default:g} | {low:g} to {high:g} |' in page


@pytest.mark.parametrize(('settings', 'message'), [
    (['tail'], 'expected KNOB=VALUE with a knob of tail, confusable'),
    (['tial=3'], 'expected KNOB=VALUE with a knob of tail, confusable'),
    (['recall=0'], 'recall=0, expected 0.05 to 1'),
    (['lost=nan'], 'lost=nan, expected 0 to 0.5'),
    (['recall=most'], "'most' is not a number, expected 0.05 to 1"),
    (['lost=0.1', 'lost=0.2'], 'lost is set twice'),
])
def test_mistaken_settings_are_refused_with_what_is_expected(settings, message):
    with pytest.raises(UserError, match=message):
        Knobs.parse(settings)


def test_settings_leave_the_other_knobs_alone():
    assert Knobs.parse(['tail=5', 'lost=0']) == Knobs(tail=5, lost=0)


@pytest.mark.parametrize('tail', [1, 17, 300])
def test_tail_is_the_commonest_class_over_the_rarest(tail):
    counts = class_counts(20_000, tail, 60)
    assert counts.sum() == 20_000 and (np.diff(counts) <= 0).all()
    assert counts[0] / counts[-1] == pytest.approx(tail, rel=0.05)


def test_every_class_has_its_units_whatever_the_scenes(classes):
    plans = plan_split(400, 50, classes, Knobs(), np.random.default_rng(0))
    counts = Counter(leaf for plan in plans for leaf, _ in plan.units)
    total = sum(len(plan.units) for plan in plans)
    assert [counts[leaf] for leaf in range(60)] == class_counts(total, 50, 60).tolist()


def test_cooccurrence_brings_classes_of_a_scene_together(classes):
    def share_of_pairs(cooccurrence):
        plans = plan_split(400, 1, classes, Knobs(cooccurrence=cooccurrence),
                           np.random.default_rng(0))
        pairs = [classes.leaves[a].scene == classes.leaves[b].scene for plan in plans
                 for i, (a, _) in enumerate(plan.units) for b, _ in plan.units[:i]]
        return np.mean(pairs)

    by_chance = 1 / 6
    assert share_of_pairs(0) == pytest.approx(by_chance, abs=0.03)
    assert share_of_pairs(0.7) > 2 * by_chance
    assert share_of_pairs(1) > 4 * by_chance


def test_group_is_the_share_of_heaps(classes):
    def units(group):
        plans = plan_split(300, 20, classes, Knobs(group=group), np.random.default_rng(0))
        return [members for plan in plans for _, members in plan.units]

    assert set(units(0)) == {1}
    heaps = [members for members in units(0.2) if members > 1]
    assert len(heaps) / len(units(0.2)) == pytest.approx(0.2, abs=0.02)
    assert set(heaps) == set(range(4, 10))


def _sketches(classes, **knobs):
    chosen = Knobs(group=0, **knobs)
    return [sketch for plan, rng in each_plan(60, chosen, classes)
            for sketch in arrange(plan, classes, chosen, rng)]


def test_sizes_is_the_ratio_of_areas(classes):
    def ratio(sizes):
        sketches = _sketches(classes, sizes=sizes, occlusion=0.6, depicted=0)
        low, high = np.percentile([max(s.extent[2:]) ** 2 for s in sketches], [2, 98])
        return high / low

    assert ratio(1) < 1.4  # every side is up to 8% off
    assert ratio(30) > 16


@pytest.mark.parametrize(('knob', 'flag'), [
    ('blur', 'blurred'), ('dark', 'dark'), ('depicted', 'depicted')])
def test_shares_of_blurred_dark_and_depicted_objects(classes, knob, flag):
    shares = [np.mean([getattr(sketch, flag) for sketch in _sketches(classes, **{knob: share})])
              for share in (0, 0.3)]
    assert shares[0] == 0 and shares[1] == pytest.approx(0.3, abs=0.08)


def test_occlusion_hides_parts_of_objects(classes):
    hidden = [[thing.hidden for image in paint_images(
        30, Knobs(occlusion=share, group=0, depicted=0, blur=0), classes) for thing in image.things]
        for share in (0, 0.6)]
    assert np.mean(hidden[0]) < 0.01 < 0.04 < np.mean(hidden[1])
    assert max(hidden[1]) < 0.75


def _look_of_one(classes, flag):
    """Pixels of an object painted with a flag and without, from the same random numbers."""
    pixels = []
    for share in (0, 1):
        knobs = Knobs(clutter=0, blur=0, dark=0, depicted=0)
        object.__setattr__(knobs, flag, share)  # every object, for once
        image = paint_image(ImagePlan(256, 192, ((7, 1),)), classes, knobs,
                            np.random.default_rng(3))
        mask = np.asarray(Image.open(io.BytesIO(image.things[0].exact)))
        pixels.append(np.asarray(Image.open(io.BytesIO(image.jpeg)), float)[mask > 0])
    return pixels


def test_dark_objects_are_darker_and_blurred_and_depicted_ones_fainter(classes):
    plain, dark = _look_of_one(classes, 'dark')
    assert dark.mean() < 0.5 * plain.mean()
    for flag in ('blur', 'depicted'):
        plain, faint = _look_of_one(classes, flag)
        assert faint.std(axis=0).sum() < 0.8 * plain.std(axis=0).sum()


def test_clutter_puts_pebbles_into_an_empty_image(classes):
    def steepest(clutter):
        image = paint_image(ImagePlan(256, 192, ()), classes, Knobs(clutter=clutter),
                            np.random.default_rng(5))
        pixels = np.asarray(Image.open(io.BytesIO(image.jpeg)).convert('L'), float)
        return np.percentile(np.abs(np.diff(pixels, axis=1)), 99.5)

    assert steepest(6) > 1.5 * steepest(0)


def _found(labelled):
    """Of each (image, visible leaf), the largest area and whether it is labelled."""
    areas, found = [], []
    for image, verdict in zip(labelled.images, labelled.verdicts, strict=True):
        for leaf in {thing.leaf for thing in image.things}:
            own = [(thing.area, name) for thing, name in zip(image.things, verdict.named,
                                                             strict=True) if thing.leaf == leaf]
            areas.append(max(area for area, _ in own))
            found.append(own[0][1] is not None)
    return np.array(areas), np.array(found)


def test_recall_is_the_share_of_visible_classes_that_are_labelled(label):
    assert _found(label(recall=1))[1].all()
    for recall in (0.1, 0.43, 0.8):
        assert _found(label(recall=recall))[1].mean() == pytest.approx(recall, abs=0.07)


def test_large_objects_are_found_rather_than_small_ones_unless_uneven_is_off(label):
    def correlation(uneven):
        areas, found = _found(label(uneven=uneven, parents=0))
        return np.corrcoef(np.log(areas), found)[0, 1]

    assert abs(correlation(0)) < 0.2
    assert 0.25 < correlation(1) < correlation(3)


def test_frequent_classes_are_found_rather_than_rare_ones(label, classes):
    def recall_of(leaves, labelled):
        return np.mean([name is not None for thing, name, _ in labelled.things()
                        if classes.leaves[thing.leaf] in leaves])

    labelled = label(uneven=3)
    assert recall_of(classes.leaves[:5], labelled) > recall_of(classes.leaves[20:], labelled) + 0.1


def test_negatives_is_their_mean_number(label):
    assert not any(verdict.absent for verdict in label(negatives=0).verdicts)
    for mean in (1.5, 4):
        counts = [len(verdict.absent) for verdict in label(negatives=mean).verdicts]
        assert min(counts) >= 1 and np.mean(counts) == pytest.approx(mean, abs=0.6)
    assert all(len(set(v.absent)) == len(v.absent) for v in label(negatives=12).verdicts)


def test_hard_negatives_resemble_what_is_in_the_image(label, classes):
    def share(hardneg):
        similar = []
        labelled = label(hardneg=hardneg)
        for image, verdict in zip(labelled.images, labelled.verdicts, strict=True):
            near = {other for leaf in image.leaves
                    for other in classes.similar[classes.leaves[leaf].name]}
            similar += [name in near for name in verdict.absent]
        return np.mean(similar)

    assert share(1) > 0.9
    assert share(0.7) == pytest.approx(0.7, abs=0.12)
    assert share(0) < 0.2


def test_parents_are_named_where_no_object_of_the_leaf_can_be_told(label, classes):
    def by_parent(parents):
        return [thing for thing, name, _ in label(parents=parents).things()
                if name in classes.parents]

    assert not by_parent(0)
    assert len(by_parent(1)) > len(by_parent(0.4)) > 5
    assert not any(thing.tellable for thing in by_parent(1))


def test_lost_is_the_share_of_verified_classes_without_boxes(label):
    def share(lost):
        verdicts = label(lost=lost).verdicts
        return (sum(len(verdict.lost) for verdict in verdicts)
                / sum(len(verdict.present) for verdict in verdicts))

    assert share(0) == 0
    assert share(0.5) == pytest.approx(0.5, abs=0.12)
    assert 'lost' not in {kind for *_, kind in label(lost=0).things()}


def test_boxonly_says_how_strictly_masks_are_refused(label, painted):
    kinds = {strictness: Counter(kind for *_, kind in label(boxonly=strictness, recall=1).things())
             for strictness in (0, 0.5, 1)}
    assert set(kinds[0]) <= {'mask', 'group-of', 'lost'}
    refused = {strictness: sum(own[kind] for kind in ('small', 'dark', 'depicted', 'full'))
               for strictness, own in kinds.items()}
    assert 0 < refused[0.5] < 0.8 * refused[1]
    for thing, _, kind in label().things():
        if kind == 'mask':
            assert thing.box_area >= 28 ** 2 and not thing.dark and not thing.depicted


def test_no_class_has_more_masks_than_fill_it(label, painted):
    labelled = label(recall=1)
    masks = Counter(name for _, name, kind in labelled.things() if kind == 'mask')
    full = {name for _, name, kind in labelled.things() if kind == 'full'}
    assert full and max(masks.values()) == len(painted) // 4
    assert all(masks[name] == len(painted) // 4 for name in full)
