"""Images a second in training: stock MMDetection with ``--amp`` beside these configs, in one run.

    python benchmarks/train_speed.py              on a GPU: the main config, 500 iterations of 8
    python benchmarks/train_speed.py --device cpu      the demo's size, some minutes on two cores

All train the same detector from the same weights on the same images, which are made for it:

- stock: MMDetection's dataset, pipeline, assigner and mask head on the prepared ``coco.json``, in
  mixed precision on a GPU (MMDetection has none on a CPU)
- ours: this project's parts, in float32
- fast: ours as ``tools/train.py --fast`` trains
- compiled: as ``--fast --compile``, on request
- recipe, recipe-fast: the recipe's config in float32 and with ``--fast``, on request; other heads,
  so the loss is another

Each is a process of its own. The rate leaves out the first iterations, in which workers start and
kernels are chosen. CPU seconds are the training process's own, without loaders; memory is the
GPU's peak, or on a CPU the process's. Ratios are to stock: of images a second on a GPU, of CPU
seconds in one thread on a CPU, which other work on the machine changes less.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from mmdet.registry import HOOKS
from mmengine.config import Config
from mmengine.hooks import Hook

from projects.openimages.demo import make_demo_data
from projects.openimages.mm.engine.config import build_model, build_runner, load_config
from projects.openimages.mm.engine.fast import train_fast
from projects.openimages.mm.models.adapting import mappings

ROOT = Path(__file__).resolve().parents[1]
ARMS = ('stock', 'ours', 'fast', 'compiled', 'recipe', 'recipe-fast')
STOCK = {'IgnoreAwareAssigner': 'MaxIoUAssigner', 'BoxMaskHead': 'FCNMaskHead',
         'LoadRleAnnotations': 'LoadAnnotations', 'PackInstances': 'PackDetInputs',
         'ResumableAspectRatioBatchSampler': 'AspectRatioBatchSampler',
         'ResumableTrainLoop': 'IterBasedTrainLoop', 'InfiniteClassAwareSampler': 'InfiniteSampler'}
KEEPING = 20  # losses whose mean is the last one


@HOOKS.register_module()
class RateHook(Hook):
    """Times the iterations from ``warm`` on, and keeps their losses."""

    priority = 'VERY_LOW'

    def __init__(self, warm: int) -> None:
        self.warm = warm
        self.losses: list[torch.Tensor] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Start the clocks."""
        if batch_idx == self.warm:
            self.start = self._now()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None,
                         outputs: Any = None) -> None:
        """Keep the loss, on the device: asking for it would wait."""
        self.losses = [*self.losses[1 - KEEPING:], outputs['loss'].detach()]

    def after_train(self, runner: Any) -> None:
        """Stop them."""
        wall, cpu = (end - start for start, end in zip(self.start, self._now(), strict=True))
        images = (runner.max_iters - self.warm) * runner.train_dataloader.batch_sampler.batch_size
        gpu = torch.cuda.is_available()
        memory = (torch.cuda.max_memory_allocated() if gpu else
                  resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        self.result = {'images a second': images / wall, 'cpu s an image': cpu / images,
                       'memory': memory / 1e9, 'loss': torch.stack(self.losses).mean().item()}

    @staticmethod
    def _now() -> tuple[float, float]:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()


def is_recipe(arm: str) -> bool:
    return arm.startswith('recipe')


def start_file(arm: str, root: Path) -> Path:
    """Where the weights are that all arms of a detector start from."""
    return root / ('start_recipe.pth' if is_recipe(arm) else 'start.pth')


def make_config(arm: str, root: Path, gpu: bool, args: argparse.Namespace) -> Config:
    """The config of one arm, for the same iterations from the same weights."""
    name = f'oi_mask_rcnn_r50{"_federated" if is_recipe(arm) else ""}{"" if gpu else "_demo"}.py'
    cfg = load_config(ROOT / 'configs' / name,
                      {'data_root': str(root), 'model.backbone.init_cfg': None})
    cfg.merge_from_dict({
        'load_from': str(start_file(arm, root)), 'work_dir': str(root / arm), 'val_cfg': None,
        'val_dataloader': None, 'val_evaluator': None, 'train_cfg.max_iters': args.iterations,
        'train_dataloader.batch_size': args.batch_size, 'randomness.seed': 0,
        'train_dataloader.num_workers': args.workers, 'log_level': 'WARNING',
        'train_dataloader.persistent_workers': args.workers > 0,
        'train_dataloader.sampler.type': 'InfiniteSampler', 'default_hooks.logger.interval': 10**9,
        'default_hooks.checkpoint.interval': -1, 'default_hooks.checkpoint.save_best': None,
        'model.backbone.norm_eval': True, 'optim_wrapper.optimizer.lr': 1e-3 if gpu else 1e-4})
    cfg.param_scheduler = []
    if arm == 'stock':
        make_stock(cfg, root)
        if gpu:  # as tools/train.py --amp does
            cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    if arm in ('fast', 'compiled', 'recipe-fast'):
        train_fast(cfg, compile_parts=arm == 'compiled')
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), {'type': 'RateHook', 'warm': args.warm}]
    return cfg


