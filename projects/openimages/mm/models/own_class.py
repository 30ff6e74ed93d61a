"""A mask head's last convolution, for the classes that are asked for only.

The loss of ``FCNMaskHead`` reads one of C maps of a region, that of its object's class. The other
C - 1 are computed, kept, and given a gradient of zeros: with 300 classes and maps of 28 x 28 that
is 0.9 MB a region, twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from projects.openimages.common.errors import ConfigError


@MODELS.register_module()
class OwnClassConv2d(nn.Conv2d):
    """``nn.Conv2d`` of kernel size 1 that computes no channel in training before it is asked for.

    Takes the same arguments and loads the same weights. Where there is one channel only it gives a
    tensor, as ever.

    Args:
        in_tests: in a test, too, which a CPU notices. Masks then equal the stock ones but for
            pixels that are on the threshold up to rounding. Not for detectors that average the maps
            of several heads (cascades).
    """

    def __init__(self, *args: Any, in_tests: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self.in_tests = in_tests

    def forward(self, features: Tensor) -> Tensor | ClassLogits:
        """(P, D, m, m) features to (P, C, m, m) logits, maybe as a :class:`ClassLogits`."""
        if self.out_channels > 1 and (self.training or self.in_tests):
            return ClassLogits(features, self)
        return super().forward(features)


class ClassLogits:
    """Stands for a (P, C, m, m) tensor of logits, of which single channels are computed.

    Offers what detectors do with these, and fails on everything else.

    Args:
        features: (P, D, m, m).
        conv: of kernel size 1, from D to C channels, with a bias.
    """

    def __init__(self, features: Tensor, conv: nn.Conv2d) -> None:
        self._features, self._conv = features, conv
        self.shape = torch.Size([len(features), conv.out_channels, *features.shape[2:]])

    def size(self, dim: int | None = None) -> torch.Size | int:
        """As a tensor's."""
        return self.shape if dim is None else self.shape[dim]

    def split(self, counts: Sequence[int], dim: int = 0) -> list[ClassLogits]:
        """Those of each image of a batch, by their numbers of regions."""
        if dim:
            raise ValueError(f'dimension {dim}, expected that of the regions')
        return [ClassLogits(part, self._conv) for part in self._features.split(counts)]

    def sigmoid(self) -> Tensor:
        """What cascades ask for, to average their heads' maps of all classes.

        Raises:
            ConfigError: always.
        """
        raise ConfigError('mask_head.predictor_cfg.in_tests is not for detectors that average the '
                          'mask maps of several heads')

    def of(self, labels: Tensor) -> Tensor:
        """(P, m, m) float32 logits of one class a region, (P,) int64.

        Equal to indexing all of them, and so are the gradients, up to rounding.
        """
        weights = self._conv.weight.flatten(1)[labels]
        biases = self._conv.bias[labels, None, None]
        logits = torch.baddbmm(biases, weights[:, None], self._features.flatten(2))
        return logits.view(len(labels), *self.shape[2:]).float()

    def __getitem__(self, key: tuple) -> Tensor:
        """Logits at ``[regions, labels]``, two sequences of numbers of the same length."""
        regions, labels = (torch.as_tensor(part, device=self._features.device) for part in key)
        return ClassLogits(self._features[regions], self._conv).of(labels)
