"""The proposal network for a batch at once gives what MMDetection's gives image by image."""

import copy
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.dense_heads import RPNHead
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from projects.openimages.mm.models.batch_rpn import BatchRPNHead, draw
from tests.mm.operators import Operators

STRIDES = (8, 16, 32)
CANVAS = (64, 96)
TRAINING = {
    'assigner': {'type': 'IgnoreAwareAssigner', 'pos_iou_thr': 0.5, 'neg_iou_thr': 0.3,
                 'min_pos_iou': 0.3, 'match_low_quality': True},
    'sampler': {'type': 'RandomSampler', 'num': 64, 'pos_fraction': 0.5, 'neg_pos_ub': -1,
                'add_gt_as_proposals': False},
    'allowed_border': -1, 'pos_weight': -1, 'debug': False}
PROPOSING = {'nms_pre': 40, 'max_per_img': 30, 'min_bbox_size': 0,
             'nms': {'type': 'nms', 'iou_threshold': 0.7}}


def heads(options=(), training=(), proposing=()):
    """The stock head and this one with the same settings."""
    config = {'in_channels': 1, 'feat_channels': 1,
              'anchor_generator': {'type': 'AnchorGenerator', 'scales': [2],
                                   'ratios': [0.5, 1.0, 2.0], 'strides': list(STRIDES)},
              'loss_bbox': {'type': 'L1Loss', 'loss_weight': 1.0},
              'bbox_coder': {'type': 'DeltaXYWHBBoxCoder', 'target_stds': [0.5, 1, 0.25, 2]},
              'train_cfg': {**TRAINING, **dict(training)},
              'test_cfg': {**PROPOSING, **dict(proposing)}, **dict(options)}
    stock = RPNHead(**copy.deepcopy(ConfigDict(config)))
    if config['bbox_coder']['type'] == 'DeltaXYWHBBoxCoder':
        config['bbox_coder']['type'] = 'ResidentDeltaXYWHBBoxCoder'  # as with --fast
    return stock, BatchRPNHead(**copy.deepcopy(ConfigDict(config)))


def maps(images=3, channels=1, seed=0, device='cpu'):
    """Random outputs of a head for images on one canvas."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(CANVAS[0] // stride, CANVAS[1] // stride) for stride in STRIDES]
    return [[torch.randn(images, 3 * values, *size, generator=generator).to(device).requires_grad_()
             for size in sizes] for values in (channels, 4)]


# The second image is smaller than the canvas, and the last is without an object.
METAS = [{'img_shape': size, 'pad_shape': size, 'batch_input_shape': CANVAS,
          'scale_factor': (1., 1.)} for size in (CANVAS, (40, 50), (64, 80))]
OBJECTS = [[[4., 4., 30., 20.], [40., 10., 90., 60.]], [[10., 5., 40., 33.]], []]
IGNORED = [[[50., 30., 80., 60.]], [[0., 0., 16., 16.], [20., 20., 48., 38.]], []]


def instances(boxes, **more):
    boxes = torch.tensor(boxes).reshape(-1, 4)
    return InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long), **more)


def truth(device='cpu'):
    return ([instances(boxes).to(device) for boxes in OBJECTS],
            [instances(boxes, group_of=torch.arange(len(boxes)) % 2 == 0).to(device)
             for boxes in IGNORED])


def losses(head, outputs):
    """Both losses and their gradients."""
    torch.manual_seed(0)
    objects, ignored = truth(outputs[0][0].device)
    found = head.loss_by_feat(*outputs, objects, METAS, ignored)
    values = [sum(found[name]) for name in ('loss_rpn_cls', 'loss_rpn_bbox')]
    return values, torch.autograd.grad(sum(values), [level for part in outputs for level in part],
                                       allow_unused=True)


def watched(name):
    """Notes down calls of the stock head's method."""
    return mock.patch.object(RPNHead, name, autospec=True, side_effect=getattr(RPNHead, name))


