#!/usr/bin/env python
"""Train a detector: MMDetection's command line, with the checks of this project."""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.common.errors import UserError, exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument('config', help='train config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument('--fast', action='store_true',
                        help='bfloat16, channels last, folded normalisation, fused optimiser, '
                             'batches loaded ahead')
    parser.add_argument('--compile', action='store_true',
                        help='with --fast: compile backbone and neck, and pad to a few shapes')
    parser.add_argument('--images-per-update', type=int, nargs='?', const=True, metavar='N',
                        help='accumulate gradients until an update has seen N images; iterations '
                             'are updates, so the schedule stays as it is. Without N: as many as '
                             "the config's learning rate is for")
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate to the number of images an update sees')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='go on from a checkpoint; without a name, from the latest in the '
                             'work dir, if there is one')
    parser.add_argument('--log-to', nargs='+', choices=['tensorboard', 'wandb'], default=[],
                        help='write the curves there too, each class\'s AP among them')
    parser.add_argument('--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE',
                        help='override config settings, such as data_root=DIR or a.b.c=1')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main() -> None:
    args = parse_args()
    from mmengine.runner import find_latest_checkpoint

    from projects.openimages.mm.engine import checks, recipe_size
    from projects.openimages.mm.engine import config as configs
    from projects.openimages.mm.engine.fast import train_fast
    from projects.openimages.mm.engine.log_backends import add_log_backends
    from projects.openimages.mm.engine.options import read_options
    from projects.openimages.mm.engine.processes import number_of_processes, start_processes

    cfg = configs.load_config(args.config, read_options(args.cfg_options))
    configs.set_work_dir(cfg, args.work_dir, args.config)
    add_log_backends(cfg, args.log_to)
    if args.compile and not args.fast:
        raise UserError('--compile needs --fast')
    if args.fast:
        if args.amp:
            raise UserError('--fast has its own mixed precision: give --fast or --amp')
        train_fast(cfg, args.compile)
    if args.amp:
        cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    if args.images_per_update is not None:
        given = None if args.images_per_update is True else args.images_per_update
        recipe_size.set_images_per_update(cfg, given)
    processes = number_of_processes(args.launcher)
    if args.auto_scale_lr or (cfg.get('auto_scale_lr') or {}).get('enable'):
        print(recipe_size.scale_learning_rate(cfg, processes))
    elif warning := recipe_size.unfit_learning_rate(cfg, processes):
        print(warning, file=sys.stderr)
    checkpoint = args.resume
    if checkpoint == 'auto':
        checkpoint = find_latest_checkpoint(cfg.work_dir)
        if checkpoint is None:
            print(f'no checkpoint in {cfg.work_dir}: training starts at iteration 0')
    if checkpoint:
        cfg.resume, cfg.load_from = True, checkpoint
    checks.check_amp(cfg)
    checks.check_loop(cfg)
    if processes == 1:
        configs.use_local_norms(cfg.model)
    model = configs.build_model(cfg)
    checks.check_federated(model)
    checks.check_data(cfg, model, 'train_dataloader', 'val_dataloader')
    checks.check_start_weights(cfg, model)
    del model
    start_processes(cfg, args.launcher)
    with configs.mistakes_in_one_line():
        configs.build_runner(cfg).train()


if __name__ == '__main__':
    run_command(main)
