"""The configs of the zoo: short, whole, and each trained and tested on demo data."""

import csv
import math
import re
from collections import Counter
from importlib.util import find_spec

import pytest
import torch
from mmdet.testing import demo_mm_inputs
from mmengine import load
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.hub import get_config
from mmengine.logging import MessageHub
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from projects.openimages.common.errors import UserError
from projects.openimages.masks import inflate_text, rle_to_mask
from projects.openimages.mm.engine.checkpoints import read_checkpoint
from projects.openimages.mm.engine.config import build_model, load_config
from projects.openimages.mm.engine.fast import train_fast, use_mixed_precision
from projects.openimages.mm.engine.start_weights import trim
from projects.openimages.mm.evaluation.submission_dump import add_submission_dump
from projects.openimages.mm.models.adapting import (
    adapt_model,
    for_open_images,
    mappings,
    set_class_count,
)
from projects.openimages.mm.models.ignored import unaware_parts
from tests.helpers import REPOSITORY, assert_one_line_error, run_tool
from tests.mm.test_configs import code_lines
from tests.mm.zoo_run import CONFIGS, RUNNABLE, small_config

NAMES = [path.stem for path in RUNNABLE]
PIXELS = ('mask2former_r50', 'rtmdet_ins_l')  # these give masks as pixels
PAGE = (REPOSITORY / 'docs' / 'models.md').read_text(encoding='utf-8')


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_fifteen_lines_at_most(path):
    assert code_lines(path.read_text(encoding='utf-8')) <= 15


