"""Mask-less instances, start scores, closed scores and what a GPU is asked, on small models."""

import math

import numpy as np
import pytest
import torch
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

from projects.openimages.common.errors import ConfigError
from projects.openimages.mm.engine.config import build_model, load_config
from tests.helpers import REPOSITORY
from tests.mm.operators import Operators

# animal > (cat, dog); and a lone cup.
ANIMAL, CAT, DOG, CUP = range(4)
SIZE = 64


LOSS_TYPE = 'model.roi_head.bbox_head.loss_cls.type'
SIGMOIDS = {LOSS_TYPE: 'FederatedLoss'}

def ancestors() -> torch.Tensor:
    matrix = torch.zeros(4, 4, dtype=torch.bool)
    matrix[[CAT, DOG], ANIMAL] = True
    return matrix


def sample(*objects, ignored=(), verified=(), boxed=()) -> DetDataSample:
    """Objects: ``(label, x1, y1, x2, y2, has_mask)``; ignored: ``(label, box, group_of)``."""
    masks = np.zeros((len(objects), SIZE, SIZE), np.uint8)
    for n, (_, x1, y1, x2, y2, has_mask) in enumerate(objects):
        masks[n, y1:y2, x1:x2] = has_mask
    result = DetDataSample(metainfo={
        'img_shape': (SIZE, SIZE), 'ori_shape': (SIZE, SIZE), 'pad_shape': (SIZE, SIZE),
        'batch_input_shape': (SIZE, SIZE), 'scale_factor': (1., 1.),
        'verified_labels': np.array(verified, np.int64).reshape(-1, 2),
        'boxed_labels': np.array(boxed, np.int64)})
    result.gt_instances = InstanceData(
        labels=torch.tensor([item[0] for item in objects], dtype=torch.long),
        bboxes=torch.tensor([item[1:5] for item in objects], dtype=torch.float32).reshape(-1, 4),
        masks=BitmapMasks(masks, SIZE, SIZE),
        has_mask=torch.tensor([bool(item[5]) for item in objects], dtype=torch.bool))
    result.ignored_instances = InstanceData(
        labels=torch.tensor([item[0] for item in ignored], dtype=torch.long),
        bboxes=torch.tensor([item[1] for item in ignored], dtype=torch.float32).reshape(-1, 4),
        group_of=torch.tensor([item[2] for item in ignored], dtype=torch.bool))
    return result


def small_model(name='oi_mask_rcnn_r50_federated_demo.py', **changes):
    return with_classes(load_config(REPOSITORY / 'configs' / name, {'num_classes': 4, **changes}))


def with_classes(cfg):
    """The model, which knows its training classes."""
    torch.manual_seed(0)
    model = build_model(cfg)
    model.init_weights()
    for part in model.modules():
        if hasattr(part, 'set_training_classes'):
            part.set_training_classes(ancestors(), torch.tensor([30, 10, 20, 5]))
    return model


def losses_of(model, *samples):
    model.train()
    device = next(model.parameters()).device
    images = torch.rand(len(samples), 3, SIZE, SIZE).to(device)
    return model.loss(images, [sample.to(device) for sample in samples])


def test_a_batch_without_an_object_has_no_accuracy():
    assert 'acc_fg' not in losses_of(small_model(), sample(verified=[(CUP, 0)]))


def test_the_recipe_asks_a_gpu_for_little_more_than_the_stock_heads_do():
    """Counted, for a GPU that is asked has nothing to do until its answer has come."""
    counts = []
    samples = [sample((CAT, 5, 5, 40, 40, True), (CUP, 45, 45, 62, 62, False),
                      ignored=[(CUP, (0, 0, 9, 9), True), (DOG, (40, 40, 60, 60), False)],
                      verified=[(CUP, 1), (DOG, 0)], boxed=[CAT]) for _ in range(8)]
    for name in ('oi_mask_rcnn_r50_demo.py', 'oi_mask_rcnn_r50_federated_demo.py'):
        model = small_model(name)
        losses_of(model, *samples)
        with Operators() as operators:
            losses_of(model, *samples)
        counts.append((operators.waiting.total(), len(operators.names)))
    (stock, operations), (recipe, more_operations) = counts
    sent_meanwhile = 7  # look as if they were waited for
    assert recipe <= stock + sent_meanwhile
    assert more_operations < operations + 400  # image by image it is 1,500


