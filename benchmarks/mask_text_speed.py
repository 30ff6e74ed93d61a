"""From mask logits to RLE: the stock head with pycocotools beside the box-only head.

    python benchmarks/mask_text_speed.py                       quick: 3 images
    python benchmarks/mask_text_speed.py --images 20 --rounds 5

One CPU thread, 100 detections of 1024 x 768 pixels with 28 x 28 maps, both heads on the same maps
and boxes; the bytes are compared before anything is timed. "Interpolation alone" samples each box
with grid_sample and throws the values away: what the stock arithmetic costs at the least. On a
GPU (--device cuda), the stock column is what MMDetection does there: paste, copy the stack to the
host, encode; add --warmup 3.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from projects.openimages.masks import encode_text
from projects.openimages.mm.models.mask_head import BoxMaskHead

TEST_CFG = ConfigDict(mask_thr_binary=0.5)
SMALL_HEAD = {'num_convs': 0, 'in_channels': 1, 'conv_out_channels': 1, 'num_classes': 1,
              'class_agnostic': True}
ROWS = {'paste': 'stock head, paste', 'encode': 'copy and encode', 'stock': 'stock, both',
        'interpolate': 'interpolation alone', 'ours': 'box-only head',
        'text': 'zlib and base64, either way'}


def make_image(seed: int, count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """(N, 1, 28, 28) logits of blobs, and (N, 4) boxes, log-uniform between 16 and 500 pixels."""
    generator = torch.Generator().manual_seed(seed)
    sides = torch.exp(torch.rand(count, 2, generator=generator) * np.log(500 / 16) + np.log(16))
    centres = torch.rand(count, 2, generator=generator) * torch.tensor([width, height])
    boxes = torch.cat([centres - sides / 2, centres + sides / 2], 1)
    boxes[:, 0::2].clamp_(0, width)
    boxes[:, 1::2].clamp_(0, height)
    steps = torch.linspace(-1, 1, 28)
    radius = torch.hypot(steps[:, None], steps[None])
    noise = torch.nn.functional.interpolate(torch.randn(count, 1, 5, 5, generator=generator),
                                            28, mode='bicubic')
    return (0.85 - radius) * 8 + noise * 2, boxes


class Ways:
    """The ways to be timed, on one image."""

    def __init__(self, seed: int, args: argparse.Namespace) -> None:
        logits, boxes = make_image(seed, args.detections, args.height, args.width)
        self.logits, self.boxes = logits.to(args.device), boxes.to(args.device)
        self.labels = torch.zeros(len(boxes), dtype=torch.long, device=args.device)
        self.meta = {'ori_shape': (args.height, args.width), 'scale_factor': (1., 1.)}
        self.stock_head, self.box_head = FCNMaskHead(**SMALL_HEAD), BoxMaskHead(**SMALL_HEAD)
        self.pixels, self.found = self.paste(), self.ours()

    def paste(self) -> Tensor:
        return self.stock_head._predict_by_feat_single(self.logits, self.boxes, self.labels,
                                                       self.meta, TEST_CFG)

    def encode(self) -> list[dict]:
        masks = self.pixels.detach().cpu().numpy()
        return [coco_mask.encode(np.array(mask[:, :, None], order='F', dtype='uint8'))[0]
                for mask in masks]  # as mmdet.structures.mask.encode_mask_results does

    def text(self) -> list[str]:
        return [encode_text(rle['counts']) for rle in self.found]

    def stock(self) -> list[dict]:
        self.pixels = self.paste()
        return self.encode()

    def ours(self) -> list[dict]:
        results = InstanceData(bboxes=self.boxes.clone(), labels=self.labels)
        results, = self.box_head.predict_by_feat((self.logits,), [results], [self.meta], TEST_CFG)
        return results.masks.rles

    def interpolate(self) -> None:
        height, width = self.meta['ori_shape']
        maps = self.logits.sigmoid()
        for n in range(len(maps)):
            _do_paste_mask(maps[n:n + 1], self.boxes[n:n + 1], height, width, skip_empty=True)


def best_time(function: Callable[[], object], rounds: int, device: str) -> float:
    """Seconds of the fastest of some rounds."""
    times = []
    for _ in range(rounds):
        _wait(device)
        start = time.perf_counter()
        function()
        _wait(device)
        times.append(time.perf_counter() - start)
    return min(times)


def _wait(device: str) -> None:
    if device.startswith('cuda'):
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=3)
    parser.add_argument('--detections', type=int, default=100)
    parser.add_argument('--width', type=int, default=1024)
    parser.add_argument('--height', type=int, default=768)
    parser.add_argument('--rounds', type=int, default=3, help='the fastest counts')
    parser.add_argument('--warmup', type=int, default=1)
    parser.add_argument('--device', default='cpu')
    args = parser.parse_args()
    torch.set_num_threads(1)
    totals = dict.fromkeys(ROWS, 0.)
    for seed in range(args.images):
        ways = Ways(seed, args)
        if ways.encode() != ways.found:
            sys.exit(f'image {seed}: the two heads differ')
        for name in ROWS:
            for _ in range(args.warmup):
                getattr(ways, name)()
            totals[name] += best_time(getattr(ways, name), args.rounds, args.device) / args.images
    print(f'{args.detections} detections, {args.width}x{args.height}, {args.device}; the same '
          f'bytes on {args.images} images; milliseconds an image')
    for name, label in ROWS.items():
        print(f'{label:<28}{totals[name] * 1e3:8.1f}')
    print(f'stock / box-only: {totals["stock"] / totals["ours"]:.1f}')


if __name__ == '__main__':
    main()
