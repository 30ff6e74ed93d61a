"""The target rule: small cases one can check by eye, and a slow reference for all others."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from projects.openimages.mm.models.federated.losses import FederatedLoss
from projects.openimages.mm.models.federated.targets import (
    Hierarchy,
    ImageClasses,
    Regions,
    TargetRule,
    class_targets,
    close_over_ancestors,
    exclusive_shares,
    tail_weights,
)

# animal > (cat, dog > puppy), toy > (puppy): puppy has two parents; and a lone cup.
from tests.helpers import REPOSITORY

ANIMAL, CAT, DOG, PUPPY, TOY, CUP = range(6)
UP = {CAT: (ANIMAL,), DOG: (ANIMAL,), PUPPY: (ANIMAL, DOG, TOY)}
C = 6


def hierarchy() -> Hierarchy:
    matrix = torch.zeros(C, C, dtype=torch.bool)
    for label, above in UP.items():
        matrix[label, list(above)] = True
    return Hierarchy(matrix)


def flags(*labels: int) -> torch.Tensor:
    out = torch.zeros(C, dtype=torch.bool)
    out[list(labels)] = True
    return out


def one_region(matched=-1, ious=(), labels=(), covered=(), group_labels=(),
               ignored=None) -> Regions:
    return Regions(torch.tensor([matched]), torch.tensor([ious]).reshape(1, -1),
                   torch.tensor(labels, dtype=torch.long),
                   torch.tensor([covered], dtype=torch.bool).reshape(1, -1),
                   torch.tensor(group_labels, dtype=torch.long),
                   None if ignored is None else torch.tensor(ignored))


def targets_of(regions, known=(), missing=(), scores=None, class_weights=None, **rule):
    scores = torch.zeros(1, C) if scores is None else torch.tensor([scores])
    class_weights = torch.ones(C) if class_weights is None else torch.tensor(class_weights)
    targets, weights = class_targets(regions, flags(*known), flags(*missing), scores, class_weights,
                                     hierarchy(), TargetRule(**rule))
    return targets[0].tolist(), weights[0].tolist()


def image_classes(boxed=(), present=(), absent=()) -> ImageClasses:
    return ImageClasses.collect(
        *(flags(*labels)[None] for labels in (boxed, present, absent)), hierarchy())


# ------------------------------------------------------------------------------ image classes

def test_boxed_classes_are_known_with_their_ancestors():
    classes = image_classes(boxed=[DOG], present=[DOG])
    assert classes.known[0].tolist() == flags(DOG, ANIMAL).tolist()
    assert not classes.lost.any()


def test_absent_classes_are_known_with_their_descendants():
    classes = image_classes(absent=[DOG])
    assert classes.known[0].tolist() == flags(DOG, PUPPY).tolist()


def test_a_class_verified_present_without_a_box_is_lost_with_its_ancestors():
    classes = image_classes(present=[DOG])
    assert classes.lost[0].tolist() == flags(DOG, ANIMAL).tolist()
    assert not classes.known.any()


def test_an_ancestor_that_is_boxed_by_another_class_is_not_lost():
    classes = image_classes(boxed=[CAT], present=[DOG])
    assert classes.lost[0].tolist() == flags(DOG).tolist()
    assert classes.known[0].tolist() == flags(CAT, ANIMAL).tolist()


def test_a_class_that_is_boxed_or_present_is_not_absent_through_its_parent():
    classes = image_classes(boxed=[PUPPY], absent=[TOY, DOG])
    assert classes.known[0].tolist() == flags(PUPPY, DOG, TOY, ANIMAL).tolist()
    classes = image_classes(present=[PUPPY], absent=[DOG])
    assert classes.lost[0].tolist() == flags(PUPPY, DOG, TOY, ANIMAL).tolist()
    assert not classes.known.any()


# ------------------------------------------------------------------------------ one region

def test_matched_class_and_ancestors_are_positive_and_unknown_descendants_left_out():
    region = one_region(0, [1.0], [DOG])
    targets, weights = targets_of(region, known=(DOG, ANIMAL), unknown_on_objects=0.25)
    assert targets == flags(ANIMAL, DOG).tolist()
    assert weights == [1, 0.25, 1, 0, 0.25, 0.25]  # puppy may be what it is


def test_a_descendant_verified_absent_is_a_negative_of_the_parent():
    region = one_region(0, [1.0], [DOG])
    targets, weights = targets_of(region, known=(DOG, ANIMAL, PUPPY))
    assert not targets[PUPPY] and weights[PUPPY] == 1


def test_on_background_known_classes_count_fully_and_unknown_ones_little():
    _, weights = targets_of(one_region(), known=(CAT,), unknown_on_background=0.125,
                            class_weights=[1, 1, 1, 0.5, 1, 1])
    assert weights == [0.125, 1, 0.125, 0.0625, 0.125, 0.125]


def test_a_background_region_that_scores_high_has_no_say_about_an_unknown_class():
    scores = [0.6, 0.6, 0.4, 0, 0, 0]
    _, weights = targets_of(one_region(), known=(ANIMAL,), scores=scores)
    assert weights[ANIMAL] == 1 and weights[CAT] == 0 and weights[DOG] == pytest.approx(0.15)


def test_a_lost_class_is_left_out_on_objects_and_on_background():
    for region in (one_region(), one_region(0, [1.0], [CAT])):
        _, weights = targets_of(region, known=(CAT, ANIMAL), missing=(CUP,))
        assert weights[CUP] == 0
        assert targets_of(region, known=(CAT, ANIMAL))[1][CUP] > 0


def test_a_group_leaves_its_relatives_open_where_it_covers_the_region():
    covered = one_region(covered=[True], group_labels=[DOG])
    _, weights = targets_of(covered, known=(ANIMAL, DOG, CAT, CUP))
    assert weights == [0, 1, 0, 0, pytest.approx(0.15), 1]
    beside = one_region(covered=[False], group_labels=[DOG])
    assert targets_of(beside, known=(DOG,))[1][DOG] == 1


def test_an_object_inside_a_group_stays_positive():
    region = one_region(0, [0.8], [DOG], covered=[True], group_labels=[DOG])
    targets, weights = targets_of(region, known=(DOG, ANIMAL))
    assert targets == flags(ANIMAL, DOG).tolist() and weights[DOG] == 1 == weights[ANIMAL]


def test_two_instances_on_one_place_are_both_positive():
    region = one_region(0, [0.8, 0.75], [DOG, CUP])
    assert targets_of(region, known=(DOG, ANIMAL, CUP))[0] == flags(ANIMAL, DOG, CUP).tolist()


def test_a_second_instance_that_overlaps_less_is_left_out():
    region = one_region(0, [0.8, 0.6], [DOG, CUP])
    targets, weights = targets_of(region, known=(DOG, ANIMAL, CUP))
    assert targets == flags(ANIMAL, DOG).tolist() and weights[CUP] == 0


@pytest.mark.parametrize(('iou', 'weight'), [(0.8, 0), (0.5, 0), (0.4, 1)])
def test_an_ignored_instance_in_the_same_place_is_left_out_and_never_positive(iou, weight):
    region = one_region(0, [0.8, iou], [DOG, CUP], ignored=[False, True])
    targets, weights = targets_of(region, known=(DOG, ANIMAL, CUP))
    assert targets == flags(ANIMAL, DOG).tolist() and weights[CUP] == weight


def test_a_region_on_an_ignored_instance_alone_is_left_to_the_assigner():
    region = one_region(-1, [0.8], [CUP], ignored=[True])
    targets, weights = targets_of(region, known=(CUP,))
    assert not any(targets) and weights[CUP] == 1


def test_a_region_matched_below_half_an_overlap_keeps_its_instance():
    region = one_region(0, [0.3], [CAT])  # low-quality matches, as an RPN's assigner makes them
    assert targets_of(region, known=(CAT, ANIMAL))[0] == flags(ANIMAL, CAT).tolist()


@pytest.mark.parametrize(('off', 'targets', 'weights'), [
    ('hierarchy', flags(DOG), {ANIMAL: 1, PUPPY: 0.5, CUP: 0, TOY: 0.5}),
    ('verified', flags(DOG, ANIMAL), {PUPPY: 0, CUP: 0, TOY: 1}),
    ('lost', flags(DOG, ANIMAL), {PUPPY: 0, CUP: 0.5, TOY: 0.5}),
])
def test_each_ingredient_can_be_switched_off_alone(off, targets, weights):
    found, found_weights = targets_of(one_region(0, [1.0], [DOG]), known=(DOG, ANIMAL),
                                      missing=(CUP,), unknown_on_objects=0.5, **{off: False})
    assert found == targets.tolist()
    assert {label: found_weights[label] for label in weights} == weights


def test_without_group_of_the_classes_of_a_group_are_background():
    covered = one_region(covered=[True], group_labels=[DOG])
    _, weights = targets_of(covered, known=(ANIMAL, DOG), group_of=False)
    assert weights[DOG] == 1 == weights[ANIMAL]


@pytest.mark.parametrize('name', ['unknown_on_objects', 'unknown_on_background', 'doubt'])
@pytest.mark.parametrize('value', [-0.1, 1.5])
def test_weights_outside_0_to_1_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        TargetRule(**{name: value})


# ------------------------------------------------------------------------------ scores and counts

def test_no_class_scores_less_than_its_descendants():
    scores = torch.tensor([[0.1, 0.2, 0.3, 0.9, 0.0, 0.5]])
    assert close_over_ancestors(scores, hierarchy())[0].tolist() == pytest.approx(
        [0.9, 0.2, 0.9, 0.9, 0.9, 0.5])
    assert scores[0, ANIMAL] == pytest.approx(0.1)  # the input stays


def test_leaves_share_with_what_they_exclude_and_parents_with_nobody():
    """Of equal odds: cat excludes dog, puppy, toy and cup; puppy only cat and cup; cup all five."""
    assert exclusive_shares(torch.full((1, C), 0.3), hierarchy())[0].tolist() == pytest.approx(
        [1, 1 / 5, 1, 1 / 3, 1, 1 / 6])


@given(st.lists(st.floats(-20, 20), min_size=C, max_size=C), st.floats(-90, 90))
def test_shares_are_by_odds_and_only_their_ratios_count(logits, shift):
    expected = [1.0] * C
    for leaf in (CAT, PUPPY, CUP):
        related = {leaf, *UP.get(leaf, ())}
        others = sum(math.exp(logits[c]) for c in range(C) if c not in related)
        expected[leaf] = math.exp(logits[leaf]) / (math.exp(logits[leaf]) + others)
    found = exclusive_shares(torch.tensor([logits]) + shift, hierarchy())[0]
    assert found.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_rare_classes_weigh_by_the_root_of_their_share_of_the_median():
    weights = tail_weights(torch.tensor([400, 100, 25, 0]))
    assert weights.tolist() == pytest.approx([1, 1, 0.5, 0])
    assert tail_weights(torch.zeros(3, dtype=torch.long)).tolist() == [1, 1, 1]


# ------------------------------------------------------------------------------ slow reference

def reference(regions, known, lost, scores, class_weights, rule):
    """The rule written class by class, in plain Python, in the order of the recipe's lines."""
    up = {label: {label, *UP.get(label, ())} if rule.hierarchy else {label} for label in range(C)}
    down = {label: {d for d in range(C) if label in up[d]} for label in range(C)}
    targets, weights = np.zeros((len(scores), C), bool), np.zeros((len(scores), C))
    for r in range(len(scores)):
        matched = int(regions.matched[r])
        own, second = set(), set()
        if matched >= 0:
            best = float(regions.ious[r, matched])
            own = {matched}
            for g, iou in enumerate(regions.ious[r].tolist()):
                if rule.shared and iou >= 0.5 and g != matched:
                    # the same float32 product as the rule's
                    good = iou >= float(np.float32(0.9) * np.float32(best))
                    (own if good and not regions.ignored[g] else second).add(g)
        positive = {c for g in own for c in up[int(regions.labels[g])]}
        for c in range(C):
            if c in positive:
                targets[r, c], weights[r, c] = True, 1
                continue
            if any(c in down[int(regions.labels[g])] for g in own) and not (
                    rule.verified and known[c]):
                continue
            if any(c in up[int(regions.labels[g])] for g in second):
                continue
            if rule.group_of and any(
                    regions.covered[r, k] and (c in up[int(label)] or c in down[int(label)])
                    for k, label in enumerate(regions.group_labels)):
                continue
            if rule.lost and lost[c]:
                continue
            if not rule.verified or known[c]:
                weights[r, c] = 1
            elif matched >= 0:
                weights[r, c] = rule.unknown_on_objects
            elif scores[r, c] <= rule.doubt:
                weights[r, c] = rule.unknown_on_background * float(class_weights[c])
    return targets, weights


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, learnt, ignored, groups = (int(rng.integers(low, high)) for low, high in
                                      ((1, 6), (0, 4), (0, 3), (0, 3)))
    matched = rng.integers(-1, learnt, count) if learnt else np.full(count, -1)
    instances = learnt + ignored
    levels = [0, 0.25, 0.45, 0.5, 0.55, 0.6, 0.9, 1.0]
    regions = Regions(
        torch.from_numpy(matched),
        torch.tensor(rng.choice(levels, (count, instances)), dtype=torch.float32),
        torch.from_numpy(rng.integers(0, C, instances)),
        torch.from_numpy(rng.random((count, groups)) < 0.5),
        torch.from_numpy(rng.integers(0, C, groups)),
        torch.arange(instances) >= learnt)
    known, lost = rng.random(C) < 0.4, rng.random(C) < 0.2
    scores = torch.tensor(rng.choice([0.1, 0.5, 0.7], (count, C)), dtype=torch.float32)
    class_weights = torch.tensor(rng.choice([0.25, 1], C), dtype=torch.float32)
    rule = TargetRule(*(bool(flag) for flag in rng.random(4) < 0.7),
                      *(float(value) for value in rng.choice([0, 0.25, 0.5, 1], 2)),
                      shared=bool(rng.random() < 0.7))
    return regions, torch.from_numpy(known), torch.from_numpy(lost), scores, class_weights, rule


