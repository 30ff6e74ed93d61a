"""A test run with a toy model, for the dump's tests.

    python -m tests.mm.evaluation.dump_run OUT [options]

The toy model answers at once with detections drawn from the image's number, so a run takes as long
as ``--delay`` says and the same images always give the same rows.
"""

import argparse
import time
import uuid

import numpy as np
import torch
from mmdet.registry import DATASETS, METRICS, MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch.utils.data import Dataset

from projects.openimages.common.errors import run_command
from projects.openimages.labels import LabelSpace
from projects.openimages.masks import rle_from_crop, rle_to_mask
from projects.openimages.mm.engine.processes import start_processes
from projects.openimages.mm.evaluation.submission_dump import add_submission_dump

MIDS = ('/m/0animal', '/m/0cat', '/m/0dog')
HEIGHT, WIDTH = 48, 64


@DATASETS.register_module()
class ToyImages(Dataset):
    """Images that are only a number; every third has no detections."""

    def __init__(self, num_images, bad=(), pipeline=()):
        self.num_images, self.bad, self.pipeline = num_images, bad, pipeline
        self.metainfo = {'classes': ('Animal', 'Cat', 'Dog'), 'mids': MIDS}
        above = np.zeros((3, 3), bool)
        above[1:, 0] = True
        self.label_space = LabelSpace(MIDS, self.metainfo['classes'], above)

    def __len__(self):
        return self.num_images

    def __getitem__(self, index):
        sample = DetDataSample(metainfo={
            'image_id': f'{index:016x}', 'ori_shape': (HEIGHT, WIDTH), 'number': index,
            'img_path': f'images/{index:016x}.jpg'})
        if index in self.bad:
            sample.set_metainfo({'unreadable': 'not a readable image'})
        return {'inputs': torch.zeros(3, 4, 4), 'data_samples': sample}


@MODELS.register_module()
class ToyDetector(BaseModel):
    """Detections from the image's number; ``tensor_masks`` gives pixels, as the stock head does."""

    def __init__(self, delay=0., tensor_masks=False):
        super().__init__()
        self.delay, self.tensor_masks = delay, tensor_masks
        self.weight = torch.nn.Parameter(torch.zeros(1))  # something for processes to share

    def forward(self, inputs, data_samples=None, mode='tensor'):
        time.sleep(self.delay)
        for sample in data_samples:
            sample.pred_instances = detections(sample.number, self.tensor_masks)
        return data_samples


@METRICS.register_module()
class ToyMetric(BaseMetric):
    """Counts images."""

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return {'images': len(results)}


def detections(number, tensor_masks=False) -> InstanceData:
    random = np.random.default_rng(number)
    count = 0 if number % 3 == 0 else int(random.integers(1, 5))
    masks = []
    for _ in range(count):
        height, width = random.integers(0, 12, 2)
        masks.append(rle_from_crop(random.random((height, width)) < 0.7, 5, 7, HEIGHT, WIDTH))
    if tensor_masks:
        masks = torch.from_numpy(np.array([rle_to_mask(mask) for mask in masks], bool).reshape(
            count, HEIGHT, WIDTH))
    return InstanceData(
        bboxes=torch.zeros(count, 4), labels=torch.from_numpy(random.integers(0, 3, count)),
        scores=torch.from_numpy(random.random(count, np.float32)), masks=masks)


def make_config(work_dir, num_images, delay=0., batch_size=2, bad=(),
                tensor_masks=False) -> Config:
    return Config({
        'default_scope': 'mmdet', 'work_dir': str(work_dir),
        'experiment_name': uuid.uuid4().hex,  # MMEngine keeps loggers by name
        'model': {'type': 'ToyDetector', 'delay': delay, 'tensor_masks': tensor_masks},
        'test_dataloader': {
            'batch_size': batch_size, 'num_workers': 0, 'collate_fn': {'type': 'pseudo_collate'},
            'dataset': {'type': 'ToyImages', 'num_images': num_images, 'bad': list(bad),
                        'pipeline': [{'type': 'LoadImageFromFile'}]},
            'sampler': {'type': 'DefaultSampler', 'shuffle': False}},
        'test_cfg': {'type': 'TestLoop'}, 'test_evaluator': [{'type': 'ToyMetric'}],
        'log_level': 'INFO'})


def run(cfg, out, **options) -> dict:
    """Write the submission; returns what the metrics say."""
    add_submission_dump(cfg, out, **options)
    return Runner.from_cfg(cfg).test()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('out')
    parser.add_argument('--images', type=int, default=40)
    parser.add_argument('--delay', type=float, default=0.)
    parser.add_argument('--bad', type=int, nargs='*', default=())
    parser.add_argument('--launcher', default='none')
    parser.add_argument('--resume', action='store_true')
    parser.add_argument('--skip-bad', action='store_true')
    args = parser.parse_args()
    cfg = make_config(args.out + '.work', args.images, args.delay, bad=args.bad)
    start_processes(cfg, args.launcher)
    run(cfg, args.out, resume=args.resume, skip_bad=args.skip_bad)


if __name__ == '__main__':
    run_command(main)