def assert_same_losses(stock, ours, outputs, stock_way=False):
    with watched('loss_by_feat') as stock_calls:
        ours_found = losses(ours, outputs)
    assert stock_calls.called is stock_way
    for found, expected in zip(ours_found, losses(stock, outputs), strict=True):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


ALL = {**TRAINING['sampler'], 'num': 10_000}  # nothing is left to chance


@pytest.mark.parametrize('training', [
    {}, {'pos_weight': 3.0}, {'sampler': {**ALL, 'pos_fraction': 0.002}},
    {'assigner': {**TRAINING['assigner'], 'type': 'MaxIoUAssigner'}},
    {'assigner': {**TRAINING['assigner'], 'min_pos_iou': 0.0, 'match_low_quality': True}}])
def test_losses_and_gradients_are_the_stock_heads_where_every_anchor_is_drawn(training):
    stock, ours = heads(training={'sampler': ALL, **training})
    assert ours._learns
    if 'sampler' in training:  # more positives than may be drawn: of these the count is the same
        stock, ours = (losses(head, maps())[0] for head in (stock, ours))
        assert stock[0] > 0 and abs(ours[0] / stock[0] - 1) < 0.2
        return
    assert_same_losses(stock, ours, maps())


def test_an_anchor_beside_a_smaller_image_is_nobodys():
    """The object's best lies there, on the canvas that a larger image asks for; the next has it."""
    generator = {'type': 'AnchorGenerator', 'scales': [1], 'ratios': [1.0], 'strides': [32]}
    outputs = [[torch.randn(2, values, 2, 3, requires_grad=True)] for values in (1, 4)]
    metas = [METAS[0], {**METAS[1], 'img_shape': (40, 60), 'pad_shape': (40, 60)}]
    objects = [instances([[16., 16., 48., 48.]]), instances([[40., 0., 60., 16.]])]
    assigner = {**TRAINING['assigner'], 'min_pos_iou': 0.1}
    found = []
    for head in heads({'anchor_generator': generator}, {'sampler': ALL, 'assigner': assigner}):
        parts = head.loss_by_feat(*outputs, objects, metas)
        found.append([sum(part) for part in parts.values()])
    torch.testing.assert_close(*found)


def test_a_gradient_reaches_what_was_drawn_alone():
    _, ours = heads()
    scores = torch.cat([grad.flatten() for grad in losses(ours, maps())[1][:3]])
    assert 0 < (scores != 0).sum() <= 3 * 64


@pytest.mark.parametrize('unusual', [
    {'training': {'allowed_border': 0}},
    {'options': {'loss_cls': {'type': 'FocalLoss', 'use_sigmoid': True}}},
    {'options': {'loss_cls': {'type': 'CrossEntropyLoss'}}},  # a softmax of two
    {'options': {'loss_bbox': {'type': 'BalancedL1Loss'}}},
    {'options': {'bbox_coder': {'type': 'LegacyDeltaXYWHBBoxCoder'}}},
    {'options': {'reg_decoded_bbox': True, 'loss_bbox': {'type': 'IoULoss'}}},
    {'training': {'sampler': {**ALL, 'neg_pos_ub': 3}}}])
def test_unusual_settings_take_the_stock_way(unusual):
    training = {'sampler': ALL, **unusual.get('training', {})}
    stock, ours = heads(unusual.get('options', ()), training)
    assert_same_losses(stock, ours, maps(channels=stock.cls_out_channels), stock_way=True)


def test_what_is_drawn_was_to_be_drawn_and_everything_equally_often():
    among = torch.tensor([[True, False, True, True, True], [False, False, True, False, False],
                          [False] * 5])
    counts = torch.zeros(3, 5)
    torch.manual_seed(0)
    for _ in range(2000):
        index, valid = draw(torch.rand(3, 5), among, 2)
        assert valid.sum(1).tolist() == [2, 1, 0]
        assert len(set(index[0].tolist())) == 2
        for row in range(3):
            counts[row, index[row, valid[row]]] += 1
    assert (counts[0] - torch.tensor([1000, 0, 1000, 1000, 1000])).abs().max() < 100
    assert counts[1].tolist() == [0, 0, 2000, 0, 0]


