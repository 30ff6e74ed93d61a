"""Training of the mask head: MMDetection's, with maps of all classes, beside ours.

    python benchmarks/mask_head_speed.py                 on a GPU
    python benchmarks/mask_head_speed.py --device cpu

Forward and backward pass of the main config's head and its loss, on random features and targets.
Memory is what a step needs at most beyond weights, features and their gradients: on a GPU as torch
allocates it, on a CPU as the process grows, each head in a process of its own. On a GPU the time is
what passes from an idle device to an idle device, on a CPU it is CPU time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmengine.config import Config, ConfigDict

from projects.openimages.common.errors import run_command

ROOT = Path(__file__).resolve().parents[1]
MEGABYTE = 1e6


def build(kind: str, device: str) -> torch.nn.Module:
    """The main config's mask head as class ``kind``, whose targets are given."""
    from mmdet.registry import MODELS

    import projects.openimages.mm  # noqa: F401  # fills the registries
    config = Config.fromfile(ROOT / 'configs' / 'oi_mask_rcnn_r50.py').model.roi_head.mask_head
    return MODELS.build({**config, 'type': kind}).to(device)


def step(head: torch.nn.Module, features: torch.Tensor, labels: torch.Tensor,
         targets: torch.Tensor) -> float:
    """Loss, with gradients of weights and features."""
    head.get_targets = lambda *arguments, **options: targets
    sampled = [ConfigDict(pos_gt_labels=labels)]
    loss = head.loss_and_target(head(features), sampled, [], ConfigDict())['loss_mask']['loss_mask']
    loss.backward()
    return loss.item()


def measure(kind: str, regions: int, steps: int, device: str) -> tuple[float, float, float]:
    """Milliseconds a step, megabytes beyond what stays, and the loss of the first step."""
    torch.manual_seed(0)
    head = build(kind, device)
    features = torch.randn(regions, head.in_channels, 14, 14, device=device, requires_grad=True)
    labels = torch.randint(head.num_classes, (regions,), device=device)
    targets = (torch.rand(regions, 28, 28, device=device) > 0.5).float()
    on_gpu = device.startswith('cuda')
    for weight in [features, *head.parameters()]:
        weight.grad = torch.ones_like(weight)  # touched, so that it counts as there before
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    loss = step(head, features, labels, targets)
    peak = (torch.cuda.max_memory_allocated() if on_gpu else
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    clock = time.perf_counter if on_gpu else time.process_time
    if on_gpu:
        torch.cuda.synchronize()
    start = clock()
    for _ in range(steps):
        step(head, features, labels, targets)
    if on_gpu:
        torch.cuda.synchronize()
    return (clock() - start) / steps * 1e3, (peak - before) / MEGABYTE, loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--regions', type=int, default=256,
                        help='with an object, of a batch (default: %(default)s)')
    parser.add_argument('--steps', type=int, default=5, help='timed (default: %(default)s)')
    args = parser.parse_args()
    if args.device.startswith('cuda') and not torch.cuda.is_available():
        sys.exit('no GPU here; --device cpu times the CPU')
    print(f'{"":<16}{"ms a step":>12}{"MB":>8}{"loss":>12}')
    found = []
    for kind in ('FCNMaskHead', 'BoxMaskHead'):
        with multiprocessing.get_context('spawn').Pool(1) as pool:
            found.append(pool.apply(measure, (kind, args.regions, args.steps, args.device)))
        print(f'{kind:<16}{found[-1][0]:>12.1f}{found[-1][1]:>8.0f}{found[-1][2]:>12.6f}')
    ratios = [stock / max(ours, 1e-3) for stock, ours in zip(*found, strict=True)]
    print(f'{"stock / ours":<16}{ratios[0]:>12.2f}{ratios[1]:>8.2f}')


if __name__ == '__main__':
    run_command(main)
