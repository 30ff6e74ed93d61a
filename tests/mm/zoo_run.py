"""The configs of the zoo at a size for tests: an eighth of the channels, images of 64 pixels."""

from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

from mmengine.config import Config

from projects.openimages.mm.engine.config import load_config
from projects.openimages.mm.models.adapting import mappings
from tests.helpers import REPOSITORY

CONFIGS = sorted((REPOSITORY / 'configs' / 'zoo').glob('*.py'))
RUNNABLE = [path for path in CONFIGS  # ConvNeXt is in a package that this one does not depend on
            if path.stem != 'mask_rcnn_convnext_t' or find_spec('mmpretrain')]

_EIGHTH = ('in_channels', 'out_channels', 'feat_channels', 'conv_out_channels', 'fc_out_channels',
           'embed_dims', 'feedforward_channels', 'num_feats')
_FEWER = {'num_queries': 10, 'num_points': 256, 'max_per_img': 10, 'max_per_image': 10,
          'score_thr': 0.0, 'stacked_convs': 1, 'num_convs': 1, 'num_layers': 2, 'groups': 4,
          'deepen_factor': 0.33, 'widen_factor': 0.125, 'mask_thr_binary': 0.01}
_BACKBONES = {'ResNet': {'depth': 18, 'base_channels': 8, 'stem_channels': 8},
              'ResNeXt': {'base_channels': 8, 'stem_channels': 8, 'depth': 50},
              'mmpretrain.ConvNeXt': {'arch': {'depths': [1, 1, 2, 1],
                                               'channels': [12, 24, 48, 96]}}}


def small_config(path: Path, root: Path, work_dir: Path) -> Config:
    """A config of the zoo, small and from scratch, for one iteration and one test."""
    cfg = load_config(path, {'data_root': root, 'load_from': None})
    for node in list(mappings(cfg.model)):
        for key in _EIGHTH:
            if key in node:
                node[key] = ([number // 8 for number in node[key]]
                             if isinstance(node[key], list) else node[key] // 8)
        node.update({key: value for key, value in _FEWER.items() if key in node})
    cfg.model.backbone.update(_BACKBONES.get(cfg.model.backbone.type, {}), init_cfg=None)
    if cfg.model.backbone.type == 'ResNet':  # of depth 18: blocks without expansion
        _quarter_of_resnet_outputs(cfg.model)
    if cfg.optim_wrapper.type == 'AmpOptimWrapper':  # for a GPU alone
        cfg.optim_wrapper.type = 'OptimWrapper'
        cfg.optim_wrapper.pop('loss_scale', None)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
        for transform in loader.dataset.pipeline:
            if 'scale' in transform:
                transform['scale'] = (64, 64)
            if 'crop_size' in transform:
                transform['crop_size'] = (64, 64)
    cfg.merge_from_dict({
        'work_dir': str(work_dir), 'experiment_name': uuid4().hex, 'train_cfg.max_iters': 1,
        'default_hooks.logger.interval': 1, 'default_hooks.checkpoint.save_best': None,
        'param_scheduler': [], 'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None,
        'randomness': {'seed': 0}})
    return cfg


def _quarter_of_resnet_outputs(model) -> None:
    outputs = [8, 16, 32, 64]
    if 'neck' in model:
        model.neck.in_channels = outputs
    else:
        model.panoptic_head.in_channels = outputs
