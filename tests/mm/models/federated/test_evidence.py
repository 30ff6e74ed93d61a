"""What the images of a batch say of their classes, and what sampled regions lie on."""

from types import SimpleNamespace

import torch

from projects.openimages.mm.models.federated.heads import collect_evidence
from projects.openimages.mm.models.federated.targets import Hierarchy
from tests.mm.models.federated.test_heads import (
    CAT,
    CUP,
    DOG,
    SIGMOIDS,
    ancestors,
    losses_of,
    sample,
    small_model,
)


def test_evidence_has_what_is_boxed_lost_and_grouped():
    one = sample((CAT, 5, 5, 30, 30, True),
                 ignored=[(CUP, (0, 0, 9, 9), True), (DOG, (40, 40, 60, 60), False)],
                 verified=[(CAT, 1)])
    other = sample(verified=[(DOG, 1), (CUP, 0)])
    evidence = collect_evidence([one, other], Hierarchy(ancestors()))
    assert evidence.labels.tolist() == [CAT, CUP, DOG] and evidence.images.tolist() == [0, 0, 0]
    assert evidence.group_of.tolist() == [False, True, False]
    assert evidence.ignored.tolist() == [False, True, True]
    assert evidence.known.tolist() == [[True, True, True, True], [False, False, False, True]]
    assert evidence.lost.tolist() == [[False] * 4, [True, False, True, False]]


def test_ignored_instances_of_no_stated_kind_count_as_groups():
    one = sample((CAT, 5, 5, 30, 30, True), ignored=[(CUP, (0, 0, 9, 9), False)])
    del one.ignored_instances.group_of
    evidence = collect_evidence([one, sample()], Hierarchy(ancestors()))
    assert evidence.group_of.tolist() == [False, True]


def regions_of(samples, *images):
    """Regions and their images; of each image the priors, and which instance the first are of."""
    evidence = collect_evidence(samples, Hierarchy(ancestors()))
    return evidence.regions([SimpleNamespace(
        pos_priors=torch.tensor(priors[:len(matched)]).reshape(-1, 4),
        neg_priors=torch.tensor(priors[len(matched):]).reshape(-1, 4),
        pos_assigned_gt_inds=torch.tensor(matched, dtype=torch.long))
        for priors, matched in images])


def test_a_group_covers_a_region_by_the_part_that_lies_in_it_not_by_overlap():
    """Of 8 x 8 pixels: inside, by half, by three eighths; the IoU with the group is small."""
    priors = [[8., 8, 16, 16], [28, 0, 36, 8], [29, 0, 37, 8]]
    regions, _ = regions_of([sample((CAT, 30, 30, 60, 60, True),
                                    ignored=[(CUP, (0, 0, 32, 32), True)])], (priors, []))
    assert regions.covered.tolist() == [[False, True], [False, True], [False, False]]
    assert regions.group_labels[1] == CUP
    assert regions.matched.tolist() == [-1, -1, -1] and not regions.ious.any()


def test_an_instance_of_another_image_is_nothing_to_a_region_in_its_place():
    box = [5., 5, 25, 25]
    samples = [sample((CAT, 5, 5, 25, 25, True), ignored=[(CUP, box, True)]), sample(),
               sample((DOG, 30, 30, 60, 60, True), (CUP, 5, 5, 25, 25, True))]
    regions, images = regions_of(samples, ([box, box], [0]), ([box], []),
                                 ([box, [30., 30, 60, 60], box], [1, 0]))
    assert images.tolist() == [0, 0, 1, 2, 2, 2]
    assert regions.labels.tolist() == [CAT, CUP, DOG, CUP]
    assert regions.matched.tolist() == [0, -1, -1, 3, 2, -1]
    assert regions.ious.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0],
                                     [0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert regions.covered.nonzero().tolist() == [[0, 1], [1, 1]]


def test_an_ignored_box_in_an_objects_place_is_none_of_its_negatives():
    def gradient(ignored_box, class_loss):
        model = small_model(**class_loss)
        losses_of(model, sample((CAT, 5, 5, 40, 40, True),
                                ignored=[(CUP, ignored_box, False)]))['loss_cls'].backward()
        return model.roi_head.bbox_head.fc_cls.weight.grad

    for class_loss in ({}, SIGMOIDS):
        near, far = (gradient(box, class_loss) for box in ((5, 5, 40, 38), (45, 45, 60, 60)))
        assert near[CUP].norm() < far[CUP].norm()
        assert near[CAT].norm() > 0


def test_regions_know_which_instances_are_ignored_and_groups_overlap_nothing_as_one():
    regions, _ = regions_of([sample(
        (CAT, 5, 5, 15, 15, True),
        ignored=[(CUP, (5, 5, 15, 15), True), (DOG, (20, 20, 30, 30), False)])],
        ([[5., 5, 15, 15], [20, 20, 30, 30]], [0]))
    assert regions.labels.tolist() == [CAT, CUP, DOG]
    assert regions.ignored.tolist() == [False, True, True]
    assert regions.ious.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert regions.covered.tolist() == [[False, True, False], [False, False, False]]


def test_a_class_whose_boxes_were_cropped_away_is_still_known():
    evidence = collect_evidence([sample(boxed=[CUP], verified=[(CUP, 1)])], Hierarchy(ancestors()))
    assert evidence.known[0, CUP] and not evidence.lost.any()


def test_a_region_hears_what_is_known_of_its_own_image():
    model, heard = small_model(), []
    model.roi_head.bbox_head.loss_cls.register_forward_pre_hook(
        lambda _, inputs: heard.append(inputs[2:]))
    losses_of(model, sample(verified=[(CUP, 0)]), sample(verified=[(DOG, 1)]))
    (known, lost), = heard
    half = len(known) // 2  # without an object each image gives as many regions
    assert known[:half, CUP].all() and not known[half:].any()
    assert lost[half:, DOG].all() and not lost[:half].any()
