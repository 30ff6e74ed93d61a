#!/usr/bin/env python
"""The whole path on demo data, on two CPU cores: data, training, submission, both evaluators."""

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mmengine.config import Config

from evaluation.parity import Comparison, official_path
from evaluation.tf_challenge import read_metrics
from projects.openimages.challenge.evaluate import EvaluatorFiles
from projects.openimages.common.errors import UserError, run_command
from projects.openimages.demo.steps import MMEngineLines, Step, StepRunner

CONFIG = 'configs/oi_mask_rcnn_r50_demo.py'
PACKAGE = ROOT / 'projects' / 'openimages'
BASICS = [PACKAGE / name for name in ('labels.py', 'masks.py', 'common')]
TRAINING = [PACKAGE / 'mm', PACKAGE / 'data' / 'index.py', ROOT / 'configs', *BASICS]
MODEL = [*TRAINING, PACKAGE / 'submissions', PACKAGE / 'metric']
METRIC = [PACKAGE / 'metric', PACKAGE / 'challenge', *BASICS]
MAP_KEY = 'mAP@0.5IOU'


def plan(out: Path) -> list[Step]:
    """The demo's steps; ``out`` is relative to the repository."""
    data, train, validation = out / 'data', out / 'train', out / 'validation'
    prepared = data / 'prepared'
    max_iters = Config.fromfile(ROOT / CONFIG, import_custom_modules=False).train_cfg.max_iters
    checkpoint = train / f'iter_{max_iters}.pth'
    options = ['--cfg-options', f'data_root={data}/']
    python = sys.executable
    drawing = [PACKAGE / 'visualization']
    scoring = evaluator_files(out)
    return [
        Step('data', 'Demo data in the official layout',
             [python, 'tools/make_demo_data.py', '--out', str(data)], [data / 'images'],
             [PACKAGE / 'demo', *BASICS]),
        Step('prepare', 'Prepare: official files to index, COCO JSON, TF ground truth, report',
             [python, 'tools/prepare_data.py', '--data-root', str(data),
              '--split', 'train', 'validation', 'test'],
             [prepared / split / 'index.arrow' for split in ('train', 'validation', 'test')],
             [PACKAGE / 'data', *BASICS], ['data']),
        Step('pictures', 'Look at the ground truth',
             [python, 'tools/browse_dataset.py', '--data-root', str(data),
              '--out', str(out / 'ground_truth.png')], [out / 'ground_truth.png'],
             [*drawing, *BASICS], ['prepare']),
        Step('train', 'Train Mask R-CNN from scratch',
             [python, 'tools/train.py', CONFIG, '--work-dir', str(train), *options],
             [train, checkpoint], TRAINING, ['prepare'], ['--resume'], MMEngineLines()),
        Step('test', 'Test on validation: our metric, predictions in TF format, pictures',
             [python, 'tools/test.py', CONFIG, str(checkpoint), '--work-dir', str(out / 'test'),
              '--submission', str(out / 'predictions_tf.csv'), '--submission-format', 'tf',
              '--show-dir', str(validation), *options],
             [out / 'predictions_tf.csv', validation], [*MODEL, *drawing], ['train'],
             ['--resume-submission'], MMEngineLines()),
        Step('score', 'Score the CSV: our evaluator',
             [python, 'tools/evaluate.py', *scoring.as_flags()], [out / 'metrics.csv'], METRIC,
             ['test']),
        Step('parity', 'Score the CSV: the official evaluator beside ours',
             [python, '-m', 'evaluation.parity', *scoring.as_flags()],
             [out / 'metrics.official.csv'], [ROOT / 'evaluation', *METRIC], ['test']),
        Step('submission', 'Submission for the test split, in Kaggle format',
             [python, 'tools/test.py', CONFIG, str(checkpoint), '--work-dir', str(out / 'test'),
              '--split', 'test', '--submission', str(out / 'submission.csv'), *options],
             [out / 'submission.csv'], MODEL, ['train'], ['--resume-submission'],
             MMEngineLines()),
        Step('check', 'Check the submission: format, and a row for every test image',
             [python, 'tools/check_submission.py', str(out / 'submission.csv'),
              '--images', str(data / 'images' / 'test')], [],
             [PACKAGE / 'submissions', *BASICS], ['submission'])]


def evaluator_files(out: Path) -> EvaluatorFiles:
    """What the evaluators read and write."""
    prepared = out / 'data' / 'prepared' / 'validation'
    return EvaluatorFiles(
        input_annotations_boxes=str(prepared / 'tf_boxes.csv'),
        input_annotations_labels=str(prepared / 'tf_labels.csv'),
        input_annotations_segm=str(prepared / 'tf_segmentations.csv'),
        input_class_labelmap=str(prepared / 'label_map.pbtxt'),
        input_predictions=str(out / 'predictions_tf.csv'),
        output_metrics=str(out / 'metrics.csv'))


def summary(out: Path, runner: StepRunner, seconds: float) -> str:
    """What came out, with both numbers; a UserError where they differ."""
    files = evaluator_files(ROOT / out)
    comparison = Comparison(read_metrics(files.output_metrics),
                            read_metrics(official_path(files)), 0., 0.)
    ours, official = (next(value for key, value in metrics.items() if key.endswith(MAP_KEY))
                      for metrics in (comparison.ours, comparison.theirs))
    if comparison.differing:
        raise UserError(f'the evaluators differ, first in {comparison.differing[0]}', path=out)
    reused = f'; reused: {", ".join(runner.reused)}' if runner.reused else ''
    return f'''
challenge mAP on validation, over the classes present
  our evaluator        {ours:.12f}
  official evaluator   {official:.12f}
  largest difference   {comparison.largest_difference:.1e} over all classes

  {out}/ground_truth.png                 ground truth of the validation split
  {out}/validation/contact_sheet.jpg     predictions beside ground truth
  {out}/data/prepared/*/report.txt       what is in the data
  {out}/predictions_tf.csv               validation, TF format: what both evaluators scored
  {out}/metrics.csv                      AP of every class
  {out}/submission.csv                   test split, Kaggle format, a row for every image
  {out}/train                            checkpoints and log

{seconds / 60:.1f} minutes{reused}'''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/demo'),
                        help='folder for everything (default: %(default)s)')
    out = parser.parse_args().out
    start = time.monotonic()
    runner = StepRunner(ROOT / out, ROOT, say=lambda line: print(line, flush=True))
    steps = plan(out)
    for number, step in enumerate(steps, 1):
        print(f'\n== {number}/{len(steps)}  {step.title}', flush=True)
        runner.run(step)
    print(summary(out, runner, time.monotonic() - start))


if __name__ == '__main__':
    run_command(main)
