import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet.models.task_modules.assigners import (
    AssignResult,
    BaseAssigner,
    BboxOverlaps2D,
    MaxIoUAssigner,
)
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from projects.openimages.mm.models.assigners import (
    IgnoreAwareAdapter,
    IgnoreAwareAssigner,
    PairOverlaps,
)
from tests.mm.operators import Operators

NEGATIVE, UNUSED = 0, -1


def assign(priors, objects=(), ignored=(), group_of=None, **options):
    """gt_inds of the priors: 0 background, n the n-th object, -1 unused."""
    assigner = IgnoreAwareAssigner(**{'pos_iou_thr': 0.5, 'neg_iou_thr': 0.5, 'min_pos_iou': 0.5,
                                      **options})
    instances = InstanceData(bboxes=torch.tensor(objects, dtype=torch.float).reshape(-1, 4),
                             labels=torch.zeros(len(objects), dtype=torch.long))
    rest = InstanceData(bboxes=torch.tensor(ignored, dtype=torch.float).reshape(-1, 4))
    if group_of is not None:
        rest.group_of = torch.tensor(group_of)
    result = assigner.assign(InstanceData(priors=torch.tensor(priors, dtype=torch.float)),
                             instances, rest)
    return result.gt_inds.tolist()


OBJECT, FAR, MASKLESS = [0, 0, 10, 10], [80, 80, 90, 90], [40, 40, 60, 60]


def test_proposal_on_a_box_without_mask_is_not_a_negative():
    assert assign([OBJECT, MASKLESS, FAR], [OBJECT], [MASKLESS], [False]) == [1, UNUSED, NEGATIVE]


def test_image_with_ignored_boxes_only_is_not_all_background():
    assert assign([MASKLESS, FAR], [], [MASKLESS], [False]) == [UNUSED, NEGATIVE]


def test_proposal_inside_a_group_is_not_a_negative():
    inside = [42, 42, 47, 47]
    assert assign([inside, FAR], [OBJECT], [MASKLESS], [True]) == [UNUSED, NEGATIVE]


def test_proposal_inside_a_box_without_mask_is_background_unless_it_matches_the_box():
    inside, close = [42, 42, 47, 47], [40, 40, 60, 52]
    assert assign([inside, close], [OBJECT], [MASKLESS], [False]) == [NEGATIVE, UNUSED]


def test_object_inside_an_ignored_box_is_still_learnt():
    inside = [45, 45, 50, 50]
    assert assign([inside], [inside], [MASKLESS], [True]) == [1]


def test_without_the_flag_every_ignored_box_counts_as_a_group():
    assert assign([[42, 42, 47, 47]], [OBJECT], [MASKLESS]) == [UNUSED]


def test_low_quality_match_of_the_rpn_stays_positive_on_an_ignored_box():
    anchor, target = [40, 40, 60, 60], [40, 40, 60, 48]  # IoU 0.4
    options = {'pos_iou_thr': 0.7, 'neg_iou_thr': 0.3, 'min_pos_iou': 0.3}
    assert assign([anchor], [target], [MASKLESS], [False], **options) == [1]


@pytest.mark.parametrize('options', [{'ignore_thr': 0}, {'ignore_thr': 1.5},
                                     {'ignore_iof_thr': 0.5}])
def test_thresholds_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match='ignore'):
        assign([OBJECT], **options)


def test_groups_are_background_to_the_assigner_where_the_loss_knows_their_classes():
    inside = [42, 42, 47, 47]
    assert assign([inside], [OBJECT], [MASKLESS], [True], ignore_group_of=False) == [NEGATIVE]
    both = assign([inside, FAR], [OBJECT], [MASKLESS, FAR], [True, False], ignore_group_of=False)
    assert both == [NEGATIVE, UNUSED]


def test_groups_cannot_be_told_apart_without_the_flag():
    with pytest.raises(ValueError, match='group_of'):
        assign([OBJECT], [OBJECT], [MASKLESS], ignore_group_of=False)


class EverythingIsBackground(BaseAssigner):
    """An assigner that knows nothing; it must not be handed ignored instances."""

    def assign(self, pred_instances, gt_instances, gt_instances_ignore=None, **options):
        assert gt_instances_ignore is None
        count = len(pred_instances)
        return AssignResult(len(gt_instances), torch.zeros(count, dtype=torch.long),
                            torch.zeros(count), torch.zeros(count, dtype=torch.long))


def adapted(predictions, group_of):
    if 'EverythingIsBackground' not in TASK_UTILS:
        TASK_UTILS.register_module(module=EverythingIsBackground)
    assigner = IgnoreAwareAdapter({'type': 'EverythingIsBackground'})
    ignored = InstanceData(bboxes=torch.tensor([MASKLESS]).float(),
                           group_of=torch.tensor([group_of]))
    return assigner.assign(predictions, InstanceData(), ignored).gt_inds.tolist()


def test_any_assigner_can_be_made_to_respect_ignored_instances():
    inside, close = [42, 42, 47, 47], [40, 40, 60, 52]
    priors = InstanceData(priors=torch.tensor([inside, close, FAR]).float())
    assert adapted(priors, True) == [UNUSED, UNUSED, NEGATIVE]
    assert adapted(priors, False) == [NEGATIVE, UNUSED, NEGATIVE]


