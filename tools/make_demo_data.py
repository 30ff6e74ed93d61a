#!/usr/bin/env python
"""Make a small data set in exactly the official layout of the Open Images 2019 challenge.

The plain world is for trying the commands in minutes (docs/demo_data.md), the hard one has the
difficulties of Open Images, to prove training recipes on (docs/hard_world.md).
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.common.errors import UserError, exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()

from projects.openimages.demo import DEFAULT_IMAGES, hard, make_demo_data


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', required=True, help='folder to make')
    parser.add_argument('--world', choices=('plain', 'hard'), default='plain')
    parser.add_argument('--images', type=int,
                        help='training images; validation and test get a fifth of that each, but '
                             f'at least 8 (default: {DEFAULT_IMAGES}, '
                             f'in the hard world {hard.DEFAULT_IMAGES})')
    parser.add_argument('--seed', type=int, default=0, help='same seed, same bytes')
    parser.add_argument('--variant', choices=('A', 'B'),
                        help='of the hard world: other classes with other looks (default: A)')
    parser.add_argument('--set', nargs='+', action='extend', metavar='KNOB=VALUE',
                        help='difficulties of the hard world, such as --set tail=1 recall=1')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.world == 'hard':
        made = hard.make_hard_world(
            args.out, hard.DEFAULT_IMAGES if args.images is None else args.images, args.seed,
            args.variant or 'A', hard.Knobs.parse(args.set or ()))
    elif args.variant or args.set:
        raise UserError('--variant and --set are of the hard world: add --world hard')
    else:
        made = make_demo_data(args.out, DEFAULT_IMAGES if args.images is None else args.images,
                              args.seed)
    print(f'{args.out}: ' + ('written' if made else 'already there, reused'))


if __name__ == '__main__':
    run_command(main)
