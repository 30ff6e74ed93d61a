"""Views' detections become one set: turned back, fused on masks, scores averaged."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from projects.openimages.mm.models.merging_views import merge_views

HEIGHT, WIDTH = 6, 8
LEFT, TOP = np.zeros((2, HEIGHT, WIDTH), bool)
LEFT[0:4, 0:3] = True  # not the same when it is flipped
TOP[0:2, 2:8] = True
EMPTY = np.zeros((HEIGHT, WIDTH), bool)


def view(*found, flip=None):
    """A view in which (label, score, mask) are found; masks as they lie in the image."""
    masks = np.array([mask for *_, mask in found], bool).reshape(-1, HEIGHT, WIDTH)
    sides = {None: (), 'horizontal': (2,), 'vertical': (1,), 'diagonal': (1, 2)}[flip]
    sample = DetDataSample(metainfo={
        'ori_shape': (HEIGHT, WIDTH), 'flip': flip is not None, 'flip_direction': flip})
    sample.pred_instances = InstanceData(
        labels=torch.tensor([label for label, *_ in found], dtype=torch.long),
        scores=torch.tensor([score for _, score, _ in found]),
        masks=torch.from_numpy(np.flip(masks, sides).copy()), bboxes=torch.zeros(len(found), 4))
    return sample


def results(merged):
    found = merged.pred_instances
    return [(label, pytest.approx(score)) for label, score in
            zip(found.labels.tolist(), found.scores.tolist(), strict=True)]


@pytest.mark.parametrize('flip', ['horizontal', 'vertical', 'diagonal'])
def test_a_flipped_view_is_turned_back(flip):
    merged = merge_views([view((1, 0.8, LEFT)), view((1, 0.4, LEFT), flip=flip)])
    assert results(merged) == [(1, 0.6)]
    assert np.array_equal(merged.pred_instances.masks.to_ndarray()[0], LEFT)
    assert merged.pred_instances.bboxes.tolist() == [[0, 0, 3, 4]]


def test_what_one_view_lacks_counts_half():
    merged = merge_views([view((1, 0.8, LEFT)), view((1, 0.4, LEFT), (2, 0.9, TOP))])
    assert results(merged) == [(1, 0.6), (2, 0.45)]
    assert np.array_equal(merged.pred_instances.masks.to_ndarray(), [LEFT, TOP])


def test_classes_are_not_mixed():
    assert results(merge_views([view((1, 0.8, LEFT)), view((2, 0.4, LEFT))])) == [
        (1, 0.4), (2, 0.2)]


def test_the_best_are_kept():
    found = view((0, 0.2, LEFT), (1, 0.6, TOP), (2, 0.4, LEFT))
    assert results(merge_views([found], max_per_img=2)) == [(1, 0.6), (2, 0.4)]


@pytest.mark.parametrize('found', [(), ((0, 0.9, EMPTY),)])
def test_nothing_found_is_legal(found):
    merged = merge_views([view(*found), view()])
    assert results(merged) == [] and merged.pred_instances.masks.rles == []
    assert merged.pred_instances.bboxes.shape == (0, 4)
