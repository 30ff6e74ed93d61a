#!/usr/bin/env python
"""Test a detector: MMDetection's command line, plus a submission file and pictures."""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.common.errors import UserError, exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()

from mmengine.config import Config

from projects.openimages.common.files import refuse_to_overwrite
from projects.openimages.common.json_values import write_json
from projects.openimages.common.options import add_expand_hierarchy, add_json


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument('config', help='test config file')
    parser.add_argument('checkpoint', help='checkpoint file, or its https:// address')
    parser.add_argument('--work-dir', help='folder for the logs and metrics')
    parser.add_argument('--out', metavar='FILE.pkl', help='dump the predictions to a pickle')
    parser.add_argument('--show', action='store_true',
                        help='show predictions beside ground truth in a window')
    parser.add_argument('--show-dir', metavar='DIR',
                        help='write those pictures and a contact sheet to this folder')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds between windows')
    parser.add_argument('--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE',
                        help='override config settings, such as data_root=DIR or a.b.c=1')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument('--fast', action='store_true',
                        help='--amp, channels last, folded normalisation, batches loaded ahead')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation of the config')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    parser.add_argument('--split', metavar='NAME',
                        help="the prepared split to test on (default: the config's, validation); "
                             'one without annotations, such as test, has no score')
    add_json(parser)
    add_submission_options(parser.add_argument_group('submission'))
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def add_submission_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument('--submission', metavar='FILE.csv', help='write the detections to this CSV')
    group.add_argument('--submission-format', choices=['kaggle', 'tf'], default='kaggle')
    group.add_argument('--score-thr', type=float, default=0.0,
                       help='leave out detections below this score')
    group.add_argument('--max-per-img', type=int, help="an image's detections at most, best first")
    add_expand_hierarchy(group)
    group.add_argument('--max-size', metavar='SIZE',
                       help='largest file, such as 500MB; the best scores that fit are kept')
    group.add_argument('--resume-submission', action='store_true',
                       help='go on with an interrupted dump')
    group.add_argument('--skip-bad', action='store_true',
                       help='give an image that cannot be read an empty row')


def check_options(args: argparse.Namespace) -> None:
    """Options that would do nothing, or files that could not be, before anything is loaded."""
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise UserError('--out takes a name that ends in .pkl or .pickle', path=args.out)
    if args.out and args.resume_submission:
        raise UserError('--out would lack the images that --resume-submission leaves out: give '
                        'one of them')
    if args.json:
        refuse_to_overwrite(args.json, args.config, args.checkpoint)
    if not args.submission:
        for name in ('max_size', 'resume_submission', 'skip_bad'):
            if getattr(args, name):
                raise UserError(f'--{name.replace("_", "-")} needs --submission')
    if args.submission and not args.submission.endswith('.csv'):
        raise UserError('--submission takes a name that ends in .csv', path=args.submission)


def add_outputs(cfg: Config, args: argparse.Namespace) -> None:
    """Put what the options ask for into the config."""
    from projects.openimages.mm.engine import config as configs
    from projects.openimages.mm.engine.fast import use_mixed_precision
    from projects.openimages.mm.evaluation.submission_dump import add_submission_dump

    if args.amp or args.fast:
        use_mixed_precision(cfg, args.fast)
    if args.tta:
        configs.use_tta(cfg)
    selection = {'score_thr': args.score_thr, 'max_per_img': args.max_per_img,
                 'expand_hierarchy': args.expand_hierarchy}
    if args.submission:
        add_submission_dump(cfg, args.submission, args.submission_format,
                            max_size=args.max_size, resume=args.resume_submission,
                            skip_bad=args.skip_bad, **selection)
    else:
        configs.score_as_submitted(cfg, **selection)
    if args.show or args.show_dir:
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), {
            'type': 'ComparisonPicturesHook', 'folder': args.show_dir, 'show': args.show,
            'wait_time': args.wait_time}]
    if args.out:
        configs.add_pickle(cfg, args.out)


def main() -> None:
    args = parse_args()
    check_options(args)
    from mmengine.dist import is_main_process

    from projects.openimages.mm.engine import checks
    from projects.openimages.mm.engine import config as configs
    from projects.openimages.mm.engine.checkpoints import (
        load_weights,
        local_file,
        read_checkpoint,
        weights_of,
    )
    from projects.openimages.mm.engine.options import read_options
    from projects.openimages.mm.engine.processes import number_of_processes, start_processes

    cfg = configs.load_config(args.config, read_options(args.cfg_options))
    configs.set_work_dir(cfg, args.work_dir, args.config)
    cfg.load_from = local_file(args.checkpoint)
    if number_of_processes(args.launcher) == 1:
        configs.use_local_norms(cfg.model)
    model = configs.build_model(cfg)
    load_weights(model, weights_of(read_checkpoint(cfg.load_from)), cfg.load_from)
    if args.split:
        configs.use_split(cfg, args.split)
    checks.check_data(cfg, model, 'test_dataloader')
    del model
    add_outputs(cfg, args)
    start_processes(cfg, args.launcher)
    with configs.mistakes_in_one_line():
        metrics = configs.build_runner(cfg).test()
    if is_main_process():
        write_json(args.json, metrics)


if __name__ == '__main__':
    run_command(main)
