#!/usr/bin/env python
"""What each ingredient of the recipe brings, on the hard world: arms × seeds, one table.

    python benchmarks/recipe.py --data DIR --out work_dirs/recipe --arms stock main recipe --seeds 3

Every arm trains the same detector, the demo's at about half its channels, for the same iterations
at the same learning rate, from scratch, and is scored on the same images twice: by the challenge's
metric on labels as incomplete as the real ones (validation), and on the whole truth (oracle). A run
that has ended is not run again, and one that was killed goes on from its last checkpoint, so the
table may take as many days as it needs. Columns are means over seeds with their standard deviation.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from projects.openimages.analysis.operating import by_size  # noqa: E402
from projects.openimages.analysis.outcomes import analyse  # noqa: E402
from projects.openimages.challenge.from_index import train_image_counts  # noqa: E402
from projects.openimages.common.errors import UserError, run_command  # noqa: E402
from projects.openimages.common.files import atomic_write, exclusive  # noqa: E402
from projects.openimages.data.index import PreparedIndex  # noqa: E402
from projects.openimages.metric import mean_over, score  # noqa: E402
from projects.openimages.submissions.formats import Submission  # noqa: E402

CONFIG = ROOT / 'configs' / 'oi_mask_rcnn_r50_demo.py'
RARE, FREQUENT = 10, 100  # training images, as LVIS has it
SMALL, LARGE = 32**2, 64**2  # pixels of a mask; of COCO's 96**2 images this small have seven
COLUMNS = ('validation mAP', 'oracle mAP', 'rare', 'common', 'frequent', 'leaves', 'parents',
           'small', 'large')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument('--data', type=Path, required=True,
                        help='a prepared hard world: tools/make_demo_data.py --world hard, then '
                             'tools/prepare_data.py --split train validation oracle')
    parser.add_argument('--out', type=Path, required=True, help='folder for runs and tables')
    parser.add_argument('--arms', nargs='+', default=['stock', 'main', 'recipe'], metavar='ARM',
                        help='names, or "all" (default: %(default)s)')
    parser.add_argument('--seeds', type=int, default=3, help='runs an arm (default: %(default)s)')
    parser.add_argument('--iterations', type=int, default=600, help='default: %(default)s')
    parser.add_argument('--lr', type=float, default=5e-4, help='of all arms (default: %(default)s)')
    parser.add_argument('--jobs', type=int, default=1,
                        help='runs at once, which share the cores (default: %(default)s)')
    parser.add_argument('--table-only', action='store_true', help='of the runs that are there')
    parser.add_argument('--run', nargs=2, metavar=('ARM', 'SEED'), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from benchmarks.recipe_arms import arms
    known = list(arms())
    if args.run:
        check_world(args)
        run(args, args.run[0], int(args.run[1]))
        return
    names = known if args.arms == ['all'] else args.arms
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f'no arm {unknown[0]!r}, expected some of: {", ".join(known)}')
    check_world(args)
    if not args.table_only:
        # all arms of a seed first, so that a table comes early
        waiting = [(name, seed) for seed in range(args.seeds) for name in names
                   if not result_path(args, name, seed).exists()]
        with ThreadPoolExecutor(args.jobs) as pool:
            for _ in pool.map(lambda run: start(args, *run), waiting):
                pass
    report(args, names)


def check_world(args: argparse.Namespace) -> None:
    """Refuse a folder with runs on another world: their numbers would stand in this one's table."""
    digest = hashlib.sha256()
    for split in ('train', 'validation', 'oracle'):
        path = args.data / 'prepared' / split / 'index.arrow'
        if not path.is_file():
            raise UserError('no such file; prepare the splits train, validation and oracle '
                            '(tools/prepare_data.py)', path=path)
        digest.update(path.read_bytes())
    args.out.mkdir(parents=True, exist_ok=True)
    note = args.out / 'world.json'
    if not note.exists():
        with atomic_write(note) as file:
            json.dump({'data': str(args.data), 'sha256': digest.hexdigest()}, file, indent=1)
    known = json.loads(note.read_text())
    if known['sha256'] != digest.hexdigest():
        raise UserError(f'the runs here are on other data ({known["data"]}); give another --out',
                        path=args.out)


def run_folder(args: argparse.Namespace, arm: str, seed: int) -> Path:
    """Where a run of these settings lives."""
    name = arm.replace(' ', '_').replace('+', 'plus_')
    return args.out / f'{args.iterations}_{args.lr:g}' / name / f'seed{seed}'