class LearningParts(Hook):
    """Notes in which parts of the model an iteration changes a weight."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.before = {name: value.clone() for name, value in runner.model.named_parameters()}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.found = {name.split('.')[0] for name, value in runner.model.named_parameters()
                      if not torch.equal(value, self.before[name])}


def train_an_iteration(cfg):
    """The runner, after an iteration in which every part learnt something by finite losses."""
    runner = Runner.from_cfg(cfg)
    learning = LearningParts()
    runner.register_hook(learning)
    runner.train()
    assert learning.found == {name.split('.')[0] for name, _ in runner.model.named_parameters()}
    losses = {name: buffer.current() for name, buffer in runner.message_hub.log_scalars.items()
              if 'loss' in name}
    assert all(math.isfinite(loss) for loss in losses.values()), losses
    assert any('mask' in name and loss > 0 for name, loss in losses.items()), losses
    return runner


@pytest.mark.parametrize('path', RUNNABLE, ids=NAMES)
def test_a_model_is_trained_an_iteration_and_tested_to_a_submission(path, demo_root, tmp_path):
    runner = train_an_iteration(small_config(path, demo_root, tmp_path))
    assert unaware_parts(runner.model) == []

    cfg = small_config(path, demo_root, tmp_path)
    cfg.load_from = str(tmp_path / 'iter_1.pth')
    cfg.test_evaluator = [cfg.test_evaluator, {
        'type': 'DumpPredictions', 'out_file_path': str(tmp_path / 'all.pkl')}]
    if path.stem in PIXELS:
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), {
            'type': 'ComparisonPicturesHook', 'folder': str(tmp_path / 'pictures')}]
    add_submission_dump(cfg, tmp_path / 'submission.csv')
    scores = Runner.from_cfg(cfg).test()
    assert 0 <= scores['openimages/mAP'] <= 1
    with open(tmp_path / 'submission.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    images = {image.stem for image in (demo_root / 'images' / 'validation').glob('*.jpg')}
    assert {row['ImageID'] for row in rows} == images
    assert any(row['PredictionString'] for row in rows)
    found = load(tmp_path / 'all.pkl')
    assert len(found) == len(images) and all(
        len(one['pred_instances']['masks']) == len(one['pred_instances']['scores'])
        for one in found)
    if path.stem in PIXELS:
        assert {file.stem for file in (tmp_path / 'pictures').iterdir()} == {
            *images, 'contact_sheet'}


@pytest.mark.parametrize('path', RUNNABLE, ids=NAMES)
def test_a_model_is_trained_an_iteration_and_tested_fast(path, demo_root, tmp_path):
    """``--fast`` on every detector, those with operators of their own in their heads too."""
    cfg = small_config(path, demo_root, tmp_path)
    train_fast(cfg)
    train_an_iteration(cfg)

    cfg = small_config(path, demo_root, tmp_path)
    cfg.load_from = str(tmp_path / 'iter_1.pth')
    use_mixed_precision(cfg, fast=True)
    assert 0 <= Runner.from_cfg(cfg).test()['openimages/mAP'] <= 1


def classification_loss(model, ignored):
    """Of an image without objects, with one group-of box where ``ignored``."""
    torch.manual_seed(0)
    batch = demo_mm_inputs(1, [[3, 64, 64]], num_items=[0], num_classes=300, with_mask=True)
    batch['data_samples'][0].ignored_instances = InstanceData(
        bboxes=torch.tensor([[-999., -999, 999, 999]] * ignored).reshape(-1, 4),
        labels=torch.zeros(ignored, dtype=torch.long), group_of=torch.ones(ignored, dtype=bool))
    losses = model.forward(**model.data_preprocessor(batch, True), mode='loss')
    return sum(float(torch.as_tensor(sum(loss) if isinstance(loss, list) else loss))
               for name, loss in losses.items() if 'loss' in name and 'cls' in name)


@pytest.mark.parametrize('path', RUNNABLE, ids=NAMES)
def test_what_lies_in_a_group_is_not_learnt_as_background(path, tmp_path):
    cfg = small_config(path, tmp_path, tmp_path)
    torch.manual_seed(0)
    model = build_model(cfg)
    model.init_weights()
    for part in model.modules():
        if hasattr(part, 'set_training_classes'):
            part.set_training_classes(torch.zeros(300, 300, dtype=bool), torch.ones(300).long())
    assert classification_loss(model, 0) > 0.01
    if 'mask2former' in path.stem:  # a query whose mask is empty has found nothing: background
        assert classification_loss(model, 1) < 0.5 * classification_loss(model, 0)
    else:
        assert classification_loss(model, 1) == 0


@pytest.mark.parametrize('path', RUNNABLE, ids=NAMES)
def test_a_model_starts_from_one_of_80_classes_but_for_what_is_made_for_classes(path, tmp_path):
    cfg = small_config(path, tmp_path, tmp_path)
    torch.manual_seed(0)
    model = build_model(cfg)
    set_class_count(cfg.model, 80)
    coco = {name: value for name, value in build_model(cfg).state_dict().items()
            if '.loss_' not in name}  # COCO's were trained with a softmax
    torch.save({'state_dict': coco}, tmp_path / 'coco.pth')
    start = trim(read_checkpoint(tmp_path / 'coco.pth'), model.state_dict())
    own = model.state_dict()
    of_classes = {name for name in own if name not in coco or coco[name].shape != own[name].shape}
    assert set(start.missing) == of_classes and 0 < len(of_classes) < 0.2 * len(own)
    assert all(torch.equal(start.state_dict[name], coco[name]) for name in start.state_dict)
    missing, unexpected = model.load_state_dict(start.state_dict, strict=False)
    assert set(missing) == of_classes and not unexpected


@pytest.mark.parametrize('name', ['tood/tood_r50_fpn_1x_coco.py', 'atss/atss_r50_fpn_1x_coco.py'])
def test_nor_by_one_stage_detectors_with_assigners_of_their_own(name):
    cfg = Config({'model': get_config(f'mmdet::{name}').model})
    cfg.model.backbone.init_cfg = None
    adapt_model(cfg.model, 300)
    model = build_model(cfg)
    for epoch in (0, 9):  # TOOD changes its assigner after some epochs
        MessageHub.get_current_instance().update_info('epoch', epoch)
        assert classification_loss(model, 0) > 0.01
        assert classification_loss(model, 1) == 0


def documented_parameters():
    """By config, from the page's table."""
    return dict(re.findall(r'^\| `configs/(?:zoo/)?(\w+)\.py` \|.*?\| ([\d.]+M|–) \|', PAGE, re.M))


