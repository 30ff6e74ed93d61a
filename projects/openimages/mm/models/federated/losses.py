"""Classification losses for federated, hierarchical, long-tailed labels.

:class:`FederatedLoss` and :class:`FederatedSoftmaxLoss` are this project's; :class:`FedLoss` and
:class:`SigmoidEQLV2Loss` are what others use, for comparison. MMDetection's box heads learn
from a loss how many outputs it needs and how they become scores: ``custom_cls_channels``,
``get_cls_channels``, ``custom_activation``, ``get_activation``. (Its own ``EQLV2Loss`` does not
say, so its models are tested with a softmax; and its NMS drops the last column of the scores as
background, so one is always there.)

What is known of the classes, their hierarchy and frequencies, comes from the training data through
:class:`~projects.openimages.mm.engine.hooks.TrainingClassesHook`, and stays in the checkpoint.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.losses import EQLV2Loss, accuracy
from mmdet.registry import MODELS
from torch import Tensor, nn

from projects.openimages.common.errors import ConfigError, check_number
from projects.openimages.mm.models.federated.targets import (
    Hierarchy,
    Regions,
    TargetRule,
    class_targets,
    close_over_ancestors,
    exclusive_shares,
    own_classes,
    tail_weights,
)

PRIOR = 0.01
"""The score of every class before training, as in https://arxiv.org/abs/1708.02002."""

PRIOR_LOGIT = -math.log((1 - PRIOR) / PRIOR)


