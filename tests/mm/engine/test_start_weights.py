"""Start weights from the checkpoints of three code bases."""

import json

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import load_checkpoint
from torch import nn
from torch.nn import functional as F

from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine.checkpoints import read_checkpoint
from projects.openimages.mm.engine.start_weights import CLASS_LAYERS, trim
from tests.helpers import REPOSITORY, run_tool


class Bottleneck(nn.Module):
    """A ResNet bottleneck with the attribute names that torchvision and its heirs share."""

    def __init__(self, inputs, width, stride, stride_first):
        super().__init__()
        first, second = (stride, 1) if stride_first else (1, stride)
        self.conv1 = nn.Conv2d(inputs, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if inputs != 4 * width:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, 4 * width, 1, stride, bias=False),
                                            nn.BatchNorm2d(4 * width))

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(out)))))
        return F.relu(out + (self.downsample(x) if self.downsample else x))


class PlainMaskRCNN(nn.Module):
    """ResNet-50, FPN and RPN head in plain torch; the heads as bare layers, to have their names."""

    def __init__(self, stride_first=False):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
            layers = []
            for block in range(blocks):
                stride = 2 if stage > 1 and block == 0 else 1
                layers.append(Bottleneck(channels, width, stride, stride_first))
                channels = 4 * width
            setattr(self, f'layer{stage}', nn.Sequential(*layers))
        self.inner = nn.ModuleList(nn.Conv2d(256 * 2**n, 256, 1) for n in range(4))
        self.outer = nn.ModuleList(nn.Conv2d(256, 256, 3, padding=1) for _ in range(4))
        self.rpn_conv = nn.Conv2d(256, 256, 3, padding=1)
        self.rpn_cls = nn.Conv2d(256, 3, 1)
        self.rpn_reg = nn.Conv2d(256, 12, 1)
        self.fc6, self.fc7 = nn.Linear(12544, 1024), nn.Linear(1024, 1024)
        self.cls_score, self.bbox_pred = nn.Linear(1024, 91), nn.Linear(1024, 364)
        self.mask_fcn = nn.ModuleList(nn.Conv2d(256, 256, 3, padding=1) for _ in range(4))
        self.conv5_mask = nn.ConvTranspose2d(256, 256, 2, 2)
        self.mask_fcn_logits = nn.Conv2d(256, 91, 1)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        stages = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            stages.append(x)
        merged = [inner(stage) for inner, stage in zip(self.inner, stages, strict=True)]
        for level in (2, 1, 0):
            merged[level] = merged[level] + F.interpolate(
                merged[level + 1], size=merged[level].shape[-2:])
        features = [outer(level) for outer, level in zip(self.outer, merged, strict=True)]
        features.append(F.max_pool2d(features[-1], 1, 2))
        hidden = [F.relu(self.rpn_conv(level)) for level in features]
        return features, [self.rpn_cls(h) for h in hidden], [self.rpn_reg(h) for h in hidden]


# Where each code base keeps the plain model's layers. `body.` is every backbone tensor.
TORCHVISION = {
    'body.': 'backbone.body.', 'inner.{}.': 'backbone.fpn.inner_blocks.{}.0.',
    'outer.{}.': 'backbone.fpn.layer_blocks.{}.0.', 'rpn_conv.': 'rpn.head.conv.0.0.',
    'rpn_cls.': 'rpn.head.cls_logits.', 'rpn_reg.': 'rpn.head.bbox_pred.',
    'fc6.': 'roi_heads.box_head.fc6.', 'fc7.': 'roi_heads.box_head.fc7.',
    'cls_score.': 'roi_heads.box_predictor.cls_score.',
    'bbox_pred.': 'roi_heads.box_predictor.bbox_pred.',
    'mask_fcn.{}.': 'roi_heads.mask_head.{}.0.',
    'conv5_mask.': 'roi_heads.mask_predictor.conv5_mask.',
    'mask_fcn_logits.': 'roi_heads.mask_predictor.mask_fcn_logits.'}
OLD_TORCHVISION = {
    **TORCHVISION, 'inner.{}.': 'backbone.fpn.inner_blocks.{}.',
    'outer.{}.': 'backbone.fpn.layer_blocks.{}.', 'rpn_conv.': 'rpn.head.conv.',
    'mask_fcn.{}.': 'roi_heads.mask_head.mask_fcn{+1}.'}
