"""Regression targets equal MMDetection's, bit by bit, and nothing is sent for them."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.structures.bbox import HorizontalBoxes

from projects.openimages.mm.models.coders import ResidentDeltaXYWHBBoxCoder
from tests.mm.operators import Operators

SETTINGS = {'target_means': (0., 0.1, 0.2, 0.), 'target_stds': (0.1, 0.1, 0.2, 0.3)}


def boxes(generator, shape):
    corner = torch.rand(*shape, 2, generator=generator) * 500
    return torch.cat([corner, corner + torch.rand(*shape, 2, generator=generator) * 300 + 1], -1)


@given(st.integers(0, 2**32 - 1), st.sampled_from([(0,), (1,), (7,), (2, 3)]))
def test_targets_are_the_stock_coders(seed, shape):
    generator = torch.Generator().manual_seed(seed)
    pair = boxes(generator, shape), boxes(generator, shape)
    expected = DeltaXYWHBBoxCoder(**SETTINGS).encode(*pair)
    coder = ResidentDeltaXYWHBBoxCoder(**SETTINGS)
    assert torch.equal(coder.encode(*pair), expected)
    assert torch.equal(coder.encode(*(HorizontalBoxes(one) for one in pair)), expected)


def test_the_second_batch_sends_nothing():
    coder, pair = ResidentDeltaXYWHBBoxCoder(), torch.tensor([[[0., 0, 10, 20]], [[5., 5, 25, 25]]])
    found = []
    for waiting in (1, 0):
        with Operators() as operators:
            found.append(coder.encode(*pair))
        assert operators.waiting.total() == waiting
    assert torch.equal(*found)
    assert found[0].tolist() == [[1, 0.25, torch.tensor(2.).log(), 0]]
