"""Masks of every kind for property tests."""

import numpy as np
from hypothesis import strategies as st

SIDES = st.integers(1, 40)


def random_masks(seed: int, count: int, height: int, width: int) -> np.ndarray:
    """(N, H, W) uint8: in turn noise, blocks, full, empty, and a rectangle with a hole."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, height, width), np.uint8)
    for mask in masks:
        kind = rng.integers(5)
        if kind == 0:
            mask[:] = rng.random((height, width)) < rng.random()
        elif kind == 1:
            coarse = rng.random((height // 5 + 1, width // 5 + 1)) < 0.6
            mask[:] = np.kron(coarse, np.ones((5, 5), bool))[:height, :width]
        elif kind == 2:
            mask[:] = 1
        elif kind == 3:
            top, bottom = np.sort(rng.integers(0, height + 1, 2))
            left, right = np.sort(rng.integers(0, width + 1, 2))
            mask[top:bottom, left:right] = 1
            mask[(top + bottom) // 2:bottom - 1, (left + right) // 2:right - 1] = 0
    return masks


@st.composite
def masks_of_one_size(draw, least: int = 0, most: int = 4) -> np.ndarray:
    """(N, H, W) uint8, small."""
    return random_masks(draw(st.integers(0, 2**32 - 1)), draw(st.integers(least, most)),
                        draw(SIDES), draw(SIDES))
