#!/usr/bin/env python
"""Draw losses and scores of training runs over their iterations."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.common.errors import UserError, exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()

from projects.openimages.analysis.curves import plot_runs, read_run
from projects.openimages.common.files import atomic_write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument('runs', nargs='+', metavar='RUN',
                        help='work dir of a training, or a scalars.json')
    parser.add_argument('--out', required=True, type=Path, metavar='FILE.png')
    parser.add_argument('--keys', nargs='+', default=[], metavar='NAME',
                        help='which scalars, such as loss_mask openimages/AP/Cat '
                             '(default: loss and mAP)')
    parser.add_argument('--names', nargs='+', metavar='NAME',
                        help='of the runs, in their order (default: as they are given)')
    args = parser.parse_args()
    if args.out.suffix not in ('.png', '.pdf', '.svg'):
        raise UserError('--out takes a name that ends in .png, .pdf or .svg', path=args.out)
    names = args.names or [run.rstrip('/') for run in args.runs]
    if len(names) != len(args.runs):
        raise UserError(f'{len(names)} --names for {len(args.runs)} runs')
    figure = plot_runs({name: read_run(run) for name, run in zip(names, args.runs, strict=True)},
                       args.keys)
    with atomic_write(args.out, 'wb') as file:
        figure.savefig(file, dpi=120, format=args.out.suffix[1:])
    print(args.out)


if __name__ == '__main__':
    run_command(main)
