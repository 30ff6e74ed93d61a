"""Test-time augmentation gives what averaging promises."""

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from projects.openimages.masks import bbox, iou
from projects.openimages.mm.engine.config import build_model, load_config
from projects.openimages.mm.models.tta import MaskAveragingTTA, shares_proposals
from tests.helpers import REPOSITORY
from tests.mm.zoo_run import small_config

HEIGHT, WIDTH = 96, 128


@pytest.fixture(scope='module')
def config():
    register_all_modules(init_default_scope=True)
    config = Config.fromfile(REPOSITORY / 'configs' / 'oi_mask_rcnn_r50_demo_tta.py')
    config.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=12)
    return config


@pytest.fixture(scope='module')
def detector(config):
    return random_detector(config.model)


@pytest.fixture(scope='module')
def federated():
    """A detector whose scores are weighed by those of the proposals."""
    config = load_config(REPOSITORY / 'configs' / 'oi_mask_rcnn_r50_federated_demo.py')
    config.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=12)
    return random_detector(config.model)


def random_detector(model):
    """Random weights, told apart a little so that scores and masks are not all alike."""
    torch.manual_seed(1)
    model = MODELS.build(model).eval()
    for parameter in [*model.roi_head.bbox_head.fc_cls.parameters(),
                      *model.roi_head.mask_head.conv_logits.parameters()]:
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def views_of(config, images, scales, flips):
    transforms = [{'type': 'TestTimeAug', 'transforms': [
        [{'type': 'Resize', 'scale': scale, 'keep_ratio': True} for scale in scales],
        [{'type': 'RandomFlip', 'prob': float(flip)} for flip in flips],
        [{'type': 'PackInstances'}]]}]
    pipeline = Compose(transforms)
    return pseudo_collate([pipeline({
        'img': image, 'img_shape': image.shape[:2], 'ori_shape': image.shape[:2],
        'image_id': str(n), 'img_path': f'{n}.jpg'}) for n, image in enumerate(images)])


@pytest.fixture(scope='module')
def images():
    random = np.random.default_rng(0)
    blocks = random.integers(0, 255, (2, 6, 8, 3), np.uint8)
    return list(blocks.repeat(16, 1).repeat(16, 2))


@pytest.mark.parametrize('kind', ['detector', 'federated'])
def test_one_plain_view_is_the_detector_itself(config, kind, images, request):
    detector = request.getfixturevalue(kind)
    data = views_of(config, images, [(256, 192)], [False])
    averaged = MaskAveragingTTA(detector).test_step(data)
    data = views_of(config, images, [(256, 192)], [False])
    plain = detector.test_step({key: value[0] for key, value in data.items()})
    for one, other in zip(averaged, plain, strict=True):
        assert one.image_id == other.image_id and one.ori_shape == (HEIGHT, WIDTH)
        one, other = one.pred_instances, other.pred_instances
        assert len(one) == 12 and torch.equal(one.labels, other.labels)
        torch.testing.assert_close(one.scores, other.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one.bboxes, other.bboxes, rtol=0, atol=0.02)
        assert np.diag(iou(one.masks.rles, other.masks.rles)).min() > 0.97


def test_mirrored_image_gives_mirrored_detections(config, detector, images):
    """The views of an image and of its mirror image are the same pair."""
    scales, flips = [(256, 192), (320, 240)], [False, True]
    tta = MaskAveragingTTA(detector)
    one, other = (tta.test_step(views_of(config, [image], scales, flips))[0].pred_instances
                  for image in (images[0], np.ascontiguousarray(images[0][:, ::-1])))
    assert torch.equal(one.labels, other.labels)
    torch.testing.assert_close(one.scores, other.scores, rtol=1e-4, atol=1e-5)
    mirrored = other.bboxes.clone()
    mirrored[:, [0, 2]] = WIDTH - other.bboxes[:, [2, 0]]
    torch.testing.assert_close(one.bboxes, mirrored, rtol=0, atol=0.05)


def test_maps_of_flipped_views_are_turned_back(config, detector, images, monkeypatch):
    """A map that is on in its left half stays on the left whatever the view."""
    head = detector.roi_head

    def left_half(features, rois):
        maps = torch.full((len(rois), head.mask_head.num_classes, 28, 28), -9.)
        flipped = left_half.calls % 2 == 1
        maps[..., 14:] = 9. if flipped else -9.
        maps[..., :14] = -9. if flipped else 9.
        left_half.calls += 1
        return {'mask_preds': maps}

    left_half.calls = 0
    monkeypatch.setattr(head, '_mask_forward', left_half)
    data = views_of(config, images[:1], [(256, 192)], [False, True])
    instances = MaskAveragingTTA(detector).test_step(data)[0].pred_instances
    tight = torch.from_numpy(bbox(instances.masks.rles))
    assert ((tight[:, 0] - instances.bboxes[:, 0]).abs() < 2).all()
    half = (instances.bboxes[:, 2] - instances.bboxes[:, 0]) / 2
    assert ((tight[:, 2] - half).abs() < 2).all()


def test_image_without_detections_is_legal(config, detector, images, monkeypatch):
    monkeypatch.setitem(detector.test_cfg.rcnn, 'score_thr', 2.0)
    data = views_of(config, images, [(256, 192)], [False, True])
    for sample in MaskAveragingTTA(detector).test_step(data):
        assert len(sample.pred_instances) == 0 and sample.pred_instances.masks.rles == []


@pytest.mark.parametrize('name', ['htc_r50', 'mask2former_r50', 'rtmdet_ins_l'])
def test_detections_of_other_detectors_are_merged_by_view(name, images, tmp_path):
    """The views of an image and of its mirror image are the same pair, so is what is found."""
    cfg = small_config(REPOSITORY / f'configs/zoo/{name}.py', tmp_path, tmp_path)
    torch.manual_seed(2)
    detector = build_model(cfg).eval()
    detector.init_weights()
    assert not shares_proposals(detector)
    tta = MaskAveragingTTA(detector)
    data = [views_of(None, [image], [(128, 96), (160, 128)], [False, True])
            for image in (images[0], np.ascontiguousarray(images[0][:, ::-1]))]
    one, other = (tta.test_step(item)[0].pred_instances for item in data)
    assert 0 < len(one) <= 10 and torch.equal(one.labels, other.labels)
    torch.testing.assert_close(one.scores, other.scores, rtol=1e-3, atol=1e-4)
    mirrored = other.masks.flip().rles
    assert np.diag(iou(one.masks.rles, mirrored)).min() > 0.9
    best = detector.test_step({key: value[0] for key, value in data[0].items()})[0].pred_instances
    assert one.scores.max() <= max(best.scores.max(), 1.0)


def test_heads_that_only_learn_otherwise_are_averaged(detector, federated):
    assert shares_proposals(detector) and shares_proposals(federated)
