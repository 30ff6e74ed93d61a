#!/usr/bin/env python
"""What is wrong with a model: one page from one dump, by the challenge's own rules.

Takes a dump of an annotated split in either format, as it would be handed in:
tools/test.py ... --submission FILE
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.common.errors import UserError, exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()

from projects.openimages.analysis.report import ReportOptions, make_report
from projects.openimages.common.files import refuse_to_overwrite
from projects.openimages.common.json_values import write_json
from projects.openimages.common.options import add_json, add_workers
from projects.openimages.common.parallel import worker_count


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=__doc__,
                                     allow_abbrev=False)
    parser.add_argument('predictions', metavar='PREDICTIONS.csv', help='the dump')
    parser.add_argument('--prepared', type=Path, required=True, metavar='DIR',
                        help='the prepared split that it is for, with index.arrow')
    parser.add_argument('--out', type=Path, required=True, metavar='FOLDER',
                        help='gets index.html, report.json, suspects.csv and plots/')
    parser.add_argument('--train-index', metavar='index.arrow',
                        help='of the training split: rare, common and frequent classes')
    parser.add_argument('--compare', metavar='OTHER.csv', help='another dump of the same split')
    parser.add_argument('--images', type=Path, metavar='DIR',
                        help="the split's images, for pictures (default: images/SPLIT of the data "
                             'root, where it is there)')
    parser.add_argument('--score-thr', type=float, default=0.3, metavar='T',
                        help='errors of single images and confusions are counted from this score '
                             'on (default: %(default)s)')
    parser.add_argument('--pictures', type=int, default=6, metavar='N',
                        help='of each kind, at most (default: %(default)s)')
    add_json(parser)
    add_workers(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.images is None:
        prepared = args.prepared.absolute()
        beside = prepared.parent.parent / 'images' / prepared.name
        images = beside if beside.is_dir() else None
    elif args.images.is_dir():
        images = args.images
    else:
        raise UserError('no such folder of images', path=args.images)
    if args.out.exists() and not args.out.is_dir():
        raise UserError('a file, expected a folder to write into', path=args.out)
    if args.json:
        refuse_to_overwrite(args.json, args.predictions, *filter(None, [args.compare]))
    told = make_report(ReportOptions(
        args.predictions, args.prepared / 'index.arrow', args.train_index, args.compare, images,
        args.score_thr, args.pictures, worker_count(args.workers)), args.out)
    write_json(args.json, told)
    print(f'mAP {told["headline"]["mAP"]:.6f} over {told["headline"]["classes"]} classes; '
          f'{args.out / "index.html"}')


if __name__ == '__main__':
    run_command(main)
