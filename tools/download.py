#!/usr/bin/env python
"""Download what the other commands need of Open Images; see docs/download.md.

python tools/download.py --release challenge --split train validation --data-root data
"""

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.common.errors import UserError, exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()

from projects.openimages.common.json_values import write_json
from projects.openimages.common.options import add_json
from projects.openimages.download.sources import DEFAULT_CONNECTIONS, RELEASES


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--release', choices=list(RELEASES), required=True,
                        help='challenge: 2019, 300 classes; v7: the full release, 350 classes')
    parser.add_argument('--split', nargs='+', required=True, metavar='NAME',
                        help='; '.join(f'{name}: {", ".join(release.splits)}'
                                       for name, release in RELEASES.items()))
    parser.add_argument('--data-root', type=Path, required=True, metavar='DIR',
                        help='where to put it, in the layout that tools/prepare_data.py reads')
    parser.add_argument('--classes', nargs='+', default=[], metavar='CLASS',
                        help='only images with a mask of these classes or of classes below them; '
                             'names or MIDs')
    parser.add_argument('--max-images', type=int, metavar='N', help='at most so many a split')
    parser.add_argument('--image-list', type=Path, metavar='FILE',
                        help='only these images: a CSV with a column ImageID, such as the sample '
                             'submission, or ids, one a line')
    parser.add_argument('--connections', type=int, default=DEFAULT_CONNECTIONS, metavar='N',
                        help='files at a time (default: %(default)s)')
    parser.add_argument('--base-url', default=os.environ.get('OPENIMAGES_BASE_URL'), metavar='URL',
                        help='a mirror with the folders openimages and open-images-dataset '
                             '(default: the environment variable OPENIMAGES_BASE_URL)')
    parser.add_argument('--dry-run', action='store_true',
                        help='only say how many files and gigabytes would be fetched')
    add_json(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        from projects.openimages.download.files import Order
        from projects.openimages.download.run import amounts_to_come, download, in_words
    except ModuleNotFoundError as error:
        if error.name != 'aiohttp':
            raise
        raise UserError('downloading needs aiohttp: pip install -e ".[download]"') from None
    order = Order(args.data_root, RELEASES[args.release], tuple(dict.fromkeys(args.split)),
                  tuple(args.classes), args.max_images, args.image_list, args.base_url or None,
                  args.connections)
    if args.dry_run:
        amounts = amounts_to_come(order)
        print(in_words(amounts, order.root))
        write_json(args.json, {'to_come': [asdict(amount) for amount in amounts]})
        return
    images = download(order)
    write_json(args.json, {'splits': [{'split': split, 'images': number}
                                      for split, number in images.items()]})
    print(f'next: python tools/prepare_data.py --data-root {args.data_root} '
          f'--split {" ".join(order.splits)}')


if __name__ == '__main__':
    run_command(main)
