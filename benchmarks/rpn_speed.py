"""The proposal network's loss and proposals: MMDetection's head beside the one of ``--fast``.

    python benchmarks/rpn_speed.py                 on a GPU
    python benchmarks/rpn_speed.py --device cpu

Batches of images of 1067 x 800 with ten objects each, random feature maps, the main config's
settings; convolutions are not part of it. Operations are torch's, as handed out in Python and C++:
a GPU that is faster than its CPU waits for them. On a GPU the time is what passes from an idle
device to an idle device.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch.utils._python_dispatch import TorchDispatchMode

from projects.openimages.common.errors import run_command

ROOT = Path(__file__).resolve().parents[1]
HEIGHT, WIDTH, OBJECTS = 800, 1067, 10
PADDED = (800, 1088)


class Counter(TorchDispatchMode):
    """Counts torch's operations."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def build(kind: str, device: str) -> torch.nn.Module:
    """The main config's proposal network as class ``kind``, ours as ``--fast`` has it."""
    model = Config.fromfile(ROOT / 'configs' / 'oi_mask_rcnn_r50.py').model
    if kind == 'BatchRPNHead':
        model.rpn_head.bbox_coder.type = 'ResidentDeltaXYWHBBoxCoder'
    return MODELS.build({**model.rpn_head, 'type': kind, 'train_cfg': model.train_cfg.rpn,
                         'test_cfg': model.train_cfg.rpn_proposal}).to(device)


def make_batch(images: int, device: str) -> tuple:
    """Outputs of the head's convolutions, objects and descriptions of the images."""
    generator = torch.Generator().manual_seed(0)
    outputs = [[torch.randn(images, 3 * values, -(-PADDED[0] // stride), -(-PADDED[1] // stride),
                            generator=generator).to(device).requires_grad_()
                for stride in (4, 8, 16, 32, 64)] for values in (1, 4)]
    objects = []
    for _ in range(images):
        corner = torch.rand(OBJECTS, 2, generator=generator) * torch.tensor([700., 500.])
        size = torch.rand(OBJECTS, 2, generator=generator) * 280 + 20
        objects.append(InstanceData(bboxes=torch.cat([corner, corner + size], 1),
                                    labels=torch.zeros(OBJECTS, dtype=torch.long)).to(device))
    meta = {'img_shape': (HEIGHT, WIDTH), 'pad_shape': PADDED, 'batch_input_shape': PADDED,
            'scale_factor': (1., 1.)}
    return outputs, objects, [meta] * images


def step(head: torch.nn.Module, outputs: list, objects: list, metas: list) -> None:
    """What a training step does with the head's outputs, but for the backward pass."""
    head.loss_by_feat(*outputs, objects, metas)
    head.predict_by_feat(*outputs, batch_img_metas=metas, cfg=head.test_cfg)


def measure(head: torch.nn.Module, batch: tuple, steps: int, device: str) -> tuple[int, float]:
    """Operations, and milliseconds of a GPU's wall clock or of CPU time, a step."""
    on_gpu = device.startswith('cuda')
    for _ in range(2):  # warms up; anchors are kept from the first
        with Counter() as counter:
            step(head, *batch)
    if on_gpu:
        torch.cuda.synchronize()
    clock = time.perf_counter if on_gpu else time.process_time
    start = clock()
    for _ in range(steps):
        step(head, *batch)
    if on_gpu:
        torch.cuda.synchronize()
    return counter.count, (clock() - start) / steps * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--images', type=int, default=8, help='a batch (default: %(default)s)')
    parser.add_argument('--steps', type=int, default=10, help='timed (default: %(default)s)')
    args = parser.parse_args()
    if args.device.startswith('cuda') and not torch.cuda.is_available():
        sys.exit('no GPU here; --device cpu times the CPU')
    import projects.openimages.mm  # noqa: F401  # fills the registries
    batch = make_batch(args.images, args.device)
    print(f'{"":<16}{"operations":>12}{"ms a batch":>12}')
    found = []
    for kind in ('RPNHead', 'BatchRPNHead'):
        found.append(measure(build(kind, args.device), batch, args.steps, args.device))
        print(f'{kind:<16}{found[-1][0]:>12}{found[-1][1]:>12.1f}')
    ratios = [stock / ours for stock, ours in zip(*found, strict=True)]
    print(f'{"stock / ours":<16}{ratios[0]:>12.2f}{ratios[1]:>12.2f}')


if __name__ == '__main__':
    run_command(main)
