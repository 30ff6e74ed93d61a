#!/usr/bin/env python
"""The whole path on demo data, on two CPU cores: data, training, submission, evaluators, report."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from projects.openimages.common.errors import UserError, exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()

from mmengine.config import Config

from evaluation.parity import Comparison, official_path
from evaluation.tf_challenge import read_metrics
from projects.openimages.challenge.evaluate import EvaluatorFiles
from projects.openimages.demo.steps import MMEngineLines, Step, StepRunner, imported_files
from projects.openimages.submissions.dump.parts import parts_folder

CONFIG = 'configs/oi_mask_rcnn_r50_demo.py'
TEMPLATES = sorted((ROOT / 'projects' / 'openimages' / 'analysis' / 'templates').iterdir())
PINS = [path for path in sorted((ROOT / 'requirements').glob('*.txt')) if path.stem != 'tests']
MAP_KEY = 'mAP@0.5IOU'


def plan(out: Path) -> list[Step]:
    """The demo's steps, which write into the folder ``out``, an absolute path."""
    return [*data_steps(out), *model_steps(out), *scoring_steps(out)]


def data_steps(out: Path) -> list[Step]:
    """Demo data, prepared and looked at."""
    data = out / 'data'
    return [
        step('data', 'Demo data in the official layout',
             ['tools/make_demo_data.py', '--out', data], [data]),
        step('prepare', 'Prepare: official files to index, COCO JSON, TF ground truth, report',
             ['tools/prepare_data.py', '--data-root', data,
              '--split', 'train', 'validation', 'test'], [data / 'prepared'], after=['data']),
        step('pictures', 'Look at the ground truth',
             ['tools/browse_dataset.py', '--data-root', data, '--out', out / 'ground_truth.png'],
             [out / 'ground_truth.png'], after=['prepare'])]


def model_steps(out: Path) -> list[Step]:
    """A model, its predictions on validation and its submission for the test split."""
    train, predictions, submission = (out / name for name in (
        'train', 'predictions_tf.csv', 'submission.csv'))
    cfg = Config.fromfile(ROOT / CONFIG, import_custom_modules=False)
    checkpoint = train / f'iter_{cfg.train_cfg.max_iters}.pth'
    options = ['--cfg-options', f'data_root={out / "data"}/']
    common: dict[str, Any] = {
        'settings': json.dumps(cfg.to_dict(), sort_keys=True, default=str),
        'show': MMEngineLines()}
    return [
        step('train', 'Train Mask R-CNN from scratch',
             ['tools/train.py', CONFIG, '--work-dir', train, *options], [train, checkpoint],
             after=['prepare'], resume_flags=['--resume'], **common,
             without=['projects.openimages.mm.evaluation']),  # its validation changes no weight
        step('test', 'Test on validation: our metric, predictions in TF format, pictures',
             ['tools/test.py', CONFIG, checkpoint, '--work-dir', out / 'test',
              '--submission', predictions, '--submission-format', 'tf',
              '--show-dir', out / 'validation', *options],
             [predictions, out / 'validation', out / 'test'], after=['train'],
             leftovers=[parts_folder(predictions)], resume_flags=['--resume-submission'],
             **common),
        step('submission', 'Submission for the test split, in Kaggle format',
             ['tools/test.py', CONFIG, checkpoint, '--work-dir', out / 'submission',
              '--split', 'test', '--submission', submission, *options],
             [submission, out / 'submission'], after=['train'],
             leftovers=[parts_folder(submission)], resume_flags=['--resume-submission'],
             **common)]


