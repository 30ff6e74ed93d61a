"""Some classes of a hierarchy: what the others say of them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from projects.openimages.labels import LabelSpace
from projects.openimages.mm.datasets.kept_classes import KeptClasses
from projects.openimages.mm.models.federated.targets import (
    Hierarchy,
    Regions,
    TargetRule,
    class_targets,
)

# animal > (cat, dog > puppy), toy > (puppy): puppy has two parents; and a lone cup.
NAMES = ANIMAL, CAT, DOG, PUPPY, TOY, CUP = range(6)
UP = {CAT: (ANIMAL,), DOG: (ANIMAL,), PUPPY: (ANIMAL, DOG, TOY)}


def space() -> LabelSpace:
    matrix = np.zeros((6, 6), bool)
    for label, above in UP.items():
        matrix[label, list(above)] = True
    return LabelSpace(tuple(f'/m/0{n}' for n in NAMES), tuple(map(str, NAMES)), matrix)


@pytest.mark.parametrize(('chosen', 'expected'), [
    (NAMES, [(0,), (1,), (2,), (3,), (4,), (5,)]),
    ((DOG, ANIMAL), [(1,), (1,), (0,), (0,), (), ()]),  # a puppy is a dog before it is an animal
    ((TOY, ANIMAL, CUP), [(1,), (1,), (1,), (0, 1), (0,), (2,)]),
    ((CUP, TOY, DOG), [(), (), (2,), (1, 2), (1,), (0,)]),
    ((PUPPY, CAT), [(), (1,), (), (0,), (), ()])])
def test_an_object_is_filed_under_its_own_class_or_the_nearest_ancestors_kept(chosen, expected):
    assert KeptClasses(space(), chosen).nearest == expected


def test_present_says_what_is_above_and_absent_what_is_below():
    kept = KeptClasses(space(), (TOY, PUPPY, ANIMAL))
    assert kept.verified(np.array([DOG, CUP]), np.array([1, 0])).tolist() == [[2, 1]]
    assert kept.verified(np.array([DOG, CUP]), np.array([0, 1])).tolist() == [[1, 0]]
    assert kept.verified(np.array([CAT, ANIMAL]), np.array([1, 1])).tolist() == [[2, 1]]
    assert kept.verified(np.array([], int), np.array([], int)).shape == (0, 2)
    assert kept.boxed(np.array([CAT, PUPPY])).tolist() == [1, 2]


@given(st.permutations(NAMES), st.integers(1, 6), st.lists(st.sampled_from(NAMES), max_size=4),
       st.integers(0, 2**32 - 1))
def test_chosen_classes_learn_of_an_object_what_they_learn_among_all(order, size, others, seed):
    """One object of a kept class, and others, each in its place or not: the same column each."""
    whole, chosen, rng = space(), order[:size], np.random.default_rng(seed)
    kept = KeptClasses(whole, chosen)
    objects = [chosen[0], *others]
    ious = [1.0, *rng.choice([0.4, 0.7], len(others))]

    def targets(labels, hierarchy, of_object, known):
        rows = [(label, iou, n > 0) for n, (one, iou) in enumerate(zip(objects, ious, strict=True))
                for label in of_object(one)]
        regions = Regions(
            torch.tensor([0]), torch.tensor([[iou for _, iou, _ in rows]]),
            torch.tensor([label for label, _, _ in rows]), torch.zeros(1, 0, dtype=torch.bool),
            torch.zeros(0, dtype=torch.long), torch.tensor([ignored for *_, ignored in rows]))
        return class_targets(
            regions, torch.tensor(known), torch.zeros(labels, dtype=torch.bool),
            torch.zeros(1, labels), torch.ones(labels), Hierarchy(torch.tensor(hierarchy)),
            TargetRule())

    known = rng.random(6) < 0.5
    of_all = targets(6, whole.ancestor_matrix, lambda one: [one], known.tolist())
    of_chosen = targets(size, whole.ancestor_matrix[np.ix_(chosen, chosen)],
                        lambda one: kept.nearest[one], known[chosen].tolist())
    for some, everything in zip(of_chosen, of_all, strict=True):
        assert some[0].tolist() == everything[0, chosen].tolist()
