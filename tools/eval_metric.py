#!/usr/bin/env python
"""Score the pickle of a test (tools/test.py --out) by the challenge's metric."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.common.errors import exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()

from projects.openimages.common.files import refuse_to_overwrite
from projects.openimages.common.json_values import write_json
from projects.openimages.common.options import add_expand_hierarchy, add_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument('config', help='the config that the test was run with')
    parser.add_argument('results', metavar='RESULTS.pkl')
    parser.add_argument('--split', metavar='NAME',
                        help="the prepared split that was tested (default: the config's)")
    parser.add_argument('--score-thr', type=float, default=0.0,
                        help='leave out detections below this score')
    parser.add_argument('--max-per-img', type=int, help="an image's detections at most, best first")
    add_expand_hierarchy(parser)
    add_json(parser)
    parser.add_argument('--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE',
                        help='override config settings, such as data_root=DIR')
    args = parser.parse_args()
    if args.json:
        refuse_to_overwrite(args.json, args.config, args.results)

    from projects.openimages.mm.engine import config as configs
    from projects.openimages.mm.engine.options import read_options
    from projects.openimages.mm.engine.results import read_results, score_results

    cfg = configs.load_config(args.config, read_options(args.cfg_options))
    results = read_results(args.results)
    if args.split:
        configs.use_split(cfg, args.split)
    configs.score_as_submitted(cfg, score_thr=args.score_thr, max_per_img=args.max_per_img,
                               expand_hierarchy=args.expand_hierarchy)
    scores = score_results(cfg, results)
    write_json(args.json, scores)
    for name, value in scores.items():
        print(f'{name}: {value:.6f}')


if __name__ == '__main__':
    run_command(main)