def scoring_steps(out: Path) -> list[Step]:
    """Both evaluators on the predictions, a check of the submission, and the report."""
    ours, both = evaluator_files(out, 'metrics.csv'), evaluator_files(out, 'parity.csv')
    return [
        step('score', 'Score the CSV: our evaluator',
             ['tools/evaluate.py', *ours.as_flags()], [Path(ours.output_metrics)],
             after=['test']),
        step('parity', 'Score the CSV: the official evaluator beside ours',
             ['-m', 'evaluation.parity', *both.as_flags()],
             [Path(both.output_metrics), official_path(both)], after=['test']),
        step('check', 'Check the submission: format, and a row for every test image',
             ['tools/check_submission.py', out / 'submission.csv',
              '--images', out / 'data' / 'images' / 'test'], [], after=['submission']),
        step('report', 'Report: what is wrong with the model, on one page',
             ['tools/report.py', out / 'predictions_tf.csv',
              '--prepared', out / 'data' / 'prepared' / 'validation',
              '--train-index', out / 'data' / 'prepared' / 'train' / 'index.arrow',
              '--out', out / 'report'], [out / 'report'], after=['test'], also=TEMPLATES)]


def step(name: str, title: str, arguments: Sequence[str | Path], outputs: Sequence[Path],
         without: Sequence[str] = (), also: Sequence[Path] = (), **more: Any) -> Step:
    """A step that runs Python, and depends on the code that it imports and on files besides."""
    module = str(arguments[1]).replace('.', '/') + '.py'
    script = ROOT / (module if arguments[0] == '-m' else arguments[0])
    return Step(name, title, [sys.executable, *map(str, arguments)], outputs, **more,
                sources=[*imported_files(ROOT, script, without), *also, *PINS])


def evaluator_files(out: Path, metrics: str) -> EvaluatorFiles:
    """What the evaluators read, and the name of what they write."""
    prepared = out / 'data' / 'prepared' / 'validation'
    return EvaluatorFiles(
        input_annotations_boxes=str(prepared / 'tf_boxes.csv'),
        input_annotations_labels=str(prepared / 'tf_labels.csv'),
        input_annotations_segm=str(prepared / 'tf_segmentations.csv'),
        input_class_labelmap=str(prepared / 'label_map.pbtxt'),
        input_predictions=str(out / 'predictions_tf.csv'),
        output_metrics=str(out / metrics))


def summary(out: Path, reused: Sequence[str], seconds: float) -> str:
    """What came out, with both numbers; a UserError where they differ."""
    official_csv = official_path(evaluator_files(out, 'parity.csv'))
    comparison = Comparison(read_metrics(out / 'metrics.csv'), read_metrics(official_csv), 0., 0.)
    ours, official = (next(value for key, value in metrics.items() if key.endswith(MAP_KEY))
                      for metrics in (comparison.ours, comparison.theirs))
    if comparison.differing:
        raise UserError(f'the evaluators differ, first in {comparison.differing[0]}', path=out)
    shown = out.relative_to(Path.cwd()) if out.is_relative_to(Path.cwd()) else out
    return f'''
challenge mAP on validation, over the classes present
  our evaluator        {ours:.12f}
  official evaluator   {official:.12f}
  largest difference   {comparison.largest_difference:.1e} over all classes

  {shown}/ground_truth.png                 ground truth of the validation split
  {shown}/validation/contact_sheet.jpg     predictions beside ground truth
  {shown}/data/prepared/*/report.txt       what is in the data
  {shown}/predictions_tf.csv               validation, TF format: what both evaluators scored
  {shown}/metrics.csv                      AP of every class
  {shown}/submission.csv                   test split, Kaggle format, a row for every image
  {shown}/train                            checkpoints and log
  {shown}/report/index.html                what is wrong with the model: open it in a browser

{seconds / 60:.1f} minutes{f'; reused: {", ".join(reused)}' if reused else ''}'''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs' / 'demo',
                        help='folder for everything: new, empty, or of a former demo '
                             '(default: %(default)s)')
    out = parser.parse_args().out.absolute()
    start = time.monotonic()
    reused = StepRunner(out, ROOT, say=lambda line: print(line, flush=True)).run(plan(out))
    print(summary(out, reused, time.monotonic() - start))


if __name__ == '__main__':
    run_command(main)
