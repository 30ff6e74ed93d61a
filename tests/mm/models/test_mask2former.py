"""Queries on ignored instances have no say in Mask2Former's classification; others keep theirs."""

import pytest
import torch
from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.structures.mask import mask2bbox
from mmengine.structures import InstanceData

from projects.openimages.mm.models.assigners import IgnoreRule
from projects.openimages.mm.models.mask2former import IgnoreAwareMask2FormerHead, mask_boxes

BACKGROUND = 2


@pytest.fixture
def head(monkeypatch):
    """A head of 2 classes; its stock part takes the labels from the scores."""
    monkeypatch.setattr(
        Mask2FormerHead, '_get_targets_single',
        lambda self, cls_score, *_: (cls_score, torch.ones(len(cls_score)), 'masks', 'weights'))
    head = IgnoreAwareMask2FormerHead.__new__(IgnoreAwareMask2FormerHead)
    torch.nn.Module.__init__(head)
    head.num_classes, head.ignore_rule = BACKGROUND, IgnoreRule(0.5)
    return head


def weights(head, labels, boxes, ignored=None, group_of=False):
    """Of queries whose masks fill boxes of an image of 64 x 96, seen at a quarter of its size."""
    masks = torch.full((len(boxes), 16, 24), -1.)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1 // 4:y2 // 4, x1 // 4:x2 // 4] = 1
    meta = {'batch_input_shape': (64, 96)}
    if ignored:
        meta['ignored'] = InstanceData(bboxes=torch.tensor([ignored]).float(),
                                       group_of=torch.tensor([group_of]))
    result = head._get_targets_single(torch.tensor(labels), masks, InstanceData(), meta)
    assert result[0].tolist() == labels and result[2:] == ('masks', 'weights')
    return result[1].tolist()


OBJECT, THERE, INSIDE, FAR, EMPTY = ((0, 0, 16, 16), (32, 32, 64, 64), (40, 40, 48, 48),
                                     (80, 0, 96, 16), (0, 0, 0, 0))
QUERIES = (OBJECT, THERE, INSIDE, FAR, EMPTY)
LABELS = [1, *[BACKGROUND] * 4]


def test_background_on_a_box_without_a_mask_has_no_weight(head):
    assert weights(head, LABELS, QUERIES, THERE) == [1, 0, 1, 1, 1]


def test_background_inside_a_group_has_no_weight(head):
    assert weights(head, LABELS, QUERIES, THERE, group_of=True) == [1, 0, 0, 1, 1]


def test_an_object_on_an_ignored_instance_is_learnt(head):
    assert weights(head, LABELS, QUERIES, OBJECT) == [1] * 5


def test_without_ignored_instances_all_have_a_say(head):
    assert weights(head, LABELS, QUERIES) == [1] * 5


def test_boxes_of_masks_are_those_of_mmdetection():
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(40, 7, 9, generator=generator) > torch.linspace(0.5, 1, 40)[:, None, None]
    assert not masks[-1].any() and masks[0].any()
    assert torch.equal(mask_boxes(masks).float(), mask2bbox(masks))
