#!/usr/bin/env python
"""Weights, classes and settings of a training to hand on, with their digest in the name."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.common.errors import exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument('input', metavar='IN', help='checkpoint')
    parser.add_argument('output', metavar='OUT.pth', help='becomes OUT-<SHA-256, 8 digits>.pth')
    args = parser.parse_args()

    from projects.openimages.mm.engine.publishing import publish

    before = Path(args.input).stat().st_size if Path(args.input).is_file() else 0
    path = publish(args.input, args.output)
    print(f'{path}: {path.stat().st_size / 1e6:.1f} MB of {before / 1e6:.1f} MB')


if __name__ == '__main__':
    run_command(main)