class _SigmoidLoss(nn.Module):
    """A sigmoid a class: C outputs, no background.

    Args:
        num_classes: C.
        loss_weight: a factor.
    """

    custom_cls_channels = True
    custom_activation = True
    custom_accuracy = True

    def __init__(self, num_classes: int, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.loss_weight = loss_weight
        self.register_buffer('ancestors', torch.zeros(num_classes, num_classes, dtype=torch.bool))
        self.register_buffer('class_counts', torch.zeros(num_classes, dtype=torch.long))
        self._is_set = False

    def set_training_classes(self, ancestors: Tensor, counts: Tensor) -> None:
        """Take over what the training data say of the classes.

        Args:
            ancestors: (C, C) bool, ``[c, a]`` is True where ``a`` is a proper ancestor of ``c``.
            counts: (C,) int64 training instances.

        Raises:
            ValueError: another number of classes.
        """
        if counts.shape != self.class_counts.shape:
            raise ConfigError(f'the data have {len(counts)} classes and {type(self).__name__} '
                              f'{self.num_classes}')
        self.ancestors.copy_(ancestors)
        self.class_counts.copy_(counts)

    def _check_set(self) -> None:
        self._is_set = self._is_set or bool(self.class_counts.any())  # asked until it is
        if not self._is_set:
            raise ConfigError(f'{type(self).__name__} does not know the training classes; add '
                              "custom_hooks=[dict(type='TrainingClassesHook')] to the config")

    def get_cls_channels(self, num_classes: int) -> int:
        """Outputs of the classifier."""
        if num_classes != self.num_classes:
            raise ConfigError(f'a box head of {num_classes} classes with a loss of '
                              f'{self.num_classes}')
        return num_classes

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """(R, C + 1) scores of (R, C) outputs, the last column 0 for the background."""
        return F.pad(cls_score.sigmoid(), (0, 1))

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Share of regions with an object whose class scores highest, in percent."""
        right = cls_score.argmax(dim=1) == labels  # never background, which has the last label
        on_object = labels < self.num_classes  # counted, not selected: a GPU would be waited for
        return {'acc_fg': 100 * right.sum() / on_object.sum().clamp(min=1)}


@MODELS.register_module()
class FederatedLoss(_SigmoidLoss):
    """Binary cross-entropy by :func:`class_targets`, summed over classes, averaged over regions.

    The sum is divided by the number of regions, never by the sum of weights: the less is known of
    an image, the less it has to say.

    Args:
        num_classes: C.
        hierarchy, verified, lost, group_of, unknown_on_objects, unknown_on_background, doubt,
            shared: as in :class:`TargetRule`.
        tail_power: rare unknown classes weigh ``(n / median n) ** tail_power`` on background; 0
            switches it off.
        exclusive: an object is of one leaf: at test a leaf's score is its sigmoid times its share
            among the classes that it excludes (:func:`exclusive_shares`).
        loss_weight: a factor.
    """

    def __init__(self, num_classes: int, *, hierarchy: bool = True, verified: bool = True,
                 lost: bool = True, group_of: bool = True, unknown_on_objects: float = 1.0,
                 unknown_on_background: float = 0.15, doubt: float = 0.5, shared: bool = True,
                 tail_power: float = 0.5, exclusive: bool = False,
                 loss_weight: float = 1.0) -> None:
        super().__init__(num_classes, loss_weight)
        self.rule = TargetRule(hierarchy, verified, lost, group_of, unknown_on_objects,
                               unknown_on_background, doubt, shared)
        check_number('tail_power', tail_power, 0)
        self.tail_power = tail_power
        self.exclusive = exclusive

    @property
    def hierarchy(self) -> Hierarchy:
        """The classes' hierarchy, whether the rule uses it or not."""
        return Hierarchy(self.ancestors)

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """(R, C + 1) scores; with the hierarchy no class scores less than its descendants."""
        scores = cls_score.sigmoid()
        if self.exclusive:
            scores = scores * exclusive_shares(cls_score, self.hierarchy)
        if self.rule.hierarchy:
            scores = close_over_ancestors(scores, self.hierarchy)
        return F.pad(scores, (0, 1))

    def forward(self, cls_score: Tensor, regions: Regions, known: Tensor, lost: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            cls_score: (R, C) outputs.
            regions: of all images.
            known, lost: (R, C) bool as in :class:`ImageClasses`, of each region's image.
        """
        self._check_set()
        targets, weights = self._targets(cls_score.detach().float().sigmoid(), regions, known, lost)
        losses = F.binary_cross_entropy_with_logits(cls_score.float(), targets.float(),
                                                    weights, reduction='sum')
        return self.loss_weight * losses / max(len(cls_score), 1)

    def _targets(self, scores: Tensor, regions: Regions, known: Tensor,
                 lost: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C) targets and weights, by :func:`class_targets`."""
        return class_targets(regions, known, lost, scores,
                             tail_weights(self.class_counts, self.tail_power), self.hierarchy,
                             self.rule)


@MODELS.register_module()
class FederatedSoftmaxLoss(FederatedLoss):
    """Softmax cross-entropy by the same rule: an object is filed under one class, or is none.

    There is an output for the background, and a class's own output means "this, and nothing more
    specific can be told". A region of an instance should be filed under its class or one of the
    descendants that it may well be of (:func:`own_classes`), whichever; a region of none, under
    background. In the denominator a class counts by its weight in :func:`class_targets`: one that
    is lost, or that a group covers, is not there; an unknown one on background is hardly there. At
    test a class's score is the sum of its own output's and its descendants'.

    With ``hierarchy``, ``verified``, ``lost``, ``group_of`` and ``shared`` off it is plain
    cross-entropy. Weights in a softmax's denominator are those of Seesaw and EQL
    (https://arxiv.org/abs/2008.10032, https://arxiv.org/abs/2003.05176).

    Args:
        num_classes: C.
        options: those of :class:`FederatedLoss` but ``exclusive``.
    """

    def __init__(self, num_classes: int, **options: Any) -> None:
        super().__init__(num_classes, **options)
        if self.exclusive:
            raise ConfigError('exclusive is for sigmoids; classes of a softmax exclude each other')

    def get_cls_channels(self, num_classes: int) -> int:
        """Outputs of the classifier: classes and background."""
        return super().get_cls_channels(num_classes) + 1

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """(R, C + 1) scores, the last column the background's."""
        chances = cls_score.float().softmax(dim=1)
        if not self.rule.hierarchy:
            return chances
        up = self.hierarchy.own_and_ancestors.to(chances)
        # Mixed precision would round the sums to 16 bits, and scores that are rounded tie.
        with torch.autocast(chances.device.type, enabled=False):
            return torch.cat([(chances[:, :-1] @ up).clamp(max=1), chances[:, -1:]], 1)

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Share of regions with an object whose class scores highest, in percent."""
        return super().get_accuracy(cls_score[:, :-1], labels)

    def forward(self, cls_score: Tensor, regions: Regions, known: Tensor, lost: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            cls_score: (R, C + 1) outputs.
            regions, known, lost: as in :class:`FederatedLoss`.
        """
        self._check_set()
        logits = cls_score.float()
        _, weights = self._targets(logits.detach().softmax(dim=1)[:, :-1], regions, known, lost)
        right = F.pad(own_classes(regions, known, self.hierarchy, self.rule), (0, 1))
        right[:, -1] = ~right.any(dim=1)
        weights = F.pad(weights, (0, 1), value=1.).masked_fill(right, 1.)
        weighed = logits + weights.log()
        losses = weighed.logsumexp(1) - weighed.masked_fill(~right, -torch.inf).logsumexp(1)
        return self.loss_weight * losses.sum() / max(len(cls_score), 1)


@MODELS.register_module()
class FedLoss(_SigmoidLoss):
    """Federated loss of CenterNet2: classes of the batch and some others, by a sigmoid each.

    In each step the classes of the batch's objects and further ones, drawn by frequency, make up
    ``num_sampled`` classes; the others have no say. Source: https://arxiv.org/abs/2103.07461. A
    class without training instances counts as if it had one, so that it is drawn at times and its
    scores fall.

    Outputs are taken as ``PRIOR_LOGIT`` less than they are, which is the source's bias before
    training, whatever head they come from. Without it hundreds of classes start at one half, and
    short trainings are spent on unlearning that.

    Args:
        num_classes: C.
        num_sampled: classes a step.
        power: classes are drawn in proportion to their training instances to this power.
        loss_weight: a factor.
    """

    def __init__(self, num_classes: int, num_sampled: int = 50, power: float = 0.5,
                 loss_weight: float = 1.0) -> None:
        super().__init__(num_classes, loss_weight)
        check_number('num_sampled', num_sampled, 1)
        check_number('power', power, 0)
        self.num_sampled = num_sampled
        self.power = power

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """(R, C + 1) scores of (R, C) outputs, the last column 0 for the background."""
        return super().get_activation(cls_score + PRIOR_LOGIT)

    def forward(self, cls_score: Tensor, labels: Tensor, weight: Tensor | None = None,
                avg_factor: float | None = None,
                reduction_override: str | None = None) -> Tensor:
        """The loss of (R, C) outputs for (R,) labels, C being background."""
        self._check_set()
        targets = F.one_hot(labels, self.num_classes + 1)[:, :-1].to(cls_score)
        losses = F.binary_cross_entropy_with_logits(cls_score + PRIOR_LOGIT, targets,
                                                    reduction='none')
        if weight is not None:
            losses = losses * weight[:, None]
        losses = losses[:, self._sampled(labels)].sum()
        return self.loss_weight * losses / max(len(cls_score), 1)

    def _sampled(self, labels: Tensor) -> Tensor:
        """(C,) bool: the classes that have a say in this step."""
        chosen = torch.zeros(self.num_classes + 1, dtype=torch.bool, device=labels.device)
        chosen[labels] = True
        chosen = chosen[:-1]
        chances = self.class_counts.clamp(min=1).float() ** self.power
        chances[chosen] = 0
        present = int(chosen.sum())
        wanted = min(self.num_sampled, self.num_classes) - present
        if wanted > 0:
            chosen[torch.multinomial(chances, wanted)] = True
        return chosen


@MODELS.register_module()
class SigmoidEQLV2Loss(EQLV2Loss):
    """MMDetection's ``EQLV2Loss``, tested as it is trained: by sigmoids and an objectness.

    The box head asks a loss with ``custom_cls_channels`` for its activation; the stock class does
    not have it and is tested with a softmax. Source: https://arxiv.org/abs/2012.08548.

    Args:
        options: those of ``EQLV2Loss``.
    """

    custom_cls_channels = True
    custom_activation = True
    custom_accuracy = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)

    def get_cls_channels(self, num_classes: int) -> int:
        """Outputs of the classifier: classes and objectness."""
        return self.get_channel_num(num_classes)

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Share of regions with an object whose class scores highest, in percent."""
        on_object = labels < self.num_classes
        return {'acc_fg': accuracy(cls_score[on_object, :-1], labels[on_object])}
