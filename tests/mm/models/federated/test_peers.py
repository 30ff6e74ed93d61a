"""The losses that others use: cases one can check by eye."""

import math

import pytest
import torch
import torch.nn.functional as F

from projects.openimages.mm.models.federated.losses import PRIOR, FedLoss, SigmoidEQLV2Loss

C = 4
BACKGROUND = C


def fed_loss(counts=(100, 100, 100, 100), **options) -> FedLoss:
    loss = FedLoss(C, **options)
    loss.set_training_classes(torch.zeros(C, C, dtype=torch.bool), torch.tensor(counts))
    return loss


def test_federated_scores_start_low_and_background_has_no_column_of_its_own():
    scores = fed_loss().get_activation(torch.zeros(2, C))
    assert scores[:, :C].flatten().tolist() == pytest.approx([PRIOR] * 2 * C)
    assert scores[:, C].tolist() == [0, 0]


def test_federated_loss_is_the_mean_over_regions_of_what_its_classes_lose():
    """Before training, of two regions: one of class 1, one of background, all classes drawn."""
    found = fed_loss(num_sampled=C)(torch.zeros(2, C), torch.tensor([1, BACKGROUND]))
    expected = (-math.log(PRIOR) - (C - 1) * math.log(1 - PRIOR) - C * math.log(1 - PRIOR)) / 2
    assert found.item() == pytest.approx(expected)


def test_only_classes_that_were_drawn_have_a_say_and_those_of_the_batch_always():
    torch.manual_seed(0)
    counts = torch.zeros(C)
    for _ in range(400):
        logits = torch.zeros(3, C, requires_grad=True)
        fed_loss((1, 10_000, 1, 100), num_sampled=2)(
            logits, torch.tensor([0, 0, BACKGROUND])).backward()
        counts += logits.grad.any(dim=0)
    assert counts[0] == 400 and counts.sum() == 800  # the batch's one and one more
    # in proportion to the roots 100, 1 and 10 of their frequencies
    assert (counts[1:] / 400 - torch.tensor([100., 1., 10.]) / 111).abs().max() < 0.06


def test_a_class_without_an_instance_is_drawn_at_times_so_that_its_scores_fall():
    torch.manual_seed(0)
    logits = torch.zeros(1, C, requires_grad=True)
    for _ in range(100):
        fed_loss((0, 1, 1, 1), num_sampled=2)(logits, torch.tensor([BACKGROUND])).backward()
    assert (logits.grad > 0).all()


def test_more_classes_than_are_wanted_in_a_batch_all_have_a_say():
    logits = torch.zeros(3, C, requires_grad=True)
    fed_loss(num_sampled=1)(logits, torch.tensor([0, 1, 2])).backward()
    assert logits.grad.any(dim=0).tolist() == [True, True, True, False]


@pytest.mark.parametrize(('name', 'value', 'least'), [
    ('num_sampled', 0, 1), ('num_sampled', -3, 1), ('power', -1., 0)])
def test_settings_that_mean_nothing_are_refused(name, value, least):
    with pytest.raises(ValueError, match=f'{name} must be {least} or more, got {value}'):
        FedLoss(C, **{name: value})


def test_federated_loss_learns_classes_apart_in_few_steps():
    torch.manual_seed(0)
    features = F.one_hot(torch.arange(C + 1)).float()
    layer = torch.nn.Linear(C + 1, C)
    loss, optimizer = fed_loss(num_sampled=3), torch.optim.Adam(layer.parameters(), lr=0.2)
    for _ in range(100):
        optimizer.zero_grad()
        loss(layer(features), torch.arange(C + 1)).backward()
        optimizer.step()
    scores = loss.get_activation(layer(features))
    assert scores[:C, :C].argmax(1).tolist() == list(range(C))
    assert scores[:C].amax(1).min() > 0.5 > scores[C].max()


def test_equalization_loss_is_tested_by_sigmoids_and_its_objectness():
    loss = SigmoidEQLV2Loss(num_classes=C)
    assert loss.get_cls_channels(C) == C + 1
    logits = torch.tensor([[0., 2., -2., 0., 0.], [0., 2., -2., 0., 5.]])
    scores = loss.get_activation(logits.clone())
    expected = logits[:, :C].sigmoid() * (1 - logits[:, C:].sigmoid())
    torch.testing.assert_close(scores[:, :C], expected)


def test_equalization_loss_weighs_rewards_of_a_class_that_gets_few_up():
    """After steps in which class 0 was pushed down alone, its negatives weigh less."""
    loss = SigmoidEQLV2Loss(num_classes=C)
    labels = torch.tensor([1, 1, 1, BACKGROUND])
    for _ in range(20):
        loss(torch.zeros(4, C + 1), labels)
    logits = torch.zeros(2, C + 1, requires_grad=True)
    loss(logits, torch.tensor([0, 1])).backward()
    rare, frequent = logits.grad[0, 0], logits.grad[1, 1]
    assert rare < frequent < 0  # a reward
    assert 0 < logits.grad[1, 0] < logits.grad[1, 4]  # less of a penalty than the objectness has
