"""Memory of the streaming dump against the number of images.

    python benchmarks/dump_memory.py                          quick: 100 and 1000 images
    python benchmarks/dump_memory.py --images 1000 10000

A run of tools/test.py's loop and dump with a model that answers at once with --detections masks of
1024 x 768, each number of images in a process of its own; prints the peak of its resident memory
above that of a run with one image, and the size of the submission.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

WIDTH, HEIGHT = 1024, 768


def run_once(images: int, detections: int, out: Path) -> None:
    """Write a submission and print the peak memory of this process in bytes."""
    import numpy as np
    import torch
    from mmdet.registry import DATASETS, MODELS
    from mmdet.structures import DetDataSample
    from mmengine.config import Config
    from mmengine.model import BaseModel
    from mmengine.runner import Runner
    from mmengine.structures import InstanceData

    from projects.openimages.labels import LabelSpace
    from projects.openimages.masks import rle_from_crop
    from projects.openimages.mm.evaluation.submission_dump import add_submission_dump

    mids = tuple(f'/m/0{n:03}' for n in range(300))

    @DATASETS.register_module()
    class Numbers(torch.utils.data.Dataset):
        def __init__(self, pipeline=()):
            self.pipeline = pipeline
            self.metainfo = {'classes': mids, 'mids': mids}
            self.label_space = LabelSpace(mids, mids, np.zeros((300, 300), bool))

        def __len__(self):
            return images

        def __getitem__(self, index):
            return {'inputs': torch.zeros(3, 4, 4), 'data_samples': DetDataSample(metainfo={
                'image_id': f'{index:016x}', 'ori_shape': (HEIGHT, WIDTH), 'number': index})}

    @MODELS.register_module()
    class Instant(BaseModel):
        def forward(self, inputs, data_samples=None, mode='tensor'):
            for sample in data_samples:
                random = np.random.default_rng(sample.number)
                masks = [rle_from_crop(np.tri(*random.integers(20, 200, 2)) > 0,
                                       *random.integers(0, 500, 2).tolist(), HEIGHT, WIDTH)
                         for _ in range(detections)]
                sample.pred_instances = InstanceData(
                    labels=torch.from_numpy(random.integers(0, 300, detections)),
                    scores=torch.from_numpy(random.random(detections, np.float32)), masks=masks)
            return data_samples

    cfg = Config({
        'default_scope': 'mmdet', 'work_dir': str(out.with_suffix('.work')),
        'model': {'type': 'Instant'}, 'test_cfg': {'type': 'TestLoop'}, 'test_evaluator': [],
        'log_level': 'WARNING',
        'test_dataloader': {
            'batch_size': 1, 'num_workers': 0, 'collate_fn': {'type': 'pseudo_collate'},
            'dataset': {'type': 'Numbers', 'pipeline': []},
            'sampler': {'type': 'DefaultSampler', 'shuffle': False}}})
    add_submission_dump(cfg, out)
    Runner.from_cfg(cfg).test()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def measure(images: int, detections: int, folder: Path) -> tuple[int, int]:
    """Peak memory and size of the submission, in bytes."""
    out = folder / f'{images}.csv'
    command = [sys.executable, __file__, '--run', str(images), '--detections', str(detections),
               '--out', str(out)]
    text = subprocess.run(command, capture_output=True, text=True, check=True,
                          env={**os.environ, 'OMP_NUM_THREADS': '1'}).stdout
    return int(text.split()[-1]), out.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, nargs='+', default=[100, 1000])
    parser.add_argument('--detections', type=int, default=20, help='an image')
    parser.add_argument('--run', type=int, help=argparse.SUPPRESS)
    parser.add_argument('--out', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run_once(args.run, args.detections, args.out)
        return
    with tempfile.TemporaryDirectory() as name:
        base, _ = measure(1, args.detections, Path(name))
        print(f'peak memory of a run with 1 image: {base / 1e6:.0f} MB')
        print('  images   above that   submission')
        for images in args.images:
            peak, size = measure(images, args.detections, Path(name))
            print(f'{images:>8}{(peak - base) / 1e6:>10.1f} MB{size / 1e6:>10.1f} MB', flush=True)


if __name__ == '__main__':
    main()
