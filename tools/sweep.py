#!/usr/bin/env python
"""Challenge mAP and file size over score thresholds, caps, with and without expansion.

Takes one dump for an annotated split: tools/test.py ... --submission FILE --no-expand-hierarchy
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.common.errors import exit_on_interrupt, run_command

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
from projects.openimages.submissions.sweep import sweep
from projects.openimages.submissions.sweep_result import NEAR


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=__doc__,
                                     allow_abbrev=False)
    parser.add_argument('submission', metavar='FILE', help='the dump, not expanded')
    parser.add_argument('--index', required=True, metavar='index.arrow',
                        help='the prepared index of the split')
    parser.add_argument('--out', required=True, metavar='DIR',
                        help='folder for sweep.csv and sweep.png')
    parser.add_argument('--score-thr', type=float, nargs='+', metavar='T',
                        default=[0.0, 0.05, 0.1, 0.2, 0.3])
    parser.add_argument('--max-per-img', type=int, nargs='+', metavar='N',
                        default=[20, 50, 100, 200, 0], help='caps; 0 is none')
    add_expand_hierarchy(parser, None, 'default: both are tried')
    add_json(parser)
    add_workers(parser)
    refuse_former_value(sys.argv, 'leave it out for both, or write --no-expand-hierarchy')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    table, picture = Path(args.out) / 'sweep.csv', Path(args.out) / 'sweep.png'
    for path in (table, picture, *filter(None, [args.json])):
        refuse_to_overwrite(path, args.submission, args.index)
    result = sweep(
        args.submission, args.index, score_thrs=sorted(set(args.score_thr)),
        caps=[cap or None for cap in dict.fromkeys(args.max_per_img)],
        expansions=(False, True) if args.expand_hierarchy is None else (args.expand_hierarchy,),
        workers=worker_count(args.workers))
    result.write_csv(table)
    result.plot(save_path=picture)
    write_json(args.json, result.to_dict())
    print(result)
    small = result.smallest_near_best()
    print(f'smallest within {NEAR:g} of the best: {small.mean_ap:.4f}, {small.size / 1e6:.1f} MB: '
          f'{small.options}')
    print(f'{args.out}/sweep.csv, {args.out}/sweep.png')


if __name__ == '__main__':
    run_command(main)
