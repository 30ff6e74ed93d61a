"""A model that takes ignored instances for background is named before it is trained."""

import pytest
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.runner import Runner

from projects.openimages.mm.engine.config import build_model
from projects.openimages.mm.models.adapting import adapt_model
from projects.openimages.mm.models.ignored import unaware_parts
from tests.mm.zoo_run import CONFIGS, small_config

MAX_IOU = '(MaxIoUAssigner)'


@pytest.mark.parametrize(('name', 'stock', 'adapted'), [
    ('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', [f'rpn_head {MAX_IOU}', f'roi_head {MAX_IOU}'], []),
    ('cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
     [f'rpn_head {MAX_IOU}', f'roi_head {MAX_IOU}'], []),
    ('rtmdet/rtmdet-ins_l_8xb32-300e_coco.py', ['bbox_head (DynamicSoftLabelAssigner)'], []),
    ('mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', ['panoptic_head (HungarianAssigner)'],
     []),
    ('tood/tood_r50_fpn_1x_coco.py',
     ['bbox_head (ATSSAssigner)', 'bbox_head (TaskAlignedAssigner)'], []),
    ('queryinst/queryinst_r50_fpn_1x_coco.py', ['roi_head (HungarianAssigner)'],
     ['roi_head (HungarianAssigner)']),
    ('solov2/solov2_r50_fpn_1x_coco.py', ['SOLOv2'], ['SOLOv2'])])
def test_parts_that_do_not_ignore_are_named(name, stock, adapted):
    cfg = Config({'model': get_config(f'mmdet::{name}').model})
    cfg.model.backbone.init_cfg = None
    assert unaware_parts(build_model(cfg)) == stock
    adapt_model(cfg.model, 3)
    assert unaware_parts(build_model(cfg)) == adapted


@pytest.mark.parametrize('told', [False, True])
def test_training_warns_before_it_starts(demo_root, tmp_path, told):
    [path] = [path for path in CONFIGS if path.stem == 'mask_rcnn_r50_fedloss']
    cfg = small_config(path, demo_root, tmp_path)
    if not told:
        assigner = cfg.model.train_cfg.rpn.assigner
        assigner.type = 'MaxIoUAssigner'
        del assigner['ignore_thr']
    Runner.from_cfg(cfg).train()
    [log] = tmp_path.glob('*/*.log')
    assert (f'rpn_head {MAX_IOU}: ignored instances' in log.read_text()) is not told
    assert 'roi_head (' not in log.read_text()