def make_stock(cfg: Config, root: Path) -> None:
    """Put MMDetection's own parts in the place of this project's, in a config."""
    for node in [*mappings(cfg.model), *mappings(cfg.train_dataloader), cfg.train_cfg]:
        if node.get('type') in STOCK:
            node['type'] = STOCK[node['type']]
            node.pop('ignore_thr', None)
    classes = [item['name'] for item in json.loads(
        (root / 'prepared' / 'train' / 'coco.json').read_text())['categories']]
    cfg.train_dataloader.dataset.update(
        type='CocoDataset', ann_file='prepared/train/coco.json', metainfo={'classes': classes})
    for name in ('ignored_instances', 'unreadable_images', 'class_scores'):
        cfg.default_hooks.pop(name)


def train(arm: str, root: Path, gpu: bool, args: argparse.Namespace) -> dict[str, float]:
    """Train one arm; what the hook measured."""
    cfg = make_config(arm, root, gpu, args)
    start = start_file(arm, root)
    if not start.exists():
        torch.manual_seed(0)
        model = build_model(cfg)
        model.init_weights()
        torch.save({'state_dict': model.state_dict()}, start)
    runner = build_runner(cfg)
    runner.train()
    [hook] = [hook for hook in runner.hooks if isinstance(hook, RateHook)]
    return hook.result


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', choices=['cuda', 'cpu'], default='cuda')
    parser.add_argument('--arms', nargs='+', choices=ARMS, default=list(ARMS[:3]))
    parser.add_argument('--iterations', type=int, help='default: 500, on a CPU 16')
    parser.add_argument('--warm', type=int, help='iterations before the clock: 50, on a CPU 4')
    parser.add_argument('--batch-size', type=int, help='default: 8, on a CPU 2')
    parser.add_argument('--workers', type=int, help='default: 8, on a CPU 1')
    parser.add_argument('--images', type=int, help='to make: 2000, on a CPU 60')
    parser.add_argument('--root', type=Path, help=argparse.SUPPRESS)  # of an arm's own process
    args = parser.parse_args()
    small = args.device == 'cpu'
    for name, (large_value, small_value) in {
            'iterations': (500, 16), 'warm': (50, 4), 'batch_size': (8, 2), 'workers': (8, 1),
            'images': (2000, 60)}.items():
        if getattr(args, name) is None:
            setattr(args, name, small_value if small else large_value)
    return args


def measure(args: argparse.Namespace, root: Path) -> None:
    """Make the data, run every arm in a process of its own, and print the table."""
    make_demo_data(root, num_images=args.images)
    subprocess.run([sys.executable, ROOT / 'tools' / 'prepare_data.py', '--data-root', root,
                    '--split', 'train'], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    device = torch.cuda.get_device_name() if args.device == 'cuda' else 'CPU'
    print(f'{device}, {args.iterations} iterations of {args.batch_size} images\n'
          'arm         images/s   ratio   CPU s/image   memory GB    loss')
    base = None
    environment = dict(os.environ)
    if args.device == 'cpu':  # threads that wait for each other would count as work
        environment |= {'CUDA_VISIBLE_DEVICES': '', 'OMP_NUM_THREADS': '1'}
    options = [f'--{name.replace("_", "-")}={getattr(args, name)}' for name in
               ('device', 'iterations', 'warm', 'batch_size', 'workers')]
    for arm in args.arms:
        done = subprocess.run(
            [sys.executable, __file__, '--arms', arm, '--root', root, *options], text=True,
            capture_output=True, env=environment, check=False)
        if done.returncode:
            sys.exit(f'{arm}: {done.stderr[-3000:]}')
        found = json.loads(done.stdout.splitlines()[-1])
        speed = found['images a second'] if args.device == 'cuda' else 1 / found['cpu s an image']
        base = base or speed
        print(f'{arm:<12}{found["images a second"]:>8.2f}{speed / base:>8.2f}'
              f'{found["cpu s an image"]:>14.3f}{found["memory"]:>12.2f}{found["loss"]:>8.3f}',
              flush=True)


def main() -> None:
    args = parse_args()
    if args.root:
        [arm] = args.arms
        print(json.dumps(train(arm, args.root, args.device == 'cuda', args)))
        return
    if args.device == 'cuda' and not torch.cuda.is_available():
        sys.exit('no GPU here; --device cpu trains a small model on the CPU')
    with TemporaryDirectory() as folder:
        measure(args, Path(folder) / 'data')


if __name__ == '__main__':
    main()
