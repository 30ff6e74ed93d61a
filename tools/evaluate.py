"""Score a predictions CSV as the official evaluator does, in seconds and without TensorFlow.

    python tools/evaluate.py PREDICTIONS.csv --prepared data/openimages/prepared/validation
    python tools/evaluate.py --input_predictions PREDICTIONS.csv --input_annotations_boxes …

The input flags and the output are those of the TF Object Detection API's
oid_challenge_evaluation.py; the metrics CSV is the same.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.common.errors import UserError, exit_on_interrupt, run_command

if __name__ == '__main__':  # worker processes import this file as well, and do without the rest
    exit_on_interrupt()

    from projects.openimages.challenge.evaluate import EvaluatorFiles, evaluate_files
    from projects.openimages.common.json_values import write_json
    from projects.openimages.common.options import add_json, add_workers

TRUTH = ('input_annotations_boxes', 'input_annotations_labels', 'input_annotations_segm',
         'input_class_labelmap')


def parse_args() -> tuple[EvaluatorFiles, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument('predictions', nargs='?', metavar='PREDICTIONS.csv',
                        help='with --prepared: detections, in either format')
    parser.add_argument('--prepared', metavar='DIR',
                        help='the ground truth: a split that tools/prepare_data.py has prepared, '
                             'such as data/openimages/prepared/validation')
    add_json(parser)
    add_workers(parser)
    EvaluatorFiles.add_arguments(parser.add_argument_group("the official script's flags"),
                                 required=False)
    args = parser.parse_args()
    given = [name for name in TRUTH if getattr(args, name) is not None]
    if args.predictions and args.input_predictions:
        parser.error('predictions are given twice')
    args.input_predictions = args.input_predictions or args.predictions
    if args.prepared:
        if given:
            parser.error(f'--prepared and --{given[0]}: the ground truth is given twice')
        if not args.input_predictions:
            parser.error('name the predictions: tools/evaluate.py PREDICTIONS.csv --prepared DIR')
        return EvaluatorFiles.of_prepared(args.prepared, args.input_predictions,
                                          args.output_metrics), args
    needed = [*TRUTH[:2], TRUTH[3], 'input_predictions', 'output_metrics']
    missing = [f'--{name}' for name in needed if getattr(args, name) is None]
    if missing:
        parser.error(f'needed: PREDICTIONS.csv with --prepared DIR, or {", ".join(missing)}')
    return EvaluatorFiles.from_arguments(args), args


def main() -> None:
    files, args = parse_args()
    if args.json and args.json in vars(files).values():
        raise UserError('--json would replace a file that is read or written', path=args.json)
    result = evaluate_files(files, args.workers)
    write_json(args.json, result.to_dict())
    written = '; '.join(path for path in (files.output_metrics, args.json) if path)
    print(f'mAP {result.mean_average_precision:.6f} over '
          f'{(result.positives > 0).sum()} classes' + (f'; {written}' if written else ''))


if __name__ == '__main__':
    run_command(main)
