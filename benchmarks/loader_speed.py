"""What masks cost a loader and the training process: MMDetection's bitmaps beside run lengths.

    python benchmarks/loader_speed.py                       quick
    python benchmarks/loader_speed.py --rounds 40 --images 8

Images of 1024 x 768 from JPEG files, scaled to 1067 x 800 and flipped, with wavy blobs of 16 to 500
pixels as instances, in one process with one thread. Both ways, and the same pipeline without masks,
take turns; each figure is a median of CPU times. Before anything is timed the pixels of both are
compared, and their mask targets.

- an image: decode, load annotations, scale, flip, pack and pickle, as a loader's worker does.
- pickled: what the worker sends besides the image.
- a batch: what taking a batch of two from a worker costs the training process.
- targets: 28 x 28 mask targets of 128 boxes near the instances, on the CPU.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmcv.transforms import Compose
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

import projects.openimages.mm  # noqa: F401
from projects.openimages.masks import bbox, rle_from_mask

HEIGHT, WIDTH = 768, 1024
TARGETS = 128
ANNOTATIONS = {
    'no masks': {'type': 'LoadAnnotations', 'with_bbox': True},
    'bitmaps': {'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True},
    'run lengths': {'type': 'LoadRleAnnotations', 'with_bbox': True}}


def pipeline(way: str) -> Compose:
    return Compose([
        {'type': 'LoadImageFromFile'}, ANNOTATIONS[way],
        {'type': 'Resize', 'scale': (1333, 800), 'keep_ratio': True},
        {'type': 'RandomFlip', 'prob': 1.0}, {'type': 'PackDetInputs'}])


def write_image(path: Path, rng: np.random.Generator) -> None:
    """A picture of soft patches with a little noise; some 250 kB as JPEG."""
    coarse = rng.integers(0, 255, (HEIGHT // 24, WIDTH // 24, 3), np.uint8)
    image = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    noise = rng.normal(0, 5, image.shape)
    cv2.imwrite(str(path), np.clip(image + noise, 0, 255).astype(np.uint8))


def make_instance(rng: np.random.Generator) -> dict[str, Any]:
    """An instance as ``OpenImagesInstanceDataset`` gives it."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    width, height = np.exp(rng.uniform(np.log(16), np.log(500), 2))
    x, y = (x - rng.integers(0, WIDTH)) / width * 2, (y - rng.integers(0, HEIGHT)) / height * 2
    angle, phase = np.arctan2(y, x), rng.uniform(0, 2 * np.pi, 2)
    edge = 0.8 + 0.12 * np.sin(5 * angle + phase[0]) + 0.06 * np.sin(13 * angle + phase[1])
    rle = rle_from_mask(np.hypot(x, y) < edge)
    left, top, width, height = bbox([rle])[0].tolist()
    return {'bbox': [left, top, left + width, top + height], 'bbox_label': 0, 'ignore_flag': 0,
            'mask': {'size': rle['size'], 'counts': rle['counts'].decode('ascii')}}


def make_items(folder: Path, count: int, instances: int) -> list[dict[str, Any]]:
    items = []
    for number in range(count):
        rng = np.random.default_rng(number)
        path = folder / f'{number}.jpg'
        if not path.exists():
            write_image(path, rng)
        items.append({'img_path': str(path), 'height': HEIGHT, 'width': WIDTH,
                      'instances': [make_instance(rng) for _ in range(instances)]})
    return items


def in_turns(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of CPU time of each way, all ways in turn.

    Of two calls the second counts, so that none pays for the caches its forerunner has filled.
    """
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, function in ways.items():
            function()
            start = time.process_time()
            function()
            times[way].append(time.process_time() - start)
    return {way: median(taken) * 1e3 for way, taken in times.items()}


def time_loading(items: list[dict], rounds: int) -> dict[str, float]:
    def load(way: str) -> None:
        for item in items:
            pickle.dumps(pipelines[way]({**item})['data_samples'])

    pipelines = {way: pipeline(way) for way in ANNOTATIONS}
    return in_turns({way: partial(load, way) for way in ANNOTATIONS}, rounds)


class Packed(torch.utils.data.Dataset):
    """Ready items again and again, so that the worker is never waited for."""

    def __init__(self, items: list[dict], length: int) -> None:
        self.items, self.length = items, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict:
        return self.items[number % len(self.items)]


def time_receiving(packed: dict[str, list[dict]], rounds: int) -> dict[str, float]:
    """Milliseconds of the training process's CPU time a batch of two."""
    loaders = {way: iter(DataLoader(Packed(items, 4 * rounds + 40), batch_size=2, num_workers=1,
                                    collate_fn=pseudo_collate)) for way, items in packed.items()}
    for loader in loaders.values():
        for _ in range(5):
            next(loader)
    return in_turns({way: partial(next, loader) for way, loader in loaders.items()}, rounds)


def time_targets(packed: dict[str, list[dict]], rounds: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    ways = {}
    for way, items in packed.items():
        truth = items[0]['data_samples'].gt_instances
        tight = truth.bboxes.tensor.numpy()
        owners = np.arange(TARGETS) % len(tight)
        if not ways:
            sizes = np.tile(tight[owners, 2:] - tight[owners, :2], 2)
            boxes = tight[owners] + rng.uniform(-0.15, 0.15, (TARGETS, 4)) * sizes
            height, width = truth.masks.height, truth.masks.width
            boxes = np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)
        ways[way] = partial(truth.masks.crop_and_resize, boxes, (28, 28), owners)
    first, second = (function().to_ndarray() for function in ways.values())
    if (first != second).sum() > 1e-4 * first.size:
        sys.exit(f'{(first != second).sum()} of {first.size} target pixels differ')
    return in_turns(ways, rounds)


def check_pixels(packed: dict[str, list[dict]]) -> None:
    for first, second in zip(*packed.values(), strict=True):
        masks, others = (item['data_samples'].gt_instances.masks for item in (first, second))
        if not np.array_equal(masks.to_ndarray(), others.to_ndarray()):
            sys.exit('the masks differ')


def report(name: str, times: dict[str, float], unit: str = 'ms') -> None:
    figures = '  '.join(f'{way} {value:9.2f} {unit}' for way, value in times.items())
    ratio = f'bitmaps / run lengths {times["bitmaps"] / times["run lengths"]:6.1f}'
    if 'no masks' in times:
        ratio += f'  run lengths / no masks {times["run lengths"] / times["no masks"]:5.2f}'
    print(f'  {name:<9} {figures}  {ratio}', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=3)
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--instances', type=int, nargs='+', default=[3, 12, 50])
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    init_default_scope('mmdet')
    with TemporaryDirectory() as folder:
        for count in args.instances:
            items = make_items(Path(folder), args.images, count)
            packed = {way: [pipeline(way)({**item}) for item in items] for way in ANNOTATIONS}
            with_masks = {way: packed[way] for way in ('bitmaps', 'run lengths')}
            check_pixels(with_masks)
            print(f'{count} instances an image')
            report('an image', {way: value / args.images for way, value in
                                time_loading(items, args.rounds).items()})
            report('pickled', {way: sum(len(pickle.dumps(item['data_samples'])) for item in group)
                               / args.images / 1e3 for way, group in packed.items()}, 'kB')
            report('a batch', time_receiving(packed, 4 * args.rounds))
            report('targets', time_targets(with_masks, args.rounds))


if __name__ == '__main__':
    main()
