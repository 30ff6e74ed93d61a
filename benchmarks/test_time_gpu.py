"""Images a second at test time: the R50 model with the stock mask head and with the box-only one.

    python benchmarks/test_time_gpu.py                             on a GPU, batches of 1 and 8
    python benchmarks/test_time_gpu.py --device cpu --batches 1 --batches-timed 2

From images on the device to RLE on the host, at 1333 x 800 with 100 detections an image, weights
random: what is found does not matter for the time, how much does. The stock column does what
MMDetection does: paste full images, copy the stack to the host, encode.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import encode_mask_results
from mmdet.utils import register_all_modules
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[1]
ORIGINAL, RESIZED = (768, 1024), (800, 1067)  # height, width


def build(head: str, device: str) -> torch.nn.Module:
    """The main config's model with a mask head, random weights, 100 detections an image."""
    cfg = Config.fromfile(ROOT / 'configs' / 'oi_mask_rcnn_r50.py')
    cfg.model.backbone.init_cfg = None
    cfg.model.roi_head.mask_head.type = head
    cfg.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=100)
    torch.manual_seed(0)
    return MODELS.build(cfg.model).to(device).eval()


def batch_of(size: int) -> dict:
    """Images of noise, as the data loader gives them."""
    meta = {'ori_shape': ORIGINAL, 'img_shape': RESIZED,
            'scale_factor': (RESIZED[1] / ORIGINAL[1], RESIZED[0] / ORIGINAL[0])}
    generator = torch.Generator().manual_seed(0)
    return {'inputs': [torch.randint(0, 256, (3, *RESIZED), generator=generator,
                                     dtype=torch.uint8) for _ in range(size)],
            'data_samples': [DetDataSample(metainfo=meta) for _ in range(size)]}


def run(model: torch.nn.Module, batch: dict) -> int:
    """Test one batch up to RLEs on the host; returns how many detections there were."""
    count = 0
    with torch.no_grad():
        for sample in model.test_step(batch):
            masks = sample.pred_instances.masks
            if isinstance(masks, torch.Tensor):
                masks = encode_mask_results(masks.cpu().numpy())
            count += len(masks)
    return count


def images_a_second(model: torch.nn.Module, size: int, batches: int) -> tuple[float, int]:
    """Throughput, and detections of the last batch."""
    batch = batch_of(size)
    count = run(model, batch)  # warms up
    start = time.perf_counter()
    for _ in range(batches):
        count = run(model, batch)
    return size * batches / (time.perf_counter() - start), count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--batches', type=int, nargs='+', default=[1, 8], help='batch sizes')
    parser.add_argument('--batches-timed', type=int, default=20)
    args = parser.parse_args()
    if args.device.startswith('cuda') and not torch.cuda.is_available():
        sys.exit('no GPU here; --device cpu times the CPU')
    register_all_modules(init_default_scope=True)
    print(f'{args.device}, images a second\nbatch  detections   stock  box-only   ratio')
    for size in args.batches:
        rates = {}
        for head in ('FCNMaskHead', 'BoxMaskHead'):
            rates[head], count = images_a_second(build(head, args.device), size,
                                                 args.batches_timed)
        stock, ours = rates.values()
        print(f'{size:>5}{count:>12}{stock:>8.2f}{ours:>10.2f}{ours / stock:>8.2f}', flush=True)


if __name__ == '__main__':
    main()
