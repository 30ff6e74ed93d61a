#!/usr/bin/env python
"""Draw contact sheets of a prepared split's ground truth."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.common.errors import UserError, exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()

from projects.openimages.common.json_values import write_json
from projects.openimages.common.options import add_json
from projects.openimages.data.index import PreparedIndex
from projects.openimages.data.layout import find_image_folders
from projects.openimages.visualization.contact_sheets import (
    choose_rows,
    contact_sheets,
    find_class,
    images_outside,
    images_with_problem,
    write_pages,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument('--data-root', type=Path, required=True,
                        help='folder of the official downloads')
    parser.add_argument('--prepared', type=Path, metavar='DIR',
                        help='the prepared splits (default: DATA_ROOT/prepared)')
    parser.add_argument('--split', default='validation', help='default: %(default)s')
    parser.add_argument('--out', type=Path, required=True,
                        help='picture to write (.png or .jpg); further pages get -2, -3, ...')
    parser.add_argument('--num', type=int, default=20,
                        help='how many images at most (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='another seed, other images')
    parser.add_argument('--class', dest='class_name', metavar='MID|NAME',
                        help='only images with this class or one below it in the hierarchy')
    parser.add_argument('--only', metavar='PROBLEM',
                        help='only images that the report lists under this kind of problem, '
                             'also those that are not in the index')
    add_json(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    prepared = (args.prepared or args.data_root / 'prepared') / args.split
    images = find_image_folders(args.data_root, args.split)
    if not images[0].is_dir():
        raise UserError('no such folder of images', path=images[0])
    index = PreparedIndex.open(prepared / 'index.arrow')
    title, class_id, findings = args.split, None, None
    if args.class_name:
        class_id = find_class(index.label_space, args.class_name)
        title += f' · {index.label_space.names[class_id]}'
    if args.only:
        findings = images_with_problem(prepared / 'report.json', args.only)
        title += f' · {args.only}'
    rows = choose_rows(index, args.num, args.seed, class_id=class_id, image_ids=findings)
    outside = [] if class_id is not None else images_outside(index, findings or (),
                                                             args.num - len(rows), args.seed)
    if not len(rows) and not outside:
        raise UserError(f'no image of the split {args.split!r} is what you asked for')
    title += f' · {len(rows)} of {index.num_images} images'
    if outside:
        title += f', {len(outside)} that are not in the index'
    pages = []
    for path in write_pages(contact_sheets(index, rows, images, title, findings, outside),
                            args.out):
        print(path)
        pages.append(path)
    write_json(args.json, {'split_images': index.num_images, 'pages': pages, 'outside': outside,
                           'images': [index.image_ids[row] for row in rows]})


if __name__ == '__main__':
    run_command(main)