@given(cases(), cases())
def test_images_together_have_the_targets_of_each_alone(one, other):
    """Instances of the other image overlap nothing of the one; what is known is a region's own."""
    class_weights, rule = one[4:]
    alone = [class_targets(*case[:4], class_weights, hierarchy(), rule) for case in (one, other)]
    first, second = one[0], other[0]
    start = len(first.labels)
    together = Regions(
        torch.cat([first.matched, torch.where(second.matched >= 0, second.matched + start, -1)]),
        torch.block_diag(first.ious, second.ious), torch.cat([first.labels, second.labels]),
        torch.block_diag(first.covered, second.covered).bool(),
        torch.cat([first.group_labels, second.group_labels]),
        torch.cat([first.ignored, second.ignored]))
    known, lost = (torch.cat([case[n].expand(len(case[0].matched), -1) for case in (one, other)])
                   for n in (1, 2))
    found = class_targets(together, known, lost, torch.cat([one[3], other[3]]),
                          class_weights, hierarchy(), rule)
    for values, of_one, of_other in zip(found, *alone, strict=True):
        assert values.tolist() == [*of_one.tolist(), *of_other.tolist()]


@settings(max_examples=300)
@given(cases())
def test_targets_and_weights_equal_a_slow_reference(case):
    regions, known, lost, scores, class_weights, rule = case
    targets, weights = class_targets(regions, known, lost, scores, class_weights, hierarchy(), rule)
    expected, expected_weights = reference(*case)
    assert targets.tolist() == expected.tolist()
    np.testing.assert_allclose(weights.numpy(), expected_weights, rtol=1e-6)


def test_the_loss_has_the_rules_defaults_and_the_page_says_them():
    rule = TargetRule()
    assert FederatedLoss(C).rule == rule
    page = (REPOSITORY / 'docs' / 'recipe.md').read_text(encoding='utf-8')
    assert f'the region is of an object | no | {rule.unknown_on_objects:g} |' in page
    assert f'the region is background | no | {rule.unknown_on_background:g} ' in page
    assert f'0 where it scores more than {rule.doubt:g} |' in page