def test_every_config_is_in_the_table():
    assert {path.stem for path in CONFIGS} <= documented_parameters().keys()
    for name in ('oi_mask_rcnn_r50', 'oi_mask_rcnn_r50_federated'):
        cfg = load_config(REPOSITORY / 'configs' / f'{name}.py')
        cfg.model.backbone.init_cfg = None
        parameters = sum(value.numel() for value in build_model(cfg).parameters())
        assert f'{parameters / 1e6:.1f}M' == documented_parameters()[name]


@pytest.mark.parametrize('path', RUNNABLE, ids=NAMES)
def test_the_class_count_reaches_every_layer_of_classes(path):
    """Layers of 300 classes with another count have that count's size; docs/models.md is right."""
    sizes = []
    for count in (300, 7):
        cfg = load_config(path, {'num_classes': count})
        cfg.model.backbone.init_cfg = None
        model = build_model(cfg)
        sizes.append([tuple(value.shape) for value in model.state_dict().values()])
        if count == 300:
            parameters = sum(value.numel() for value in model.parameters())
            assert f'{parameters / 1e6:.1f}M' == documented_parameters()[path.stem]
    differing = Counter((left, right) for left, right in zip(*sizes, strict=True) if left != right)
    assert differing
    for left, right in differing:
        [(of_300, of_7)] = {pair for pair in zip(left, right, strict=True) if pair[0] != pair[1]}
        assert (of_300 - 300, of_7 - 7) in {(0, 0), (1, 1), (2, 2), (900, 21)}, (left, right)
    preprocessor = cfg.model.data_preprocessor
    assert preprocessor.pad_mask and preprocessor.pad_size_divisor == 32
    assert preprocessor.get('batch_augments') is None
    for node in mappings(cfg.model):
        assert node.get('score_thr', 0) <= 0.01
        assert 80 not in (node.get('num_classes'), node.get('num_things_classes'))
        assert len(node['class_weight']) == 8 if 'class_weight' in node else True


@pytest.mark.skipif(find_spec('mmpretrain') is not None, reason='mmpretrain is installed')
def test_what_is_not_installed_is_said_in_one_line():
    assert_one_line_error(run_tool('tools/train.py', 'configs/zoo/mask_rcnn_convnext_t.py'),
                          'ConvNeXt', 'mmpretrain', 'docs/models.md')


EXAMPLES = dict(zip(('another', 'tta', 'final'),
                    re.findall(r'```python\n(_base_ = .*?)```', PAGE, re.DOTALL), strict=True))


@pytest.mark.parametrize('name', EXAMPLES)
def test_the_examples_of_the_page_are_configs(name, tmp_path):
    path = tmp_path / 'model.py'
    configs = REPOSITORY / 'configs'
    path.write_text(re.sub(r"'\./", f"'{configs}/", EXAMPLES[name]))
    cfg = load_config(path, {'data_root': '/data/oi'})
    if name == 'final':
        parts = cfg.train_dataloader.dataset.datasets
        assert [part.ann_file for part in parts] == [
            'prepared/train/index.arrow', 'prepared/validation/index.arrow']
        assert {part.data_root for part in parts} == {'/data/oi/'}
        assert parts[0].pipeline == parts[1].pipeline
        assert set(cfg.train_dataloader.dataset) == {'type', 'datasets'}
    else:
        assert ('tta_model' in cfg) is (name == 'tta')
        cfg.model.backbone.init_cfg = None
        assert unaware_parts(build_model(cfg)) == []


def test_the_pages_detector_is_trained_an_iteration_and_tested(demo_root, tmp_path):
    path = tmp_path / 'model.py'
    configs = REPOSITORY / 'configs'
    path.write_text(re.sub(r"'\./", f"'{configs}/", EXAMPLES['another']))
    train_an_iteration(small_config(path, demo_root, tmp_path / 'work'))
    cfg = small_config(path, demo_root, tmp_path / 'work')
    cfg.load_from = str(tmp_path / 'work' / 'iter_1.pth')
    add_submission_dump(cfg, tmp_path / 'submission.csv')
    assert 0 <= Runner.from_cfg(cfg).test()['openimages/mAP'] <= 1
    with open(tmp_path / 'submission.csv', newline='') as file:
        assert len(list(csv.DictReader(file))) == len(
            list((demo_root / 'images' / 'validation').glob('*.jpg')))