def test_half_of_the_anchors_are_positive_at_most_and_background_fills_up():
    _, ours = heads()
    assigned = torch.zeros(2, 500, dtype=torch.long)
    assigned[0, :200] = 3
    assigned[1, :10] = 1
    assigned[:, 400:] = -1
    positive, negative = ours._sample(assigned)
    assert positive.valid.sum(1).tolist() == [32, 10]
    assert negative.valid.sum(1).tolist() == [32, 54]
    for drawn, expected in ((positive, lambda a: a > 0), (negative, lambda a: a == 0)):
        assert expected(assigned.gather(1, drawn.index)[drawn.valid]).all()


def proposals(head, outputs, **options):
    return head.predict_by_feat(*outputs, batch_img_metas=METAS, **options)


def assert_same_proposals(stock, ours, outputs, stock_way=False, **options):
    with watched('predict_by_feat') as stock_calls:
        found = proposals(ours, outputs, **options)
    assert stock_calls.called is stock_way
    for one, other in zip(found, proposals(stock, outputs, **options), strict=True):
        assert len(one) == len(other)
        for key in ('bboxes', 'scores', 'labels'):
            torch.testing.assert_close(one[key], other[key], rtol=0, atol=1e-5,
                                       check_dtype=len(other) > 0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**30), nms_pre=st.sampled_from([-1, 5, 40]),
       least=st.sampled_from([-1, 0, 12]), most=st.sampled_from([3, 30]),
       threshold=st.sampled_from([0.3, 0.7]))
def test_proposals_are_the_stock_heads(seed, nms_pre, least, most, threshold):
    proposing = {'nms_pre': nms_pre, 'min_bbox_size': least, 'max_per_img': most,
                 'nms': {'type': 'nms', 'iou_threshold': threshold}}
    assert_same_proposals(*heads(proposing=proposing), maps(seed=seed))


def test_where_no_proposal_is_large_enough_there_is_none():
    stock, ours = heads(proposing={'min_bbox_size': 1000})
    assert_same_proposals(stock, ours, maps())
    assert [len(one) for one in proposals(ours, maps())] == [0, 0, 0]


@pytest.mark.parametrize('proposing', [
    {'nms': {'type': 'nms', 'iou_threshold': 0.7, 'split_thr': 20}},
    {'nms': {'type': 'nms', 'iou_threshold': 0.7, 'class_agnostic': True}},
    {'nms': {'type': 'soft_nms', 'iou_threshold': 0.7}}, {'nms': None}])
def test_proposals_of_unusual_settings_are_the_stock_heads(proposing):
    assert_same_proposals(*heads(proposing=proposing), maps(), stock_way=True)


def test_proposals_on_the_scale_of_the_files_are_the_stock_heads():
    assert_same_proposals(*heads(), maps(), stock_way=True, rescale=True)


def test_anchors_are_kept_for_few_sizes():
    _, ours = heads()
    kept = ours.anchors([(8, 12), (4, 6), (2, 3)], torch.device('cpu'))
    assert ours.anchors([(8, 12), (4, 6), (2, 3)], torch.device('cpu')) is kept
    for width in range(1, 40):
        ours.anchors([(8, width), (4, width), (2, width)], torch.device('cpu'))
    assert len(ours._anchors_of) == 16
    assert not list(ours.buffers()), 'they belong to no checkpoint'


def test_a_batch_takes_few_operations_and_its_losses_wait_for_none():
    """Counted, for they are what a GPU waits for."""
    counts = []
    for head in heads():
        outputs = maps(images=8)
        objects, ignored = ([part[0]] * 8 for part in truth())
        for _ in range(2):  # anchors are kept from the first
            with Operators() as operators:
                head.loss_by_feat(*outputs, objects, METAS[:1] * 8, ignored)
                waiting = operators.waiting
                head.predict_by_feat(*outputs, batch_img_metas=METAS[:1] * 8)
        counts.append(len(operators.names))
    assert not waiting, waiting
    assert counts[1] < counts[0] / 2.5, counts
