#!/usr/bin/env python
"""A COCO checkpoint to Open Images start weights.

Reads those of any detector of MMDetection, and Mask R-CNN's of maskrcnn-benchmark and torchvision
(maskrcnn_resnet50_fpn).
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.common.errors import exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()

from projects.openimages.common.files import atomic_write, refuse_to_overwrite
from projects.openimages.common.json_values import write_json
from projects.openimages.common.options import add_json

CONFIG = Path(__file__).resolve().parents[1] / 'configs' / 'oi_mask_rcnn_r50.py'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument('input', metavar='IN', help='checkpoint file, or its https:// address')
    parser.add_argument('output', metavar='OUT', help='start weights, for load_from')
    parser.add_argument('--num-classes', type=int, default=300,
                        help='classes without background (default: %(default)s)')
    parser.add_argument('--config', default=CONFIG,
                        help='the model to start (default: configs/oi_mask_rcnn_r50.py)')
    add_json(parser)
    args = parser.parse_args()
    if args.json:
        refuse_to_overwrite(args.json, args.input, args.output)

    import torch

    from projects.openimages.mm.engine.checkpoints import local_file, read_checkpoint
    from projects.openimages.mm.engine.config import build_model, load_config
    from projects.openimages.mm.engine.start_weights import trim

    checkpoint = read_checkpoint(local_file(args.input))
    cfg = load_config(args.config, {'num_classes': args.num_classes})
    start = trim(checkpoint, build_model(cfg).state_dict(), args.input)
    with atomic_write(args.output, 'wb') as file:
        torch.save({'state_dict': start.state_dict, 'meta': {'scheme': start.scheme}}, file)
    write_json(args.json, start.to_dict())
    print(f'{start.report()}\n{args.output}: {len(start.state_dict)} tensors, for '
          f'{args.num_classes} classes')


if __name__ == '__main__':
    run_command(main)