def test_every_sigmoid_starts_at_the_prior():
    head = small_model(**SIGMOIDS).roi_head.bbox_head
    scores = head.fc_cls(torch.zeros(1, head.fc_cls.in_features)).sigmoid()
    assert scores[0].tolist() == pytest.approx([0.01] * 4)


def test_instances_without_a_mask_train_class_and_box_but_no_mask():
    model = small_model()
    losses = losses_of(model, sample((CAT, 5, 5, 40, 40, False)),
                       sample((DOG, 8, 8, 50, 50, False)))
    assert losses['loss_mask'] == 0
    (losses['loss_cls'] + losses['loss_bbox']).backward()
    assert model.roi_head.bbox_head.fc_cls.weight.grad.abs().sum() > 0
    assert losses['loss_bbox'] > 0


def test_an_instance_with_a_mask_beside_one_without_trains_its_mask_alone():
    model = small_model()
    both = [sample((CAT, 5, 5, 40, 40, True), (CUP, 45, 45, 62, 62, False))]
    seen = []
    model.roi_head.mask_head.register_forward_pre_hook(
        lambda head, args: seen.append(len(args[0])))
    losses = losses_of(model, *both)
    assert losses['loss_mask'] > 0
    with_cup = sum(seen)
    seen.clear()
    losses_of(model, sample((CAT, 5, 5, 40, 40, True), (CUP, 45, 45, 62, 62, True)))
    assert with_cup < sum(seen)


def test_masks_learn_from_their_own_features_where_boxes_and_masks_share_them():
    model = small_model(**{'model.roi_head.mask_roi_extractor': None,
                           'model.train_cfg.rcnn.mask_size': 14})
    assert model.roi_head.share_roi_extractor
    one = sample((DOG, 40, 40, 60, 60, False), (CAT, 5, 5, 30, 30, True))
    seen = []
    model.roi_head.mask_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    result = SamplingResult.random(num_gts=1, num_preds=1)
    result.pos_assigned_gt_inds = torch.tensor([1, 0, 1])
    for name in ('pos_inds', 'pos_is_gt'):
        setattr(result, name, torch.zeros(3, dtype=torch.long))
    result.pos_gt_bboxes = one.gt_instances.bboxes[result.pos_assigned_gt_inds]
    result.pos_gt_labels = one.gt_instances.labels[result.pos_assigned_gt_inds]
    result.pos_priors, result.neg_priors = result.pos_gt_bboxes, torch.rand(2, 4)
    result.neg_inds = torch.zeros(2, dtype=torch.long)
    channels = model.roi_head.mask_head.in_channels
    features = torch.arange(10.).view(10, 1, 1, 1).expand(-1, channels, 7, 7)
    model.roi_head.mask_loss((), [result, result], features, [one.gt_instances] * 2)
    assert seen[0][:, 0, 0, 0].tolist() == [0, 2, 5, 7]
    assert losses_of(model, one)['loss_mask'] > 0


def test_a_lost_class_gets_no_gradient():
    def gradient(**evidence):
        model = small_model()
        losses_of(model, sample((CAT, 5, 5, 40, 40, True), **evidence))['loss_cls'].backward()
        return model.roi_head.bbox_head.fc_cls.bias.grad[CUP]

    assert gradient(verified=[(CUP, 1)]) == 0
    assert gradient() > 0
    assert gradient(verified=[(CUP, 0)]) > 4 * gradient()


def test_the_loss_says_what_is_missing_without_the_training_classes():
    cfg = load_config(REPOSITORY / 'configs/oi_mask_rcnn_r50_federated_demo.py',
                      {'num_classes': 4})
    model = build_model(cfg)
    with pytest.raises(ConfigError, match='TrainingClassesHook'):
        losses_of(model, sample((CAT, 5, 5, 40, 40, True)))


@pytest.mark.parametrize(('loss', 'biases'), [
    ('FederatedLoss', [-5., 3., -5., -5.]), ('FederatedSoftmaxLoss', [-30., 1., -30., -30., 0.])])