def result_path(args: argparse.Namespace, arm: str, seed: int) -> Path:
    return run_folder(args, arm, seed) / 'result.json'


def start(args: argparse.Namespace, arm: str, seed: int) -> None:
    """Run one arm in a process of its own, its output in a log."""
    folder = run_folder(args, arm, seed)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.strftime('%H:%M:%S')
    command = [sys.executable, __file__, '--data', args.data, '--out', args.out, '--iterations',
               args.iterations, '--lr', args.lr, '--run', arm, seed]
    threads = str(max(len(os.sched_getaffinity(0)) // args.jobs, 1))
    with open(folder / 'log.txt', 'a', encoding='utf-8') as log:
        code = subprocess.run([str(part) for part in command], stdout=log, check=False,
                              stderr=subprocess.STDOUT,
                              env={**os.environ, 'OMP_NUM_THREADS': threads}).returncode
    if code:
        raise UserError(f'the run ended with exit code {code}', path=folder / 'log.txt')
    scores = json.loads(result_path(args, arm, seed).read_text())['scores']
    print(f'{began} {arm}, seed {seed}:  '
          + '  '.join(f'{key} {value:.4f}' for key, value in scores.items()), flush=True)


# ------------------------------------------------------------------------------------- one run

def run(args: argparse.Namespace, arm: str, seed: int) -> None:
    """Train an arm, dump its detections on validation, score them on both truths."""
    from mmengine.runner import Runner

    from projects.openimages.mm.evaluation.submission_dump import add_submission_dump

    folder = run_folder(args, arm, seed)
    with exclusive(folder / 'run', 'training this arm'):
        began = time.monotonic()
        cfg = arm_config(args, arm, seed)
        final = folder / f'iter_{args.iterations}.pth'
        checkpoint = last_whole_checkpoint(folder)
        if checkpoint != final:
            cfg.resume, cfg.load_from = checkpoint is not None, checkpoint and str(checkpoint)
            cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None  # the test below is enough
            Runner.from_cfg(cfg).train()
        cfg = arm_config(args, arm, seed)
        cfg.load_from = str(final)
        dump = folder / 'validation.csv'
        add_submission_dump(cfg, dump,
                            expand_hierarchy=cfg.test_evaluator.expand_hierarchy, resume=True)
        Runner.from_cfg(cfg).test()
        scores = score_dump(dump, args.data / 'prepared')
        with atomic_write(result_path(args, arm, seed)) as file:
            json.dump({'arm': arm, 'seed': seed, 'iterations': args.iterations, 'lr': args.lr,
                       'seconds': time.monotonic() - began, 'scores': scores}, file, indent=1)
        for path in folder.glob('iter_*.pth'):
            if path != final:
                path.unlink()


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The run's newest checkpoint that can be read: a kill may have come while one was written.

    One that cannot stays until the run saves in its place. (MMEngine's own note of the latest may
    name one that is gone.)
    """
    from projects.openimages.mm.engine.checkpoints import read_checkpoint

    for path in sorted(folder.glob('iter_*.pth'), key=lambda path: int(path.stem[5:]),
                       reverse=True):
        try:
            read_checkpoint(path)
        except UserError as error:
            print(f'{error}; it is not used', flush=True)
        else:
            return path
    return None


def arm_config(args: argparse.Namespace, arm: str, seed: int):
    """The demo's config with the arm's ingredients, on the given data and schedule."""
    from benchmarks.recipe_arms import arms
    from projects.openimages.mm.engine.config import load_config

    steps = args.iterations
    if steps < 2:
        raise UserError(f'--iterations {steps}, expected at least 2: warm-up and the rest')
    warm_up = max(1, min(40, steps // 3))
    cfg = load_config(CONFIG, {'data_root': str(args.data)})
    slim(cfg)
    cfg.merge_from_dict({
        'custom_imports.imports': ['projects.openimages.mm', 'benchmarks.recipe_arms'],
        'work_dir': str(run_folder(args, arm, seed)), 'randomness.seed': seed,
        'train_cfg.max_iters': steps,
        'optim_wrapper.optimizer.lr': args.lr, 'param_scheduler.0.end': warm_up,
        'param_scheduler.1.begin': warm_up, 'param_scheduler.1.end': steps,
        'param_scheduler.1.T_max': steps - warm_up,
        'default_hooks.checkpoint': {'interval': 100, 'max_keep_ckpts': 2, 'by_epoch': False,
                                     'save_best': None, 'type': 'CheckpointHook'}})
    for ingredient in arms()[arm]:
        ingredient(cfg)
    return cfg


def slim(cfg, backbone: int = 32, neck: int = 64) -> None:
    """Fewer channels: an iteration takes 0.5 s of a core instead of 1.3, so more fit into a run."""
    options = {
        'backbone.base_channels': backbone, 'neck.out_channels': neck,
        'neck.in_channels': [backbone << stage for stage in range(4)],
        'rpn_head.in_channels': neck, 'rpn_head.feat_channels': neck,
        'roi_head.bbox_roi_extractor.out_channels': neck, 'roi_head.bbox_head.in_channels': neck,
        'roi_head.mask_roi_extractor.out_channels': neck, 'roi_head.mask_head.in_channels': neck,
        'roi_head.mask_head.conv_out_channels': neck,
        'roi_head.mask_head.predictor_cfg': {'type': 'OwnClassConv2d', 'in_tests': True}}
    cfg.merge_from_dict({f'model.{key}': value for key, value in options.items()})


# ------------------------------------------------------------------------------------- scores

def score_dump(dump: Path, prepared: Path) -> dict[str, float]:
    """The table's columns for a submission of the validation images."""
    train_images = train_image_counts(PreparedIndex.open(prepared / 'train' / 'index.arrow'))
    space = PreparedIndex.open(prepared / 'validation' / 'index.arrow').label_space
    with Submission(dump) as submission:
        seen, whole = (analyse(submission, PreparedIndex.open(prepared / split / 'index.arrow'))[0]
                       for split in ('validation', 'oracle'))
    result, on_oracle = (score(found.matches, found.positives(space.num_classes))
                         for found in (seen, whole))
    groups = {'rare': train_images < RARE, 'frequent': train_images >= FREQUENT,
              'common': (train_images >= RARE) & (train_images < FREQUENT),
              'leaves': space.leaves, 'parents': ~space.leaves}
    sizes = by_size(seen, space.num_classes, {'small': (1, SMALL), 'large': (LARGE, np.inf)})
    scores = {'validation mAP': result.mean_average_precision,
              'oracle mAP': on_oracle.mean_average_precision,
              **{name: mean_over(result.average_precisions, classes)
                 for name, classes in groups.items()},
              **{name: value for name, (value, _) in sizes.items()}}
    return {name: scores[name] for name in COLUMNS}


# ------------------------------------------------------------------------------------- table

def report(args: argparse.Namespace, names: Sequence[str]) -> None:
    """Print the table; write it as CSV and as a picture."""
    rows = []
    for name in names:
        runs = [json.loads(path.read_text())['scores'] for seed in range(args.seeds)
                if (path := result_path(args, name, seed)).exists()]
        if runs:
            rows.append((name, len(runs), *(
                (float(np.mean(values)), float(np.std(values, ddof=1)) if len(runs) > 1 else 0.)
                for values in ([run[column] for run in runs] for column in COLUMNS))))
    print(f'\n{"arm":<22}{"runs":>5}' + ''.join(f'{column:>16}' for column in COLUMNS))
    for name, count, *cells in rows:
        print(f'{name:<22}{count:>5}' + ''.join(f'{mean:>9.4f} ±{spread:.3f}'
                                                for mean, spread in cells))
    base = f'table_{args.iterations}_{args.lr:g}'
    with atomic_write(args.out / f'{base}.csv') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(['arm', 'runs', *(f'{column}{end}' for column in COLUMNS
                                          for end in ('', ' sd'))])
        writer.writerows([name, count, *(value for cell in cells for value in cell)]
                         for name, count, *cells in rows)
    plot(args.out / f'{base}.png', rows)


def plot(path: Path, rows: Sequence[tuple]) -> None:
    """Validation and oracle mAP of every arm, with the spread over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1 + 0.3 * len(rows)), layout='constrained')
    axes = figure.subplots()
    places = np.arange(len(rows))
    for shift, column in ((-0.2, 0), (0.2, 1)):
        cells = [row[2 + column] for row in rows]
        axes.barh(places + shift, [cell[0] for cell in cells], 0.38,
                  xerr=[cell[1] for cell in cells], label=COLUMNS[column])
    axes.set_yticks(places, [row[0] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel('mAP')
    axes.legend()
    with atomic_write(path, 'wb') as file:
        figure.savefig(file, dpi=120, format='png')


if __name__ == '__main__':
    run_command(main)