WHOLE = '''
_base_ = ['mmdet::{name}', '{configs}/_base_/openimages.py']
from projects.openimages.mm.models.adapting import for_open_images
for_open_images(_base_)
train_dataloader = dict(batch_size=5)
'''


@pytest.mark.parametrize('name', [
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'queryinst/queryinst_r50_fpn_1x_coco.py',
    'dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco.py', 'tood/tood_r50_fpn_1x_coco.py',
    'point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py', 'solov2/solov2_r50_fpn_1x_coco.py'])
def test_any_config_of_mmdetection_takes_our_data_and_schedule(tmp_path, name):
    path = tmp_path / 'model.py'
    path.write_text(WHOLE.format(name=name, configs=REPOSITORY / 'configs'))
    cfg, main = load_config(path), load_config(REPOSITORY / 'configs' / 'oi_mask_rcnn_r50.py')
    cfg.model.backbone.init_cfg = None
    assert set(cfg) == set(main)  # no variable of MMDetection's config is left
    assert cfg.train_dataloader.batch_size == 5
    cfg.train_dataloader.batch_size = 2
    for node in mappings(main._cfg_dict):
        node.pop('_scope_', None)
    for key in set(main) - {'model', 'load_from'}:
        assert cfg[key] == main[key], key
    text = cfg.pretty_text
    assert 'coco' not in re.sub(r'checkpoint=.*', '', text).lower()
    assert not re.search(r'num_classes=(80|81)\b', text)
    build_model(cfg)


@pytest.mark.parametrize('name', [
    'tood/tood_r50_fpn_1x_coco.py', 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'])
def test_a_detector_of_boxes_is_scored_and_handed_in_with_them(
        name, demo_root, tmp_path, caplog):
    """Its masks are the pixels that its boxes touch, in the metric as in the submission."""
    path = tmp_path / 'model.py'
    path.write_text(WHOLE.format(name=name, configs=REPOSITORY / 'configs'))
    cfg = small_config(path, demo_root, tmp_path)
    cfg.test_evaluator = [cfg.test_evaluator, {
        'type': 'DumpPredictions', 'out_file_path': str(tmp_path / 'all.pkl')}]
    add_submission_dump(cfg, tmp_path / 'submission.csv', expand_hierarchy=False)
    runner = Runner.from_cfg(cfg)
    runner.logger.addHandler(caplog.handler)
    scores = runner.test()
    assert 0 <= scores['openimages/mAP'] <= 1
    assert caplog.text.count('its boxes are taken for them') <= 1
    assert load(tmp_path / 'all.pkl')[0]['pred_instances']['masks']
    with open(tmp_path / 'submission.csv', newline='') as file:
        row = next(row for row in csv.DictReader(file) if row['PredictionString'])
    height, width = int(row['ImageHeight']), int(row['ImageWidth'])
    for text in row['PredictionString'].split()[2::3]:
        mask = rle_to_mask({'size': [height, width], 'counts': inflate_text(text, height, width)})
        rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        assert mask[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1].all()


def test_settings_below_the_call_reach_what_it_made(tmp_path):
    path = tmp_path / 'model.py'
    name = 'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'
    path.write_text(WHOLE.format(name=name, configs=REPOSITORY / 'configs')
                    + "data_root = '/elsewhere/'\nnum_classes = 7\n")
    cfg = load_config(path)
    assert cfg.val_evaluator.index == '/elsewhere/prepared/validation/index.arrow'
    assert cfg.train_dataloader.dataset.data_root == '/elsewhere/'
    head = cfg.model.panoptic_head
    assert head.num_things_classes == 7 and len(head.loss_cls.class_weight) == 8


def test_a_config_without_our_pieces_or_with_an_unknown_key_is_refused():
    with pytest.raises(ValueError, match=r'_base_/openimages\.py'):
        for_open_images(Config({'model': {}})._cfg_dict)
    with pytest.raises(ValueError, match='optimizer'):
        for_open_images(Config({'model': {}, 'openimages': {}})._cfg_dict, keep=('optimizer',))


def test_a_missing_package_is_a_users_error():
    from projects.openimages.mm.models.adapting import need_package
    need_package('torch', 'everything')
    with pytest.raises(UserError, match='nothing_of_this_name'):
        need_package('nothing_of_this_name', 'something')
