#!/usr/bin/env python
"""Convert a submission between Kaggle's and TF's format, without loss."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.common.errors import exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()

from projects.openimages.common.files import refuse_to_overwrite
from projects.openimages.common.json_values import write_json
from projects.openimages.common.options import add_json
from projects.openimages.submissions.convert import convert
from projects.openimages.submissions.formats import (
    FORMATS,
    KAGGLE,
    TF,
    Submission,
)
from projects.openimages.submissions.image_list import read_image_list


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument('source', metavar='IN.csv')
    parser.add_argument('out', metavar='OUT.csv')
    parser.add_argument('--to', choices=FORMATS, help='(default: the other format)')
    parser.add_argument('--images', metavar='DIR_or_LIST',
                        help='write a row for each of these, in this order: a folder of images, a '
                             'prepared index.arrow, or a CSV with ids and sizes, such as the '
                             'Kaggle submission that this one was made from')
    add_json(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with Submission(args.source) as submission:
        target = args.to or (TF if submission.format == KAGGLE else KAGGLE)
    if args.json:
        refuse_to_overwrite(args.json, args.source, args.out, *filter(None, [args.images]))
    images = None
    if args.images:
        refuse_to_overwrite(args.out, args.images)
        images = read_image_list(args.images)
    num_images, detections, empty = convert(args.source, args.out, target, images)
    write_json(args.json, {'format': target, 'images': num_images, 'detections': detections,
                           'images_without_detections': empty, 'out': args.out})
    print(f'{args.out}: {target} format, {num_images} images, {detections} detections')
    if empty and target == TF:
        print(f'{empty} images without detections have no row in this format; converting back, '
              f'name them with --images {args.source}')


if __name__ == '__main__':
    run_command(main)
