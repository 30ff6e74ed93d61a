"""Official Open Images files to prepared splits; see docs/data.md.

python tools/prepare_data.py --data-root data --split train validation test --workers 8
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.common.errors import UserError, exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()

from projects.openimages.common.parallel import worker_count
from projects.openimages.data.layout import (
    SPLITS,
    find_classes,
    find_split,
    read_classes_of,
)
from projects.openimages.data.prepare.run import REPORTS, PrepareOptions, prepare_split


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data-root', type=Path, required=True, metavar='DIR',
                        help='folder of the official downloads; output goes to DIR/prepared')
    parser.add_argument('--split', nargs='+', default=list(SPLITS), metavar='NAME',
                        help='any split whose files are there (default: %(default)s)')
    parser.add_argument('--workers', type=int, metavar='N',
                        help='processes (default: one a core); the output does not depend on it')
    parser.add_argument('--skip-bad', action='store_true',
                        help='leave bad input out and list it in the report instead of stopping')
    parser.add_argument('--sizes', type=Path, metavar='CSV',
                        help='image sizes, such as the sample submission, instead of reading them '
                             'from the images')
    parser.add_argument('--format', choices=('rle', 'polygon'), default='rle',
                        help='masks in coco.json (default: rle)')
    parser.add_argument('--polygon-tolerance', type=float, metavar='PIXELS',
                        help='how far a polygon may leave the outline (default: 0.5)')
    parser.add_argument('--classes', type=Path, metavar='CSV', help='class list, MID,Name rows')
    parser.add_argument('--hierarchy', type=Path, metavar='JSON', help='class hierarchy')
    parser.add_argument('--num-classes', type=int, metavar='N',
                        help='insist on so many classes (the challenge has 300)')
    return parser.parse_args()


def read_options(arguments: argparse.Namespace) -> PrepareOptions:
    tolerance = arguments.polygon_tolerance
    if arguments.format != 'polygon' and tolerance is not None:
        raise UserError('--polygon-tolerance is for --format polygon')
    if arguments.format == 'polygon' and tolerance is None:
        tolerance = 0.5
    return PrepareOptions(workers=worker_count(arguments.workers), skip_bad=arguments.skip_bad,
                          sizes=arguments.sizes, polygon_tolerance=tolerance)


def main() -> None:
    arguments = parse_arguments()
    options = read_options(arguments)
    if arguments.num_classes is not None and arguments.num_classes < 1:
        raise UserError(f'--num-classes {arguments.num_classes}, expected at least 1')
    classes = find_classes(arguments.data_root, arguments.classes, arguments.hierarchy,
                           arguments.num_classes)
    space = read_classes_of(classes)
    for split in arguments.split:  # what is missing altogether is said before hours of work
        find_split(arguments.data_root, split)
    for split in arguments.split:
        prepared = prepare_split(arguments.data_root, split, space, classes.paths, options)
        if prepared.reused:
            print(f'{prepared.folder}: unchanged inputs, the prepared split is used again')
            continue
        print((prepared.folder / REPORTS[1]).read_text(encoding='utf-8'))
        print(f'{prepared.folder}: prepared')


if __name__ == '__main__':
    run_command(main)
