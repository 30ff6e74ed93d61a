"""What each class should say of each region, where labels are incomplete and in a hierarchy.

In: the instances, group-of boxes and verified labels of images, and the regions that were sampled
in them. Out: for every region and class a target, 0 or 1, and a weight of its loss. Plain tensors;
nothing here knows of MMDetection.

Open Images says of an image only what people verified: some classes are present and boxed, some
are present but nobody boxed them, some are absent, and of the rest nothing is known; and it names
an object by the most specific class that was verified. So for a region, by the classes of its
image (:class:`ImageClasses`) and by the instance it was matched to:

- the matched class and its ancestors are targets of 1;
- the matched class's descendants are left out unless they are known in the image: the object may
  well be one of them;
- known classes are targets of 0 with full weight: boxed ones, whose other instances all have
  boxes, and ones verified absent, which people rejected after a classifier had proposed them, so
  they are hard negatives;
- lost classes, present but without a box, are left out everywhere;
- a class of which a group-of box covers the region by half is left out, with its relatives;
- unknown classes are targets of 0 with little weight: most of them are absent, some are not.

Sources: the data set's own description
(https://storage.googleapis.com/openimages/web/factsfigures_v7.html), federated losses as in
CenterNet2 (https://arxiv.org/abs/2103.07461), hierarchical targets as in UniDet
(https://arxiv.org/abs/2102.13086).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from projects.openimages.common.errors import check_number

SAME_IOU = 0.5
"""A region with this IoU or more with an instance is a region of that instance."""

TIE = 0.9
"""Instances whose IoU with a region is at least this part of the best one's share the region."""

COVERED = 0.5
"""The part of a region inside a group-of box from which it may be one of the group."""


@dataclass(frozen=True)
class Hierarchy:
    """Who is above and below whom, for C classes.

    Attributes:
        ancestors: (C, C) bool, ``[c, a]`` is True where ``a`` is a proper ancestor of ``c``.
    """

    ancestors: Tensor

    @property
    def own_and_ancestors(self) -> Tensor:
        """(C, C) bool: each class's own column and its ancestors'."""
        eye = torch.eye(len(self.ancestors), dtype=torch.bool, device=self.ancestors.device)
        return self.ancestors | eye

    @property
    def descendants(self) -> Tensor:
        """(C, C) bool, ``[c, d]`` is True where ``d`` is a proper descendant of ``c``."""
        return self.ancestors.t()

    @property
    def relatives(self) -> Tensor:
        """(C, C) bool: each class's own column, its ancestors' and its descendants'."""
        return self.own_and_ancestors | self.descendants


@dataclass(frozen=True)
class ImageClasses:
    """What is known of the classes of B images.

    Attributes:
        known: (B, C) bool, boxed or absent: what has no box in the image is not there.
        lost: (B, C) bool, present and not boxed: could be anywhere.
    """

    known: Tensor
    lost: Tensor

    @classmethod
    def collect(cls, boxed: Tensor, present: Tensor, absent: Tensor,
                hierarchy: Hierarchy) -> ImageClasses:
        """The sets of a batch, expanded over the hierarchy as rule 1 of the challenge asks.

        Args:
            boxed: (B, C) bool, the labels of all boxes of an image, group-of ones and those without
                a mask too.
            present, absent: (B, C) bool, labels verified present and verified absent.
            hierarchy: the classes'.
        """
        up = hierarchy.own_and_ancestors
        has_box = _any_of(boxed, up)
        there = _any_of(present, up)
        gone = _any_of(absent, up.t()) & ~has_box & ~there
        return cls(has_box | gone, there & ~has_box)


@dataclass(frozen=True)
class Regions:
    """R regions of an image, or of several, and what they lie on.

    Attributes:
        matched: (R,) int64, the instance that a region was matched to, or -1 for background.
        ious: (R, G) with each of G instances, 0 with those of other images.
        labels: (G,) int64 of the instances.
        covered: (R, K) bool, where one of K group-of boxes of its image covers a region.
        group_labels: (K,) int64.
        ignored: (G,) bool, instances that no region is matched to, for they have no mask or are of
            a class left out; without it there are none.
    """

    matched: Tensor
    ious: Tensor
    labels: Tensor
    covered: Tensor
    group_labels: Tensor
    ignored: Tensor | None = None


@dataclass(frozen=True)
class TargetRule:
    """Which evidence counts, and how much.

    Attributes:
        hierarchy: ancestors are targets of 1 and unknown descendants are left out; without it each
            class stands alone.
        verified: what is not known in an image weighs less; without it everything counts fully.
        lost: lost classes are left out; without it they are unknown like others.
        group_of: classes of a group-of box that covers the region are left out.
        unknown_on_objects: weight of unknown classes on a region of an object.
        unknown_on_background: weight of unknown classes elsewhere.
        doubt: a background region that scores more than this for an unknown class has no say.
        shared: a region is also of other instances with about the same place; without it, of the
            one that it was matched to alone, and others on it are negatives like any class.
    """

    hierarchy: bool = True
    verified: bool = True
    lost: bool = True
    group_of: bool = True
    unknown_on_objects: float = 1.0
    unknown_on_background: float = 0.15
    doubt: float = 0.5
    shared: bool = True

    def __post_init__(self) -> None:
        for name in ('unknown_on_objects', 'unknown_on_background', 'doubt'):
            check_number(name, getattr(self, name), 0, 1)


