#!/usr/bin/env python
"""Detect objects in images: overlays, and detections.json, in a folder."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.common.errors import UserError, exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument('config', help='the config that the checkpoint was trained with')
    parser.add_argument('checkpoint', help='its class names are used')
    parser.add_argument('images', nargs='+', metavar='IMAGES', help='files, folders or globs')
    parser.add_argument('--out', required=True, metavar='DIR')
    parser.add_argument('--score-thr', type=float, default=0.3, metavar='T',
                        help='show and write detections from this score on (default: 0.3)')
    parser.add_argument('--max-side', type=int, default=1024, metavar='PIXELS',
                        help='longer side of the overlays (default: 1024)')
    parser.add_argument('--skip-bad', action='store_true',
                        help='leave out images that cannot be read, and say so')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation of the config')
    parser.add_argument('--device', help='such as cpu or cuda:0 (default: the first GPU, if any)')
    parser.add_argument('--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE',
                        help='override config settings')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if not 0 <= args.score_thr <= 1:
        raise UserError(f'--score-thr {args.score_thr}, expected 0 to 1')
    import torch

    from projects.openimages.mm.engine import config as configs
    from projects.openimages.mm.engine.options import read_options
    from projects.openimages.mm.engine.predict import Predictor, find_images, predict

    images = find_images(args.images)
    cfg = configs.load_config(args.config, read_options(args.cfg_options))
    if args.tta:
        configs.use_tta(cfg)
    device = args.device or ('cuda:0' if torch.cuda.is_available() else 'cpu')
    predictor = Predictor(cfg, args.checkpoint, device)
    for line in predict(predictor, images, Path(args.out), score_thr=args.score_thr,
                        skip_bad=args.skip_bad, max_side=args.max_side):
        print(line)
    print(f'{args.out}: {len(images)} images')


if __name__ == '__main__':
    run_command(main)
