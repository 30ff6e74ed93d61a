"""The softmax of federated labels: cases one can check by eye, and plain cross-entropy."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from projects.openimages.mm.models.federated.losses import FederatedLoss, FederatedSoftmaxLoss
from projects.openimages.mm.models.federated.targets import Regions
from tests.mm.models.federated.test_targets import (
    ANIMAL,
    CAT,
    CUP,
    DOG,
    PUPPY,
    TOY,
    C,
    flags,
    hierarchy,
    one_region,
)

BACKGROUND = C


def loss_of(region, odds, known=(), lost=(), **rule) -> float:
    """The loss of one region by odds of outputs, {class or BACKGROUND: odds}, the others tiny."""
    loss = FederatedSoftmaxLoss(C, **rule)
    loss.set_training_classes(hierarchy().ancestors, torch.full((C,), 10))
    logits = torch.full((1, C + 1), -50.)
    for name, value in odds.items():
        logits[0, name] = math.log(value)
    return loss(logits, region, flags(*known)[None], flags(*lost)[None]).item()


def chance(right, others) -> float:
    """The loss that right odds have among others."""
    return pytest.approx(-math.log(right / (right + others)), abs=1e-5)


def on(label):
    return one_region(0, [1.0], [label])


def test_an_object_is_filed_under_its_class_and_not_under_its_ancestors():
    assert loss_of(on(CAT), {CAT: 2, ANIMAL: 3, CUP: 1, BACKGROUND: 4},
                   known=(CAT, ANIMAL)) == chance(2, 3 + 1 + 4)


def test_it_may_be_of_a_descendant_that_is_not_known():
    odds = {ANIMAL: 1, CAT: 2, DOG: 4, CUP: 8, BACKGROUND: 16}
    assert loss_of(on(ANIMAL), odds, known=(ANIMAL,)) == chance(1 + 2 + 4, 8 + 16)
    assert loss_of(on(ANIMAL), odds, known=(ANIMAL, DOG)) == chance(1 + 2, 4 + 8 + 16)
    assert loss_of(on(ANIMAL), odds, known=(ANIMAL,), hierarchy=False) == chance(1, 30)


def test_what_is_lost_is_not_there():
    assert loss_of(one_region(), {CUP: 5, CAT: 1, BACKGROUND: 2}, known=(CAT,),
                   lost=(CUP,)) == chance(2, 1)
    assert loss_of(one_region(), {CUP: 5, CAT: 1, BACKGROUND: 2}, known=(CAT, CUP)) == chance(2, 6)


def test_relatives_of_a_group_that_covers_the_region_are_not_there():
    region = one_region(covered=[True], group_labels=[DOG])
    known = (DOG, ANIMAL, CUP, PUPPY)
    odds = {DOG: 5, ANIMAL: 6, PUPPY: 7, CUP: 1, BACKGROUND: 2}
    assert loss_of(region, odds, known=known) == chance(2, 1)
    assert loss_of(region, odds, known=known, group_of=False) == chance(2, 19)


def test_an_unknown_class_weighs_little_on_background_and_fully_on_an_object():
    odds = {CUP: 2, TOY: 1, BACKGROUND: 4}
    assert loss_of(one_region(), odds, known=(TOY,)) == chance(4, 1 + 0.15 * 2)
    assert loss_of(one_region(), odds, known=(TOY,), unknown_on_background=0.5) == chance(4, 2)
    assert loss_of(on(TOY), odds, known=(TOY,)) == chance(1, 2 + 4)


def test_a_class_of_which_the_model_is_sure_is_left_out_on_background_where_it_is_unknown():
    odds = {CUP: 20, BACKGROUND: 4, TOY: 1}
    assert loss_of(one_region(), odds, known=(TOY,)) == chance(4, 1)
    assert loss_of(one_region(), odds, known=(TOY, CUP)) == chance(4, 21)


def test_of_two_instances_that_share_a_region_either_is_right():
    region = one_region(0, [1.0, 0.95], [CAT, CUP])
    odds = {CAT: 1, CUP: 2, TOY: 4, BACKGROUND: 8}
    assert loss_of(region, odds, known=(CAT, ANIMAL, CUP)) == chance(3, 12)
    assert loss_of(region, odds, known=(CAT, ANIMAL, CUP), shared=False) == chance(1, 14)


@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.integers(1, 8))
def test_with_every_rule_off_it_is_plain_cross_entropy(seed, objects, count):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(C, (objects,), generator=generator)
    matched = torch.randint(-1, objects, (count,), generator=generator)
    ious = torch.rand(count, objects, generator=generator)
    ious[matched >= 0, matched[matched >= 0]] = 0.7
    regions = Regions(matched, ious, labels, torch.zeros(count, 0, dtype=torch.bool),
                      torch.zeros(0, dtype=torch.long))
    logits = torch.randn(count, C + 1, generator=generator) * 3
    loss = FederatedSoftmaxLoss(C, hierarchy=False, verified=False, lost=False, group_of=False,
                                shared=False)
    loss.set_training_classes(hierarchy().ancestors, torch.full((C,), 10))
    filed = torch.where(matched >= 0, torch.cat([labels, labels.new_tensor([C])])[matched], C)
    found = loss(logits, regions, flags(CAT)[None], flags(DOG)[None])
    torch.testing.assert_close(found, F.cross_entropy(logits, filed))


def test_gradients_are_finite_where_classes_are_left_out():
    loss = FederatedSoftmaxLoss(C, unknown_on_background=0.)
    loss.set_training_classes(hierarchy().ancestors, torch.full((C,), 10))
    logits = torch.zeros(1, C + 1, requires_grad=True)
    loss(logits, one_region(), flags(CUP)[None], flags(CAT, ANIMAL)[None]).backward()
    assert logits.grad[0].tolist() == pytest.approx([0, 0, 0, 0, 0, 0.5, -0.5])


def test_a_class_scores_what_it_and_its_descendants_get():
    loss = FederatedSoftmaxLoss(C)
    loss.set_training_classes(hierarchy().ancestors, torch.full((C,), 10))
    chances = torch.tensor([[0.05, 0.1, 0.15, 0.2, 0.1, 0.1, 0.3]])
    scores = loss.get_activation(chances.log())[0].tolist()
    assert scores == pytest.approx([0.05 + 0.1 + 0.15 + 0.2, 0.1, 0.15 + 0.2, 0.2, 0.1 + 0.2, 0.1,
                                    0.3])
    alone = FederatedSoftmaxLoss(C, hierarchy=False)
    assert alone.get_activation(chances.log())[0].tolist() == pytest.approx(chances[0].tolist())


@pytest.mark.parametrize('kind', [FederatedSoftmaxLoss, FederatedLoss])
def test_scores_are_not_rounded_in_mixed_precision(kind):
    options = {} if kind is FederatedSoftmaxLoss else {'exclusive': True}
    loss = kind(C, **options)
    loss.set_training_classes(hierarchy().ancestors, torch.full((C,), 10))
    logits = torch.randn(200, loss.get_cls_channels(C), generator=torch.Generator().manual_seed(0))
    expected = loss.get_activation(logits)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(loss.get_activation(logits), expected)


def test_rare_unknown_classes_weigh_less_on_background():
    """Class CUP has a hundredth of the instances of the median: a tenth of the weight."""
    losses = []
    for count in (100, 1):
        loss = FederatedSoftmaxLoss(C, unknown_on_background=0.5)
        counts = torch.full((C,), 100)
        counts[CUP] = count
        loss.set_training_classes(hierarchy().ancestors, counts)
        logits = torch.full((1, C + 1), -50.)
        logits[0, CUP], logits[0, BACKGROUND] = math.log(1), math.log(4)
        losses.append(loss(logits, one_region(-1, [], []), flags()[None], flags()[None]).item())
    assert losses == [chance(4, 0.5), chance(4, 0.05)]


@pytest.mark.parametrize(('loss', 'outputs'), [(FederatedLoss, C), (FederatedSoftmaxLoss, C + 1)])
def test_accuracy_is_of_the_regions_with_an_object(loss, outputs):
    scores = F.one_hot(torch.tensor([CAT, DOG, CUP, CUP]), outputs).float()
    scores[:, C:] = 9.  # background is no class
    labels = torch.tensor([CAT, CAT, CUP, BACKGROUND])
    assert loss(C).get_accuracy(scores, labels)['acc_fg'].item() == pytest.approx(200 / 3)


def test_shares_of_sigmoids_are_refused():
    with pytest.raises(ValueError, match='exclusive is for sigmoids'):
        FederatedSoftmaxLoss(C, exclusive=True)