def class_targets(regions: Regions, known: Tensor, lost: Tensor, scores: Tensor,
                  class_weights: Tensor, hierarchy: Hierarchy,
                  rule: TargetRule) -> tuple[Tensor, Tensor]:
    """Targets and weights of regions.

    Args:
        regions: of one image or of several.
        known, lost: (C,) bool, the image's rows of :class:`ImageClasses`, or (R, C), those of each
            region's image.
        scores: (R, C) what the model says now, 0 to 1; not differentiated.
        class_weights: (C,) 0 to 1, further weights of unknown classes on background.
        hierarchy: the classes'.
        rule: what counts.

    Returns:
        ``targets`` (R, C) bool and ``weights`` (R, C) of the scores' type.
    """
    if not rule.hierarchy:
        hierarchy = Hierarchy(torch.zeros_like(hierarchy.ancestors))
    same, near = _shared(regions, rule)
    up = hierarchy.own_and_ancestors[regions.labels]
    targets = _any_of(same, up)
    left_out = _any_of(near, up)  # as good a match as another, so perhaps that one's
    below = _any_of(same, hierarchy.descendants[regions.labels])
    left_out |= below & ~known if rule.verified else below
    if rule.group_of:
        left_out |= _any_of(regions.covered, hierarchy.relatives[regions.group_labels])
    if rule.lost:
        left_out |= lost
    weights = torch.ones_like(scores)
    if rule.verified:
        weights = _weights(scores, regions.matched >= 0, known, class_weights, rule)
    weights = torch.where(targets, 1., torch.where(left_out, 0., weights))
    return targets, weights


def own_classes(regions: Regions, known: Tensor, hierarchy: Hierarchy,
                rule: TargetRule) -> Tensor:
    """(R, C) bool: the classes one of which an object on a region is filed under, if it has any.

    Those of the instances that the region is of and, for the object may well be one of them, their
    descendants that are not known in the image. Not their ancestors: whoever can name a leaf does.

    Args:
        regions, known, hierarchy, rule: as in :func:`class_targets`.
    """
    same, _ = _shared(regions, rule)
    own = torch.eye(len(hierarchy.ancestors), dtype=torch.bool, device=known.device)[regions.labels]
    found = _any_of(same, own)
    if not rule.hierarchy:
        return found
    below = _any_of(same, hierarchy.descendants[regions.labels])
    return found | (below & ~known if rule.verified else below)


def _shared(regions: Regions, rule: TargetRule) -> tuple[Tensor, Tensor]:
    """(R, G) bool: instances that a region is of, and others that it also overlaps by half."""
    rows = torch.arange(len(regions.matched), device=regions.matched.device)
    on_object = regions.matched >= 0
    if not regions.ious.shape[1]:
        nothing = regions.ious > 0
        return nothing, nothing
    chosen = regions.matched.clamp(min=0)
    if not rule.shared:
        same = torch.zeros_like(regions.ious, dtype=torch.bool)
        same[rows, chosen] = on_object
        return same, torch.zeros_like(same)
    best = regions.ious[rows, chosen]
    overlapping = (regions.ious >= SAME_IOU) & on_object[:, None]
    same = overlapping & (regions.ious >= TIE * best[:, None])
    if regions.ignored is not None:
        same &= ~regions.ignored
    same[rows, chosen] = on_object
    return same, overlapping & ~same


def _any_of(chosen: Tensor, classes: Tensor) -> Tensor:
    """(R, C) bool: classes (G, C) of any of the chosen (R, G)."""
    return (chosen.float() @ classes.float()) > 0


def _weights(scores: Tensor, on_object: Tensor, known: Tensor, class_weights: Tensor,
             rule: TargetRule) -> Tensor:
    background = rule.unknown_on_background * class_weights * (scores <= rule.doubt)
    unknown = torch.where(on_object[:, None], rule.unknown_on_objects, background)
    return torch.where(known, 1., unknown).to(scores.dtype)


def tail_weights(counts: Tensor, power: float = 0.5) -> Tensor:
    """(C,) weights ``min(1, (n / median n) ** power)``: rare classes are pushed down less.

    Args:
        counts: (C,) training instances of each class; the median is over classes that have any.
    """
    counts = counts.float()
    median = torch.where(counts > 0, counts, torch.nan).nanmedian()
    return torch.where(median.isnan(), 1., (counts / median).clamp(max=1) ** power)


def exclusive_shares(logits: Tensor, hierarchy: Hierarchy) -> Tensor:
    """(R, C) each leaf's part of its odds and those of all classes that it excludes; parents' 1.

    Sigmoids say of each class by itself how likely it is. But an object that is an apple is neither
    a pear nor a vehicle; of classes that exclude each other the likelier ones leave less to the
    others. A class excludes all that are neither above nor below it.

    Args:
        logits: (R, C) of the sigmoids.
        hierarchy: the classes'.
    """
    logits = logits.float()
    odds = (logits - logits.amax(dim=1, keepdim=True)).exp()  # only their ratios count
    with torch.autocast(odds.device.type, enabled=False):  # 16 bits would make scores tie
        excluded = odds @ (~hierarchy.relatives).to(odds).t()
    return torch.where(hierarchy.ancestors.any(dim=0), 1., odds / (odds + excluded))


def close_over_ancestors(scores: Tensor, hierarchy: Hierarchy) -> Tensor:
    """(R, C) scores where no class scores less than one of its descendants.

    Each detection of a leaf then stands for its ancestors too, on the same region, so it is not
    repeated for them afterwards.
    """
    closed = scores.clone()
    for ancestor in hierarchy.ancestors.any(dim=0).nonzero().flatten().tolist():
        below = hierarchy.ancestors[:, ancestor]
        closed[:, ancestor] = torch.maximum(scores[:, ancestor], scores[:, below].amax(dim=1))
    return closed
