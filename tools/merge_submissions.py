#!/usr/bin/env python
"""Merge several models' submissions on mask IoU, image by image and class by class.

Merge dumps made with --no-expand-hierarchy; the result is expanded, by the hierarchy in --index.
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
from projects.openimages.common.options import (
    add_expand_hierarchy,
    add_json,
    add_workers,
    refuse_former_value,
)
from projects.openimages.common.parallel import worker_count
from projects.openimages.submissions.formats import FORMATS
from projects.openimages.submissions.merge_masks import METHODS, MergeOptions
from projects.openimages.submissions.merge_submissions import MergeOutput, merge_submissions


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=__doc__,
                                     allow_abbrev=False)
    parser.add_argument('submissions', nargs='+', metavar='CSV')
    parser.add_argument('--out', required=True, metavar='CSV')
    parser.add_argument('--method', choices=tuple(METHODS), default='wbf')
    parser.add_argument('--weights', type=float, nargs='+', metavar='W',
                        help='one a submission (default: all 1)')
    parser.add_argument('--iou-thr', type=float, default=0.5, metavar='T',
                        help='two masks are one object from this IoU on (default: 0.5)')
    parser.add_argument('--sigma', type=float, default=0.5, help='of soft-nms (default: 0.5)')
    parser.add_argument('--score-thr', type=float, default=0.001, metavar='T',
                        help='leave out merged detections below this score (default: 0.001)')
    parser.add_argument('--max-per-img', type=int, metavar='N', help='keep the best N an image')
    add_expand_hierarchy(parser)
    parser.add_argument('--index', metavar='index.arrow',
                        help='a prepared index, whose hierarchy expands the result')
    parser.add_argument('--format', choices=FORMATS, help="(default: the first submission's)")
    add_json(parser)
    add_workers(parser)
    refuse_former_value(sys.argv, 'name the index with --index')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    weights = tuple(args.weights or [1.0] * len(args.submissions))
    space = None
    if args.expand_hierarchy and not args.index:
        raise UserError('needed: --index index.arrow, whose hierarchy expands the result, or '
                        '--no-expand-hierarchy')
    if args.expand_hierarchy:
        from projects.openimages.data.index import PreparedIndex  # worker processes do without

        refuse_to_overwrite(args.out, args.index)
        space = PreparedIndex.open(args.index).label_space
    if args.json:
        refuse_to_overwrite(args.json, args.out, *args.submissions)
    images, detections = merge_submissions(
        args.submissions, args.out, MergeOptions(args.method, weights, args.iou_thr, args.sigma),
        MergeOutput(args.score_thr, args.max_per_img, space), args.format,
        worker_count(args.workers))
    write_json(args.json, {'images': images, 'detections': detections, 'out': args.out})
    print(f'{args.out}: {images} images, {detections} detections')


if __name__ == '__main__':
    run_command(main)
