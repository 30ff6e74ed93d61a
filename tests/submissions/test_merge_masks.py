"""Merging masks of several models in one class of an image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projects.openimages.common.errors import UserError
from projects.openimages.masks import rle_from_crop, rle_from_mask, rle_to_mask
from projects.openimages.submissions.merge_masks import METHODS, MergeOptions, fuse, merge_class

HEIGHT, WIDTH = 10, 20


def bar(x0, x1):
    """A mask of the columns from x0 to x1, 2 pixels high."""
    return rle_from_crop(np.ones((2, x1 - x0), bool), x0, 3, HEIGHT, WIDTH)


def columns(rle):
    xs = np.flatnonzero(rle_to_mask(rle).any(0))
    return (xs.min(), xs.max() + 1)


def merge(method, items, weights=(1, 1), **options):
    """``items``: (x0, x1, score, model)."""
    merged = merge_class([bar(x0, x1) for x0, x1, _, _ in items],
                         np.array([item[2] for item in items]),
                         np.array([item[3] for item in items]),
                         MergeOptions(method, weights, **options))
    return [(*columns(mask), pytest.approx(score))
            for mask, score in zip(merged.masks, merged.scores, strict=True)]


def test_nms_keeps_the_best_of_overlapping_masks_and_all_others():
    assert merge('nms', [(0, 10, 0.6, 0), (0, 9, 0.8, 1), (12, 20, 0.1, 0)]) == [
        (0, 9, 0.8), (12, 20, 0.1)]


def test_nms_leaves_out_at_exactly_the_threshold():
    assert merge('nms', [(0, 10, 0.8, 0), (0, 5, 0.6, 1)], iou_thr=0.5) == [(0, 10, 0.8)]
    assert len(merge('nms', [(0, 10, 0.8, 0), (0, 5, 0.6, 1)], iou_thr=0.51)) == 2


def test_soft_nms_lowers_scores_by_the_overlap():
    assert merge('soft-nms', [(0, 10, 0.8, 0), (0, 5, 0.6, 1), (15, 20, 0.5, 1)], sigma=0.5) == [
        (0, 10, 0.8), (15, 20, 0.5), (0, 5, 0.6 * np.exp(-0.5))]


def test_wbf_averages_scores_over_all_models_and_masks_by_score():
    assert merge('wbf', [(0, 10, 0.9, 0), (0, 8, 0.3, 1), (15, 20, 0.4, 1)]) == [
        (0, 10, 0.6), (15, 20, 0.2)]


def test_wbf_takes_a_models_best_where_it_has_several():
    assert merge('wbf', [(0, 10, 0.8, 0), (0, 9, 0.6, 0), (0, 8, 0.5, 0)], weights=(1,)) == [
        (0, 9, 0.8)]


def test_vote_needs_half_of_the_weights():
    items = [(0, 10, 0.9, 0), (0, 9, 0.5, 1), (12, 20, 0.9, 2)]
    assert merge('vote', items, weights=(1, 1, 1)) == [(0, 10, 0.7)]
    assert merge('vote', items, weights=(1, 1, 2)) == [(12, 20, 0.9), (0, 10, 0.7)]


def test_vote_gives_a_model_one_vote_however_often_it_is_there():
    items = [(0, 10, 0.9, 0), (0, 10, 0.8, 0), (0, 10, 0.7, 0), (0, 6, 0.6, 1), (0, 6, 0.5, 2)]
    assert merge('vote', items, weights=(1, 1, 1)) == [(0, 6, pytest.approx(2 / 3))]


@pytest.mark.parametrize('method', METHODS)
def test_weights_decide_between_models(method):
    items = [(0, 10, 0.6, 0), (0, 8, 0.5, 1)]
    assert merge(method, items, weights=(1, 3))[0][:2] == (0, 8)
    assert merge(method, items, weights=(3, 1))[0][:2] == (0, 10)


@pytest.mark.parametrize('method', METHODS)
def test_one_model_without_overlaps_stays_as_it_is(method):
    assert merge(method, [(0, 5, 0.25, 0), (6, 9, 0.75, 0)], weights=(1,)) == [
        (6, 9, 0.75), (0, 5, 0.25)]


@given(st.integers(0, 2**20), st.integers(1, 5), st.booleans())
def test_fused_pixels_are_those_with_half_of_the_weights(seed, count, weighted):
    random = np.random.default_rng(seed)
    masks = random.random((count, 6, 5)) < random.choice([0, 0.2, 0.5, 0.8, 1], (count, 1, 1))
    weights = random.integers(0, 5, count) / 4 if weighted else np.ones(count)
    share = weights if weights.any() else np.ones(count)
    expected = np.tensordot(share, masks, 1) >= share.sum() / 2
    fused = fuse([rle_from_mask(mask) for mask in masks], weights)
    assert fused == rle_from_mask(expected) if count > 1 else (rle_to_mask(fused) == masks).all()


@pytest.mark.parametrize(('options', 'message'), [
    ({'method': 'mean'}, "method 'mean', expected one of nms, soft-nms, wbf, vote"),
    ({'weights': (1, np.nan)}, 'weights 1 nan, expected finite numbers above 0'),
    ({'weights': (np.inf, 1)}, 'weights inf 1'),
    ({'weights': (2, -1)}, 'weights 2 -1'),
    ({'weights': (0, 0)}, 'weights 0 0'),
    ({'weights': (1e308, 1e308)}, 'weights 1e.308 1e.308'),
    ({'iou_thr': 0}, 'IoU threshold 0, expected above 0'),
    ({'iou_thr': 1.5}, 'IoU threshold 1.5'),
    ({'iou_thr': np.nan}, 'IoU threshold nan'),
    ({'sigma': 0}, 'sigma 0, expected a finite number above 0'),
    ({'sigma': np.nan}, 'sigma nan'),
    ({'sigma': np.inf}, 'sigma inf'),
])
def test_impossible_merge_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        MergeOptions(**{'method': 'nms', 'weights': (1, 1), **options})
