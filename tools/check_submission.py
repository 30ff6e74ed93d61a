#!/usr/bin/env python
"""Check a submission CSV, Kaggle's or TF's format, against every rule of the format.

Exit code 0 where all is right, 2 where something is wrong.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.common.errors import EXIT_USER_ERROR, exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()

from projects.openimages.common.files import refuse_to_overwrite
from projects.openimages.common.json_values import write_json
from projects.openimages.common.options import add_json, add_workers
from projects.openimages.common.parallel import worker_count
from projects.openimages.submissions.check import check_submission
from projects.openimages.submissions.image_list import count_warning, find_mids, read_image_list


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument('submission', metavar='FILE', help='the CSV')
    parser.add_argument('--images', required=True, metavar='DIR_or_LIST',
                        help="what it is for: Kaggle's sample submission or another CSV of ids "
                             'and sizes, a folder of images, a prepared index.arrow, or a text '
                             'file of ids')
    parser.add_argument('--classes', metavar='CSV',
                        help='the class list (default: the official one in or above the folder, '
                             "or the index's)")
    add_json(parser)
    add_workers(parser)
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    workers = worker_count(args.workers)
    if args.json:
        refuse_to_overwrite(args.json, args.submission, args.images)
    mids = find_mids(args.images, args.classes)
    images = read_image_list(args.images, workers)
    report = check_submission(args.submission, images, mids, workers)
    print(report)
    warning = count_warning(len(images)) if report.format == 'kaggle' else None
    write_json(args.json, {'ok': report.ok, 'warning': warning, **report.to_dict()})
    if warning:
        print(f'warning: {warning}', file=sys.stderr)
    for row, message in report.errors:
        place = args.submission if row is None else f'{args.submission}, row {row}'
        print(f'error: {place}: {message}', file=sys.stderr)
    hidden = report.num_errors - len(report.errors)
    if hidden > 0:
        print(f'and {hidden} more', file=sys.stderr)
    print('no errors' if report.ok else f'{report.num_errors} errors')
    return 0 if report.ok else EXIT_USER_ERROR


if __name__ == '__main__':
    run_command(main)
