"""The smallest training there is, for tests that start real processes: config and a witness hook.

MMEngine reads this module as a config's custom import; the hook writes which images each process
trained on, iteration by iteration.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from mmdet.registry import HOOKS
from mmengine.dist import get_rank
from mmengine.hooks import Hook

from tests.helpers import REPOSITORY, run_tool

CONFIG = f'''
_base_ = '{REPOSITORY}/configs/oi_mask_rcnn_r50_demo.py'
custom_imports = dict(imports=['projects.openimages.mm', 'tests.mm.engine.training_run'])
load = _base_.load_image
small = dict(type='Resize', scale=(64, 48), keep_ratio=True)
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=[
    load, dict(type='LoadAnnotations', with_bbox=True, with_mask=True), small,
    dict(type='RandomFlip', prob=0.5), dict(type='PackInstances')]))
val_dataloader = dict(dataset=dict(pipeline=[load, small, dict(type='PackInstances')]))
test_dataloader = val_dataloader
model = dict(backbone=dict(base_channels=16, stem_channels=16),
             neck=dict(in_channels=[16, 32, 64, 128]),
             test_cfg=dict(rcnn=dict(score_thr=0.0, max_per_img=10)))
train_cfg = dict(max_iters=12, val_interval=12)
default_hooks = dict(checkpoint=dict(interval=3), logger=dict(interval=1))
custom_hooks = [dict(type='WitnessHook')]
'''
NO_VALIDATION = '''
val_cfg = None
val_dataloader = None
val_evaluator = None
default_hooks['checkpoint']['_delete_'] = True
default_hooks['checkpoint'].update(type='CheckpointHook', by_epoch=False)
'''


@HOOKS.register_module()
class WitnessHook(Hook):
    """Appends ``iteration image_id image_id ...`` to ``$WITNESS.<rank>``."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        ids = ' '.join(sample.image_id for sample in data_batch['data_samples'])
        with open(f'{os.environ["WITNESS"]}.{get_rank()}', 'a') as file:
            file.write(f'{runner.iter} {ids}\n')


def write_config(folder: Path, text: str = '') -> Path:
    """The config as a file, with lines of the test's own after it."""
    path = folder / 'small.py'
    path.write_text(CONFIG + text)
    return path


def environment(witness: Path) -> dict[str, str]:
    return {**os.environ, 'WITNESS': str(witness), 'OMP_NUM_THREADS': '1'}


def torchrun(*arguments, witness: Path, **variables: str):
    """Run a tool in two processes."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    return run_tool('-m', 'torch.distributed.run', '--nproc_per_node=2', f'--master_port={port}',
                    *arguments, '--launcher', 'pytorch', env={**environment(witness), **variables})


@dataclass(frozen=True)
class TrainedRun:
    """A finished training: its config, folder, the hook's records, and what it printed."""

    config: Path
    folder: Path
    order: Path
    output: str

    @property
    def checkpoint(self) -> Path:
        return self.folder / 'iter_3.pth'

    @property
    def logs(self) -> Path:
        """Where its scalars are."""
        [folder] = self.folder.glob('*/vis_data')
        return folder