def test_a_leaf_and_its_parent_are_found_on_the_same_place(loss, biases):
    model = small_model(**{LOSS_TYPE: loss}).eval()
    head = model.roi_head.bbox_head
    with torch.no_grad():
        head.fc_cls.bias.copy_(torch.tensor(biases))
        found, = model.predict(torch.rand(1, 3, SIZE, SIZE), [sample()])
    results = found.pred_instances
    cats, animals = (results[results.labels == label] for label in (CAT, ANIMAL))
    assert len(cats) == len(animals) > 0
    torch.testing.assert_close(cats.bboxes, animals.bboxes)
    torch.testing.assert_close(cats.scores, animals.scores)
    assert cats.masks.rles == animals.masks.rles


def scores_on(model, objectness) -> torch.Tensor:
    """(2, 5) scores of two proposals with these scores of their own, without suppression."""
    boxes = torch.tensor([[4., 4., 40., 40.], [20., 10., 60., 50.]])
    proposals = InstanceData(bboxes=boxes, scores=torch.tensor(objectness))
    with torch.no_grad():
        features = model.extract_feat(torch.ones(1, 3, SIZE, SIZE))
        found, = model.roi_head.predict_bbox(features, [sample().metainfo], [proposals], None)
    return found.scores


@pytest.mark.parametrize('loss', ['FederatedLoss', 'FederatedSoftmaxLoss'])
@pytest.mark.parametrize('name', ['FederatedRoIHead', 'FederatedCascadeRoIHead'])
def test_the_odds_of_a_class_are_weighed_by_the_root_of_the_proposals_score(name, loss):
    """Against its absence where it has a sigmoid, against background in a softmax."""
    model = (small_model(**{LOSS_TYPE: loss}) if name == 'FederatedRoIHead'
             else cascade_model(loss)).eval()
    found = [scores_on(model, scores) for scores in ([1., 1.], [1., 0.25])]
    sure, doubtful = (torch.logit(scores[:, :-1]) if loss == 'FederatedLoss' else
                      scores[:, :-1].log() - scores[:, -1:].log() for scores in found)
    torch.testing.assert_close(doubtful[0], sure[0])
    torch.testing.assert_close(doubtful[1], sure[1] + math.log(0.5), rtol=0, atol=1e-3)


def test_objectness_can_be_left_out_and_proposals_may_have_no_scores():
    model = small_model(**{'model.roi_head.bbox_head.objectness': 0.}).eval()
    torch.testing.assert_close(scores_on(model, [1., 1.]), scores_on(model, [0.1, 0.2]))
    with_it = small_model().eval()
    plain = InstanceData(bboxes=torch.tensor([[4., 4., 40., 40.]]))
    with torch.no_grad():
        features = with_it.extract_feat(torch.ones(1, 3, SIZE, SIZE))
        found, = with_it.roi_head.predict_bbox(features, [sample().metainfo], [plain], None)
    torch.testing.assert_close(found.scores, scores_on(model, [1., 1.])[:1])


@pytest.mark.parametrize('exclusive', [True, False])
def test_a_likelier_class_lowers_a_leaf_that_it_excludes_but_no_parent_on_request(exclusive):
    loss = small_model(**SIGMOIDS, **{'model.roi_head.bbox_head.loss_cls.exclusive': exclusive}
                       ).roi_head.bbox_head.loss_cls
    low, high = (loss.get_activation(torch.tensor([[0., 0., dog, -9.]]))[0, :-1]
                 for dog in (-9., 2.))
    assert low[CAT] == pytest.approx(0.5, rel=1e-2)
    assert high[CAT] < 0.1 if exclusive else high[CAT] == low[CAT]
    assert low[ANIMAL] == pytest.approx(0.5) and high[ANIMAL] > 0.5


def test_logits_are_angles_however_long_features_and_weights_are():
    head = small_model().eval().roi_head.bbox_head
    before, _ = head(features := torch.rand(2, head.in_channels, 7, 7))
    with torch.no_grad():
        head.fc_cls.weight *= 3
    torch.testing.assert_close(head(features)[0], before)
    shared, longer = torch.rand(2, head.fc_cls.in_features), torch.tensor([[1.], [5.]])
    torch.testing.assert_close(head.fc_cls(shared), head.fc_cls(shared * longer))


