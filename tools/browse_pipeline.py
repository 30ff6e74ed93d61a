#!/usr/bin/env python
"""Draw what the model sees in training: the loader's own images after augmentation."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.common.errors import UserError, exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()

PER_PAGE = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument('config', help='train config file')
    parser.add_argument('--out', type=Path, required=True,
                        help='picture to write (.png or .jpg); further pages get -2, -3, ...')
    parser.add_argument('--num', type=int, default=PER_PAGE,
                        help='how many images (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0,
                        help='another seed, other images and augmentation')
    parser.add_argument('--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE',
                        help='override config settings, such as data_root=DIR or a.b.c=1')
    args = parser.parse_args()
    if args.num < 1:
        raise UserError(f'--num {args.num}: expected at least 1')

    from projects.openimages.mm.engine.browsing import browse
    from projects.openimages.mm.engine.config import load_config, mistakes_in_one_line
    from projects.openimages.mm.engine.options import read_options
    from projects.openimages.visualization.contact_sheets import write_pages
    from projects.openimages.visualization.drawing import montage

    cfg = load_config(args.config, read_options(args.cfg_options))
    with mistakes_in_one_line():
        pictures = list(browse(cfg, args.num, args.seed))
    pages = (montage(pictures[start:start + PER_PAGE], columns=3)
             for start in range(0, len(pictures), PER_PAGE))
    for path in write_pages(pages, args.out):
        print(path)


if __name__ == '__main__':
    run_command(main)
