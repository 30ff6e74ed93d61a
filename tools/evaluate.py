"""Score a predictions CSV as the official evaluator does, in seconds and without TensorFlow.

The five input flags and the output are those of the TF Object Detection API's
oid_challenge_evaluation.py; the metrics CSV is the same.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.common.errors import exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()

from projects.openimages.challenge.evaluate import EvaluatorFiles, evaluate_files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    EvaluatorFiles.add_arguments(parser)
    parser.add_argument('--workers', type=int, metavar='N',
                        help='processes to use (default: one a CPU core)')
    arguments = parser.parse_args()
    files = EvaluatorFiles.from_arguments(arguments)
    result = evaluate_files(files, arguments.workers)
    print(f'mAP {result.mean_average_precision:.6f} over '
          f'{(result.positives > 0).sum()} classes; {files.output_metrics}')


if __name__ == '__main__':
    run_command(main)
