"""Images a second at test time: stock MMDetection with ``--amp`` beside these configs, in one run.

    python benchmarks/test_time_gpu.py                             on a GPU, batches of 1 and 8
    python benchmarks/test_time_gpu.py --device cpu --batches 1 --batches-timed 2

From images in the host's memory to RLE there, at 1067 x 800 with 100 detections an image, weights
random, every mask its whole box: what is found does not matter for the time, how much does. Arms:

- stock: MMDetection's mask head, which pastes full images; the stack is copied to the host and
  encoded there, as MMDetection's own metric does
- stock amp: the same in mixed precision, as ``test_cfg.fp16`` runs it
- ours: the main config, in float32
- fast: as ``tools/test.py --fast``

Ratios are to stock amp, on a CPU to stock.
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

from projects.openimages.mm.engine.fast import use_mixed_precision
from projects.openimages.mm.models import fast

ROOT = Path(__file__).resolve().parents[1]
ARMS = ('stock', 'stock amp', 'ours', 'fast')
ORIGINAL, RESIZED = (768, 1024), (800, 1067)  # height, width


def build(arm: str, device: str) -> torch.nn.Module:
    """The main config's model as the arm has it, random weights, 100 detections an image."""
    cfg = Config.fromfile(ROOT / 'configs' / 'oi_mask_rcnn_r50.py')
    cfg.model.backbone.init_cfg = None
    if arm.startswith('stock'):
        cfg.model.roi_head.mask_head.type = 'FCNMaskHead'
    cfg.model.test_cfg.rcnn.update(score_thr=0.05, max_per_img=100)
    if arm == 'fast':
        use_mixed_precision(cfg, fast=True)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).to(device).eval()
    resemble_a_trained_one(model)
    if arm == 'fast':
        fast.operators_in_float32(model)
        fast.fold_norms(model)
        fast.use_channels_last(model)
    return model


def resemble_a_trained_one(model: torch.nn.Module) -> None:
    """Let masks be whole boxes instead of noise, and regions be of one or a few classes."""
    torch.nn.init.constant_(model.roi_head.mask_head.conv_logits.bias, 3)
    spread: list[torch.Tensor] = []
    classifier = model.roi_head.bbox_head.fc_cls
    hook = classifier.register_forward_hook(lambda _, inputs, logits: spread.append(logits.std()))
    run(model, batch_of(1), mixed=False)
    hook.remove()
    with torch.no_grad():
        classifier.weight *= 5 / spread[0]


def batch_of(size: int) -> dict:
    """Images of noise, as the data loader gives them."""
    meta = {'ori_shape': ORIGINAL, 'img_shape': RESIZED,
            'scale_factor': (RESIZED[1] / ORIGINAL[1], RESIZED[0] / ORIGINAL[0])}
    generator = torch.Generator().manual_seed(0)
    return {'inputs': [torch.randint(0, 256, (3, *RESIZED), generator=generator,
                                     dtype=torch.uint8) for _ in range(size)],
            'data_samples': [DetDataSample(metainfo=meta) for _ in range(size)]}


def run(model: torch.nn.Module, batch: dict, mixed: bool) -> int:
    """Test one batch up to RLEs on the host; returns how many detections there were."""
    count = 0
    device = next(model.parameters()).device.type
    dtype = torch.bfloat16 if device == 'cpu' else torch.float16
    with torch.no_grad(), torch.autocast(device, dtype, enabled=mixed):
        for sample in model.test_step(batch):
            masks = sample.pred_instances.masks
            if isinstance(masks, torch.Tensor):
                masks = encode_mask_results(masks.cpu().numpy())
            count += len(masks)
    return count


def images_a_second(arm: str, device: str, size: int, batches: int) -> tuple[float, int]:
    """Throughput, and detections of the last batch."""
    model, batch = build(arm, device), batch_of(size)
    mixed = arm in ('stock amp', 'fast')
    for _ in range(2):
        count = run(model, batch, mixed)  # warms up
    start = time.perf_counter()
    for _ in range(batches):
        count = run(model, batch, mixed)
    return size * batches / (time.perf_counter() - start), count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--batches', type=int, nargs='+', default=[1, 8], help='batch sizes')
    parser.add_argument('--batches-timed', type=int, default=20)
    parser.add_argument('--arms', nargs='+', choices=ARMS,
                        help='default: all, but no stock amp on a CPU')
    args = parser.parse_args()
    if args.device.startswith('cuda') and not torch.cuda.is_available():
        sys.exit('no GPU here; --device cpu times the CPU')
    register_all_modules(init_default_scope=True)
    on_cpu = args.device == 'cpu'  # where MMCV's operators refuse what stock autocast hands them
    arms = args.arms or [arm for arm in ARMS if not (on_cpu and arm == 'stock amp')]
    device = torch.cuda.get_device_name() if args.device.startswith('cuda') else args.device
    print(f'{device}\nbatch  arm        detections   images/s   ratio')
    for size in args.batches:
        rates = {}
        for arm in arms:
            rates[arm], count = images_a_second(arm, args.device, size, args.batches_timed)
        base = rates.get('stock amp', next(iter(rates.values())))
        for arm, rate in rates.items():
            print(f'{size:>5}  {arm:<10}{count:>11}{rate:>11.2f}{rate / base:>8.2f}', flush=True)


if __name__ == '__main__':
    main()
