#!/usr/bin/env python
"""Make a small data set in exactly the official layout of the Open Images 2019 challenge."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.common.errors import run_command
from projects.openimages.demo import DEFAULT_IMAGES, make_demo_data


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', required=True, help='folder to make')
    parser.add_argument('--images', type=int, default=DEFAULT_IMAGES,
                        help='training images; validation and test get a fifth of that each, but '
                             'at least 8 (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='same seed, same bytes')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    made = make_demo_data(args.out, args.images, args.seed)
    print(f'{args.out}: ' + ('written' if made else 'already there, reused'))


if __name__ == '__main__':
    run_command(main)
