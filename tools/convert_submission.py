#!/usr/bin/env python
"""Convert a submission between Kaggle's and TF's format, without loss, and to or from COCO results.

    python tools/convert_submission.py submission.csv tf.csv
    python tools/convert_submission.py submission.csv results.json --to coco --prepared DIR
    python tools/convert_submission.py results.json submission.csv --to kaggle --prepared DIR
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.common.errors import UserError, exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()

from projects.openimages.common.files import refuse_to_overwrite
from projects.openimages.common.json_values import write_json
from projects.openimages.common.options import add_json
from projects.openimages.data.index import PreparedIndex
from projects.openimages.submissions.coco_results import (
    COCO,
    is_coco_results,
    read_coco_results,
    write_coco_results,
)
from projects.openimages.submissions.convert import convert
from projects.openimages.submissions.formats import (
    FORMATS,
    KAGGLE,
    TF,
    Submission,
)
from projects.openimages.submissions.image_list import read_image_list


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument('source', metavar='IN', help='a CSV of either format, or COCO results')
    parser.add_argument('out', metavar='OUT')
    parser.add_argument('--to', choices=[*FORMATS, COCO],
                        help='(default: from a CSV the other CSV format, from COCO kaggle)')
    parser.add_argument('--images', metavar='DIR_or_LIST',
                        help='write a row for each of these, in this order: a folder of images, a '
                             'prepared index.arrow, or a CSV with ids and sizes, such as the '
                             'Kaggle submission that this one was made from')
    parser.add_argument('--prepared', metavar='DIR',
                        help='for COCO results: the prepared split, such as '
                             'data/openimages/prepared/validation, whose coco.json has the ids')
    add_json(parser)
    return parser.parse_args()


def convert_coco(args: argparse.Namespace, target: str) -> tuple[int, int, int]:
    if not args.prepared or args.images:
        raise UserError('for COCO results, name the images and classes with --prepared DIR'
                        + (', not with --images' if args.images else ''))
    index = PreparedIndex.open(Path(args.prepared, 'index.arrow'))
    if target == COCO:
        return write_coco_results(args.source, args.out, index)
    return read_coco_results(args.source, args.out, target, index)


def main() -> None:
    args = parse_args()
    if args.json:
        refuse_to_overwrite(args.json, args.source, args.out, *filter(None, [args.images]))
    from_coco = is_coco_results(args.source)
    if from_coco:
        target = args.to or KAGGLE
    else:
        with Submission(args.source) as submission:
            target = args.to or (TF if submission.format == KAGGLE else KAGGLE)
    if from_coco and target == COCO:
        raise UserError('these are COCO results already', path=args.source)
    if from_coco or target == COCO:
        num_images, detections, empty = convert_coco(args, target)
    else:
        images = None
        if args.images:
            refuse_to_overwrite(args.out, args.images)
            images = read_image_list(args.images)
        num_images, detections, empty = convert(args.source, args.out, target, images)
    write_json(args.json, {'format': target, 'images': num_images, 'detections': detections,
                           'images_without_detections': empty, 'out': args.out})
    print(f'{args.out}: {target} format, {num_images} images, {detections} detections')
    if empty and target != KAGGLE:
        back = '' if target == COCO or from_coco else (
            f'; converting back, name them with --images {args.source}')
        print(f'{empty} images without detections have no row in this format{back}')


if __name__ == '__main__':
    run_command(main)
