"""A fast model gives what the plain one gives, and does without what it says it does without."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmdet.testing import demo_mm_inputs
from mmengine.config import ConfigDict
from mmengine.registry import OPTIM_WRAPPERS

from projects.openimages.mm.engine.config import build_model, load_config
from projects.openimages.mm.models import fast
from tests.helpers import REPOSITORY
from tests.mm.operators import Operators

SMALL = {'model.backbone.base_channels': 8, 'model.backbone.stem_channels': 8,
         'model.neck.in_channels': [8, 16, 32, 64], 'model.backbone.norm_eval': True,
         'model.backbone.frozen_stages': 1, 'num_classes': 5}


@pytest.fixture(scope='module')
def plain():
    """A detector whose statistics are fixed and do something; stem and first stage do not learn."""
    cfg = load_config(REPOSITORY / 'configs' / 'oi_mask_rcnn_r50_demo.py', SMALL)
    torch.manual_seed(0)
    model = build_model(cfg)
    model.init_weights()
    for part in model.backbone.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            for values in (part.running_mean, part.bias.data):
                values.normal_(0, 0.1)
            for values in (part.running_var, part.weight.data):
                values.uniform_(0.5, 1.5)
    return model.train()


@pytest.fixture
def model(plain):
    return copy.deepcopy(plain)


def batch(size=(64, 96)):
    return demo_mm_inputs(2, [[3, *size], [3, *size]], num_items=[2, 3], num_classes=5,
                          with_mask=True)


def losses(model, data=None):
    """Of one batch; the heads draw the same proposals every time."""
    torch.manual_seed(1)
    found = model(**model.data_preprocessor(copy.deepcopy(data or batch()), True), mode='loss')
    return {name: sum(value) if isinstance(value, list) else value
            for name, value in found.items() if 'loss' in name}


def test_folded_norms_give_the_same_outputs_and_gradients_without_a_norm(plain, model):
    assert fast.fold_norms(model)
    image = torch.randn(2, 3, 64, 96)
    outputs, gradients, ran = [], [], []
    for one in (plain, model):
        one.zero_grad()
        with Operators() as operators:
            found = one.backbone(image)
        sum(level.square().mean() for level in found).backward()
        outputs.append(found)
        gradients.append({name: value.grad.clone() for name, value in
                          one.backbone.named_parameters() if value.grad is not None})
        ran.append([name for name in operators.names if 'batch_norm' in name])
    assert len(ran[0]) == 20 and not ran[1]
    for left, right in zip(*outputs, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)
    assert gradients[0].keys() == gradients[1].keys() and any('bn' in key for key in gradients[0])
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, rtol=1e-3, atol=1e-6)
    assert model.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize('compiled', [False, True])
def test_the_hook_folds_norms_and_compiles_where_it_is_told_to(model, compiled):
    fast.FastModelHook(compile_parts=compiled).before_run(SimpleNamespace(model=model))
    for part in (model.backbone, model.neck):
        assert (part._compiled_call_impl is not None) is compiled
    with Operators() as operators:
        model.backbone.forward(torch.randn(1, 3, 64, 96))
    assert not [name for name in operators.names if 'batch_norm' in name]


def test_statistics_that_are_gathered_are_gathered_as_before(plain, model):
    fast.fold_norms(model)
    other = copy.deepcopy(plain)
    image = torch.randn(2, 3, 64, 96)
    for one in (model, other):
        one.backbone.norm_eval = False
        one.backbone.train()
        one.backbone(image)
    for left, right in zip(model.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(left, right)  # what is before it may be folded
    assert not torch.equal(model.backbone.layer4[0].bn1.running_mean,
                           plain.backbone.layer4[0].bn1.running_mean)


def test_channels_last_runs_from_the_first_convolution_to_the_neck_and_not_into_operators(model):
    fast.operators_in_float32(model)
    fast.use_channels_last(model)
    seen = []
    for layer in model.roi_head.bbox_roi_extractor.roi_layers:
        layer.register_forward_pre_hook(lambda part, inputs: seen.append(inputs[0]))
    levels = model.extract_feat(torch.randn(2, 3, 64, 96))
    assert all(level.is_contiguous(memory_format=torch.channels_last) and not level.is_contiguous()
               for level in levels[:3])
    losses(model)
    assert seen and all(level.is_contiguous() for level in seen)


def test_the_losses_are_the_plain_models_but_for_rounding(plain, model):
    expected = losses(plain)
    fast.operators_in_float32(model)
    fast.fold_norms(model)
    fast.use_channels_last(model)
    for name, value in losses(model).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5)
    with torch.autocast('cpu', torch.bfloat16):
        for name, value in losses(model).items():
            assert value.dtype == torch.float32
            torch.testing.assert_close(value, expected[name], rtol=0.1, atol=0.05)


def test_under_autocast_layers_are_bfloat16_and_operators_and_what_heads_give_float32(model):
    fast.operators_in_float32(model)
    fast.operators_in_float32(model)  # does nothing more
    dtypes = {}

    def note(name):
        def keep(part, inputs, output):
            while not torch.is_tensor(output):
                output = output[0]
            dtypes[name] = ([one.dtype for one in inputs if torch.is_tensor(one)], output.dtype)
        return keep

    head = model.roi_head
    [layer, *_] = head.bbox_roi_extractor.roi_layers
    for name, part in (('conv', model.backbone.conv1), ('roi', layer),
                       ('fc', head.bbox_head.shared_fcs[0]), ('rpn', model.rpn_head)):
        part.register_forward_hook(note(name))
    wrapper = OPTIM_WRAPPERS.build(ConfigDict(
        type='Bfloat16OptimWrapper', optimizer=torch.optim.SGD(model.parameters(), lr=0.1)))
    before = model.roi_head.bbox_head.fc_cls.weight.clone()
    torch.manual_seed(1)
    found = model.train_step(batch(), wrapper)
    assert torch.isfinite(found['loss'])
    assert dtypes['conv'][1] == dtypes['fc'][1] == torch.bfloat16
    assert dtypes['roi'] == ([torch.float32, torch.float32], torch.float32)  # with the proposals
    assert dtypes['rpn'][1] == torch.float32
    after = model.roi_head.bbox_head.fc_cls.weight
    assert after.dtype == torch.float32 and not torch.equal(before, after)


@pytest.mark.parametrize('kind', [torch.optim.SGD, torch.optim.AdamW])
def test_a_resumed_state_is_laid_out_as_its_weights(kind):
    """Read in another order than the weights a fused step would be another step."""
    def run(fused, change):
        torch.manual_seed(0)
        model = torch.nn.Conv2d(3, 4, 3)
        options = {'momentum': 0.9} if kind is torch.optim.SGD else {}
        optimizer = kind(model.parameters(), lr=0.1, fused=fused, **options)
        images = torch.randn(3, 2, 3, 8, 8)
        for number, image in enumerate(images):
            if number == 1 and change:
                fast.use_channels_last(model, OPTIM_WRAPPERS.build(
                    ConfigDict(type='OptimWrapper', optimizer=optimizer)))
                assert model.weight.is_contiguous(memory_format=torch.channels_last)
                for value in optimizer.state[model.weight].values():
                    assert value.ndim < 4 or value.stride() == model.weight.stride()
            optimizer.zero_grad()
            (model(image) ** 2).mean().backward()
            optimizer.step()
        return model.weight.detach()

    torch.testing.assert_close(run(True, True), run(False, False))


@pytest.mark.parametrize(('size', 'padded'), [
    ((40, 60), (64, 64)), ((64, 60), (64, 64)), ((60, 70), (64, 96)), ((70, 60), (96, 64)),
    ((96, 65), (96, 96)), ((97, 100), (104, 104))])
def test_batches_are_padded_to_the_smallest_bucket_that_holds_them(size, padded):
    buckets = ((96, 96), (64, 64), (96, 64), (64, 96))
    processor = fast.BucketPreprocessor(buckets, pad_size_divisor=8, pad_mask=True, mean=[9.] * 3,
                                        std=[1.] * 3)
    found = processor(batch(size), True)
    assert tuple(found['inputs'].shape[-2:]) == padded
    assert (found['inputs'][..., size[0]:, :] == 0).all()  # after normalisation, as elsewhere
    for sample in found['data_samples']:
        assert sample.batch_input_shape == padded and tuple(sample.img_shape[:2]) == size
        assert sample.gt_instances.masks.masks.shape[1:] == padded


def test_backbone_and_neck_are_compiled_once_for_each_shape():
    compiled = []

    class Doubled(torch.nn.Conv2d):
        def forward(self, image):
            return super().forward(image) * 2

    class Detector(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.neck = Doubled(3, 4, 3), Doubled(4, 2, 3)

    model = Detector()
    names = list(model.state_dict())
    expected = [model.neck(model.backbone(torch.ones(1, 3, side, 8))) for side in (8, 16)]

    def backend(graph, inputs):
        compiled.append(inputs)
        return graph.forward

    with pytest.MonkeyPatch.context() as patch:
        original = torch.compile
        patch.setattr(torch, 'compile', lambda *args, **options: original(
            *args, **{**options, 'backend': backend}))
        fast.compile_features(model)
    for _ in range(2):
        for side, output in zip((8, 16), expected, strict=True):
            assert torch.equal(model.neck(model.backbone(torch.ones(1, 3, side, 8))), output)
    assert len(compiled) == 4 and list(model.state_dict()) == names