def found_twice() -> list[InstanceData]:
    """A box as cat and as animal and another as cup; nothing; on two images."""
    box, other = [8., 8., 40., 50.], [20., 4., 60., 30.]
    return [InstanceData(bboxes=torch.tensor([box, other, box]), scores=torch.ones(3),
                         labels=torch.tensor([CAT, CUP, ANIMAL])),
            InstanceData(bboxes=torch.zeros(0, 4), scores=torch.zeros(0),
                         labels=torch.zeros(0, dtype=torch.long))]


@pytest.mark.parametrize(('agnostic', 'made'), [(True, 2), (False, 3)])
def test_masks_are_the_stock_heads_and_one_box_makes_one(agnostic, made):
    model = small_model(**{'model.roi_head.mask_head.class_agnostic': agnostic}).eval()
    head, regions = model.roi_head, []
    torch.nn.init.normal_(head.mask_head.conv_logits.weight)  # masks neither empty nor full
    head.mask_head.register_forward_pre_hook(lambda _, inputs: regions.append(len(inputs[0])))
    metas = [{**sample().metainfo, 'scale_factor': (2., 2.), 'ori_shape': (32, 32)}] * 2
    with torch.no_grad():
        features = model.extract_feat(torch.rand(2, 3, SIZE, SIZE))
        ours = head.predict_mask(features, metas, found_twice(), rescale=True)
        stock = StandardRoIHead.predict_mask(head, features, metas, found_twice(), rescale=True)
    assert regions == [made, 3]
    for one, other in zip(ours, stock, strict=True):
        assert one.labels.tolist() == other.labels.tolist()
        assert one.bboxes.tolist() == other.bboxes.tolist()
        assert one.masks.rles == other.masks.rles
    assert any(ours[0].masks.areas) and len(ours[1].masks) == 0


def test_nothing_found_gives_no_masks():
    model = small_model().eval()
    with torch.no_grad():
        features = model.extract_feat(torch.rand(1, 3, SIZE, SIZE))
        found, = model.roi_head.predict_mask(features, [sample().metainfo], found_twice()[1:])
    assert len(found.masks) == len(found.bboxes) == 0


@pytest.mark.parametrize(('loss', 'most'), [
    ('FederatedLoss', 0.1), ('FederatedSoftmaxLoss', 1)])
def test_cascade_heads_learn_and_predict_the_same_way(loss, most):
    model = cascade_model(loss)
    losses = losses_of(model, sample((CAT, 5, 5, 40, 40, True), (CUP, 45, 45, 62, 62, False)))
    assert {f's{stage}.loss_cls' for stage in range(3)} <= set(losses)
    assert all(torch.isfinite(losses[f's{stage}.loss_cls']) for stage in range(3))
    with torch.no_grad():
        found, = model.eval().predict(torch.rand(1, 3, SIZE, SIZE), [sample()])
    assert 0 < found.pred_instances.scores.max() < most  # untrained; sigmoids are near the prior


def test_no_stage_of_a_cascade_learns_a_mask_where_there_is_none():
    model = cascade_model()
    losses = losses_of(model, sample((CAT, 5, 5, 40, 40, False)))
    assert all(losses[f's{stage}.loss_mask'] == 0 for stage in range(3))
    losses = losses_of(model, sample((CAT, 5, 5, 40, 40, True)))
    assert all(losses[f's{stage}.loss_mask'] > 0 for stage in range(3))


def cascade_model(loss='FederatedSoftmaxLoss'):
    cfg = cascade_config()
    for head in cfg.model.roi_head.bbox_head:
        head.loss_cls.type = loss
    return with_classes(cfg)


def cascade_config():
    cfg = load_config(REPOSITORY / 'configs/oi_mask_rcnn_r50_federated_demo.py',
                      {'num_classes': 4})
    head = cfg.model.roi_head
    head.update(type='FederatedCascadeRoIHead', num_stages=3, stage_loss_weights=[1, 0.5, 0.25])
    head.bbox_head = [head.bbox_head] * 3
    rcnn = cfg.model.train_cfg.rcnn
    stages = []
    for threshold in (0.5, 0.6, 0.7):
        stage = rcnn.copy()
        stage.assigner = {**rcnn.assigner, 'pos_iou_thr': threshold, 'neg_iou_thr': threshold,
                          'min_pos_iou': threshold}
        stages.append(stage)
    cfg.model.train_cfg.rcnn = stages
    return cfg