def test_where_priors_are_points_the_predicted_box_counts():
    points = InstanceData(priors=torch.tensor([[50., 50, 8, 8], [50, 50, 8, 8]]),
                          bboxes=torch.tensor([MASKLESS, FAR]).float())
    assert adapted(points, False) == [UNUSED, NEGATIVE]


def test_a_point_without_a_predicted_box_counts_as_a_pixel():
    points = InstanceData(priors=torch.tensor([[50., 50, 8], [70, 70, 8]]))
    assert adapted(points, True) == [UNUSED, NEGATIVE]
    assert adapted(points, False) == [NEGATIVE, NEGATIVE]


@pytest.mark.parametrize('by_name', [False, True])
def test_an_assigner_may_have_its_arguments_in_another_order(by_name):
    """ATSS's has the number of priors of each level before the objects."""
    assigner = TASK_UTILS.build({'type': 'IgnoreAwareAdapter', 'assigner': {
        'type': 'ATSSAssigner', 'topk': 3}})
    priors = InstanceData(priors=torch.tensor([OBJECT, MASKLESS, FAR]).float())
    objects = InstanceData(bboxes=torch.tensor([OBJECT]).float(), labels=torch.tensor([2]))
    ignored = InstanceData(bboxes=torch.tensor([MASKLESS]).float(),
                           group_of=torch.tensor([False]))
    if by_name:
        result = assigner.assign(pred_instances=priors, num_level_priors=[3],
                                 gt_instances=objects, gt_instances_ignore=ignored)
    else:
        result = assigner.assign(priors, [3], objects, ignored)
    assert result.gt_inds.tolist() == [1, UNUSED, NEGATIVE]


def test_rtmdets_own_assigner_keeps_its_objects():
    assigner = TASK_UTILS.build({'type': 'IgnoreAwareAdapter', 'assigner': {
        'type': 'DynamicSoftLabelAssigner', 'topk': 1}})
    boxes = torch.tensor([OBJECT, MASKLESS, FAR]).float()
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    predictions = InstanceData(priors=torch.cat([centres, torch.full((3, 2), 8.)], 1),
                               bboxes=boxes, scores=torch.zeros(3, 4))
    objects = InstanceData(bboxes=boxes[:1], labels=torch.tensor([2]))
    ignored = InstanceData(bboxes=torch.tensor([MASKLESS, OBJECT]).float(),
                           group_of=torch.tensor([False, True]))
    assert assigner.assign(predictions, objects, ignored).gt_inds.tolist() == [1, UNUSED, NEGATIVE]


@given(st.data(), st.integers(0, 5), st.integers(0, 12), st.booleans(), st.booleans(),
       st.sampled_from([0.3, 0.5, (0.1, 0.4)]), st.sampled_from([0., 0.3, 0.5]))
def test_the_same_as_the_stock_assigner_whatever_the_overlaps(data, objects, priors, low_quality,
                                                              all_best, negative, least):
    # Tenths: many equal each other and the thresholds.
    values = data.draw(st.lists(st.sampled_from([-0.1, 0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1]),
                                min_size=objects * priors, max_size=objects * priors))
    overlaps = torch.tensor(values, dtype=torch.float).reshape(objects, priors)
    labels = torch.arange(10, 10 + objects)
    options = {'pos_iou_thr': 0.5, 'neg_iou_thr': negative, 'min_pos_iou': least,
               'match_low_quality': low_quality, 'gt_max_assign_all': all_best}
    stock, ours = (assigner(**options).assign_wrt_overlaps(overlaps.clone(), labels)
                   for assigner in (MaxIoUAssigner, IgnoreAwareAssigner))
    assert ours.num_gts == stock.num_gts
    for name in ('gt_inds', 'max_overlaps', 'labels'):
        left, right = getattr(ours, name), getattr(stock, name)
        assert left.dtype == right.dtype and torch.equal(left, right), name


@pytest.mark.parametrize(('kind', 'waits'), [(MaxIoUAssigner, True), (IgnoreAwareAssigner, False)])
def test_nothing_waits_for_the_device(kind, waits):
    assigner = kind(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3)
    boxes = torch.rand(40, 2).repeat(1, 2) + torch.tensor([0, 0, 0.5, 0.5])
    found, ignored = InstanceData(bboxes=boxes[:3], labels=torch.arange(3)), InstanceData(
        bboxes=boxes[3:5], group_of=torch.tensor([True, False]))
    with Operators() as operators:
        assigner.assign(InstanceData(priors=boxes), found, ignored)
    assert bool(operators.waiting) is waits


@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.integers(0, 6),
       st.sampled_from(['iou', 'iof']), st.sampled_from([1, 1000]))
def test_overlaps_are_the_very_numbers_of_mmdetections(seed, count, others, mode, scale):
    generator = torch.Generator().manual_seed(seed)
    boxes = (torch.rand(count + others, 4, generator=generator) * 4).round() / 4 * scale
    boxes, others = HorizontalBoxes(boxes[:count]), boxes[count:]  # some of them without area
    stock = BboxOverlaps2D()(boxes, others, mode=mode)
    assert torch.equal(PairOverlaps()(boxes, others, mode=mode), stock)


def test_other_overlaps_are_left_to_mmdetection():
    boxes, others = torch.rand(3, 4), torch.rand(3, 4)
    for options in ({'mode': 'giou'}, {'is_aligned': True}):
        stock = BboxOverlaps2D()(boxes, others, **options)
        assert torch.equal(PairOverlaps()(boxes, others, **options), stock)