BENCHMARK = {
    'body.': 'module.backbone.body.', 'inner.{}.': 'module.backbone.fpn.fpn_inner{+1}.',
    'outer.{}.': 'module.backbone.fpn.fpn_layer{+1}.', 'rpn_conv.': 'module.rpn.head.conv.',
    'rpn_cls.': 'module.rpn.head.cls_logits.', 'rpn_reg.': 'module.rpn.head.bbox_pred.',
    'fc6.': 'module.roi_heads.box.feature_extractor.fc6.',
    'fc7.': 'module.roi_heads.box.feature_extractor.fc7.',
    'cls_score.': 'module.roi_heads.box.predictor.cls_score.',
    'bbox_pred.': 'module.roi_heads.box.predictor.bbox_pred.',
    'mask_fcn.{}.': 'module.roi_heads.mask.feature_extractor.mask_fcn{+1}.',
    'conv5_mask.': 'module.roi_heads.mask.predictor.conv5_mask.',
    'mask_fcn_logits.': 'module.roi_heads.mask.predictor.mask_fcn_logits.'}
MMDETECTION = {
    'body.': 'backbone.', 'inner.{}.': 'neck.lateral_convs.{}.conv.',
    'outer.{}.': 'neck.fpn_convs.{}.conv.', 'rpn_conv.': 'rpn_head.rpn_conv.',
    'rpn_cls.': 'rpn_head.rpn_cls.', 'rpn_reg.': 'rpn_head.rpn_reg.',
    'fc6.': 'roi_head.bbox_head.shared_fcs.0.', 'fc7.': 'roi_head.bbox_head.shared_fcs.1.',
    'cls_score.': 'roi_head.bbox_head.fc_cls.', 'bbox_pred.': 'roi_head.bbox_head.fc_reg.',
    'mask_fcn.{}.': 'roi_head.mask_head.convs.{}.conv.',
    'conv5_mask.': 'roi_head.mask_head.upsample.',
    'mask_fcn_logits.': 'roi_head.mask_head.conv_logits.'}


def named(plain: PlainMaskRCNN, places: dict, frozen_norms: bool) -> dict:
    """The plain model's tensors under a code base's names."""
    tensors = {}
    for name, tensor in plain.state_dict().items():
        if frozen_norms and name.endswith('num_batches_tracked'):
            continue
        layer, number, rest = (*name.split('.', 2), '')[:3]
        if f'{layer}.{{}}.' in places:
            prefix = places[f'{layer}.{{}}.'].replace('{+1}', str(int(number) + 1))
            tensors[prefix.format(number) + rest] = tensor
        elif f'{layer}.' in places:
            tensors[places[f'{layer}.'] + number] = tensor
        else:
            stem = 'stem.' if places is BENCHMARK and layer in ('conv1', 'bn1') else ''
            tensors[places['body.'] + stem + name] = tensor
    return tensors


@pytest.fixture(scope='module', params=['torchvision', 'old torchvision', 'benchmark',
                                        'MMDetection'])
def case(request):
    """A checkpoint of each kind with the plain model it comes from and the code base's name."""
    torch.manual_seed(0)
    plain = PlainMaskRCNN(stride_first=request.param == 'benchmark').eval()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    if request.param == 'benchmark':
        tensors = named(plain, BENCHMARK, True)
        tensors['module.rpn.anchor_generator.cell_anchors.0'] = torch.zeros(3, 4)
        return ('maskrcnn-benchmark', plain,
                {'model': tensors, 'optimizer': {'state': {}}, 'scheduler': {}, 'iteration': 90000})
    if request.param == 'MMDetection':
        return ('MMDetection', plain, {'meta': {'epoch': 12}, 'optimizer': {},
                                       'state_dict': named(plain, MMDETECTION, False)})
    places = TORCHVISION if request.param == 'torchvision' else OLD_TORCHVISION
    return 'torchvision', plain, named(plain, places, True)


def build_model(style: str = 'pytorch', num_classes: int = 300) -> nn.Module:
    init_default_scope('mmdet')
    cfg = Config.fromfile(REPOSITORY / 'configs' / 'oi_mask_rcnn_r50.py')
    cfg.model.backbone.update(init_cfg=None, style=style)
    cfg.model.roi_head.bbox_head.num_classes = num_classes
    cfg.model.roi_head.mask_head.num_classes = num_classes
    return MODELS.build(cfg.model).eval()


@pytest.fixture(scope='module')
def model_tensors():
    return build_model().state_dict()


def test_trunk_arrives_bit_for_bit_and_computes_the_same(case, model_tensors, tmp_path):
    scheme, plain, checkpoint = case
    start = trim(checkpoint, model_tensors)
    torch.save({'state_dict': start.state_dict}, tmp_path / 'start.pth')
    model = build_model('caffe' if scheme == 'maskrcnn-benchmark' else 'pytorch')
    load_checkpoint(model, str(tmp_path / 'start.pth'))
    loaded = model.state_dict()
    for name, tensor in named(plain, MMDETECTION, True).items():
        if not name.startswith(CLASS_LAYERS):
            assert torch.equal(loaded[name], tensor), name
    image = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        features, scores, deltas = plain(image)
        ours = model.neck(model.backbone(image))
        our_scores, our_deltas = model.rpn_head(ours)
    for expected, got in zip([*features, *scores, *deltas], [*ours, *our_scores, *our_deltas],
                             strict=True):
        torch.testing.assert_close(got, expected)


def test_only_class_layers_are_missing_and_dropped_parts_are_listed(case, model_tensors):
    scheme, _, checkpoint = case
    start = trim(checkpoint, model_tensors)
    assert start.scheme == scheme
    assert set(start.state_dict) <= set(model_tensors)
    assert sorted(start.missing) == sorted(f'{layer}{kind}' for layer in CLASS_LAYERS
                                           for kind in ('weight', 'bias'))
    assert sum('class-specific' in reason for reason in start.dropped.values()) == 6
    parts = [name for name, reason in start.dropped.items() if reason == 'not weights']
    assert parts == {'maskrcnn-benchmark': ['optimizer', 'scheduler', 'iteration'],
                     'MMDetection': ['meta', 'optimizer']}.get(scheme, [])


def test_command_prints_what_was_kept_renamed_and_dropped(tmp_path):
    torch.save({'model': named(PlainMaskRCNN(), BENCHMARK, True), 'optimizer': {}},
               tmp_path / 'in.pth')
    result = run_tool('tools/trim_checkpoint.py', tmp_path / 'in.pth', tmp_path / 'out.pth',
                      '--json', tmp_path / 'figures.json')
    assert result.returncode == 0, result.stderr
    told = json.loads((tmp_path / 'figures.json').read_text())
    assert told['renamed']['rpn_head.rpn_conv.weight'] == 'module.rpn.head.conv.weight'
    assert told['dropped']['optimizer'] == 'not weights' and told['tensors'] > 100
    assert 'module.rpn.head.conv.weight -> rpn_head.rpn_conv.weight' in result.stdout
    assert 'module.roi_heads.box.predictor.cls_score.weight: class-specific' in result.stdout
    assert 'optimizer: not weights' in result.stdout
    assert 'model.backbone.style=caffe' in result.stdout
    assert 'tensors, for 300 classes' in result.stdout
    assert 'optimizer' not in read_checkpoint(tmp_path / 'out.pth')


def test_class_layers_of_the_same_classes_stay():
    tensors = named(PlainMaskRCNN(), MMDETECTION, False)
    start = trim({'state_dict': tensors}, tensors)
    assert (start.dropped, start.missing) == ({}, ())


def test_model_of_another_kind_is_named(model_tensors):
    with pytest.raises(UserError, match=r'in\.pth: neither tensors .* it has fc\.weight'):
        trim({'state_dict': {'fc.weight': torch.zeros(1)}}, model_tensors, 'in.pth')


def test_a_layer_of_another_width_is_not_taken_for_a_class_layer(model_tensors):
    """A narrower hidden layer: the one behind it does not fit."""
    tensors = named(PlainMaskRCNN(), MMDETECTION, False)
    for kind in ('weight', 'bias'):
        key = f'roi_head.bbox_head.shared_fcs.0.{kind}'
        tensors[key] = tensors[key][:512]
    tensors['roi_head.bbox_head.shared_fcs.1.weight'] = torch.zeros(1024, 512)
    with pytest.raises(UserError, match=r'the first is roi_head\.bbox_head\.shared_fcs\.1\.weight'):
        trim({'state_dict': tensors}, model_tensors)
    tensors = named(PlainMaskRCNN(), MMDETECTION, False)
    tensors['backbone.conv1.weight'] = tensors['backbone.conv1.weight'][:32]
    with pytest.raises(UserError, match=r'the first is backbone\.conv1\.weight'):
        trim({'state_dict': tensors}, model_tensors)


def test_detector_without_masks_is_named(model_tensors):
    tensors = {name: tensor for name, tensor in named(PlainMaskRCNN(), MMDETECTION, False).items()
               if 'mask_head' not in name}
    with pytest.raises(UserError, match=r'the first is roi_head\.mask_head\.convs'):
        trim({'state_dict': tensors}, model_tensors)
