"""Official Open Images files to prepared splits; see docs/data.md.

python tools/prepare_data.py --data-root data --split train validation test --workers 8
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.common.errors import UserError, exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()

from projects.openimages.common.files import refuse_to_overwrite
from projects.openimages.common.json_values import write_json
from projects.openimages.common.options import add_json, add_workers
from projects.openimages.common.parallel import worker_count
from projects.openimages.data.classes import Classes, find_label_space
from projects.openimages.data.layout import find_split
from projects.openimages.data.official.releases import RELEASES
from projects.openimages.data.prepare.run import REPORTS, PrepareOptions, prepare_split
from projects.openimages.data.problems import BAD_KINDS


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data-root', type=Path, required=True, metavar='DIR',
                        help='folder of the official downloads')
    parser.add_argument('--split', nargs='+', default=['train', 'validation', 'test'],
                        metavar='NAME', help='any split whose files are there, such as '
                        'challenge2018, the test images of the challenge (default: %(default)s)')
    parser.add_argument('--release', choices=list(RELEASES),
                        help='whose files to take (default: the challenge\'s, where they are)')
    parser.add_argument('--out', type=Path, metavar='DIR',
                        help='where the prepared splits go (default: DATA_ROOT/prepared)')
    add_json(parser)
    add_workers(parser)
    parser.add_argument('--skip-bad', action='store_true',
                        help='leave bad input out and list it in the report instead of stopping')
    parser.add_argument('--skip', nargs='+', default=[], choices=list(BAD_KINDS), metavar='KIND',
                        help='the same for some kinds of bad input: ' + ', '.join(BAD_KINDS))
    parser.add_argument('--sizes', type=Path, metavar='CSV',
                        help='image sizes, such as the sample submission, instead of reading them '
                             'from the images')
    parser.add_argument('--format', choices=('rle', 'polygon'), default='rle',
                        help='masks in coco.json (default: rle)')
    parser.add_argument('--polygon-tolerance', type=float, metavar='PIXELS',
                        help='how far a polygon may leave the outline (default: 0.5)')
    parser.add_argument('--no-coco', action='store_true', help='write no coco.json')
    parser.add_argument('--classes', type=Path, metavar='FILE',
                        help='only these classes: a MID, a name or MID,Name a line')
    parser.add_argument('--hierarchy', type=Path, metavar='JSON', help='class hierarchy')
    parser.add_argument('--num-classes', type=int, metavar='N',
                        help='insist on so many classes (the challenge has 300)')
    return parser.parse_args()


def read_options(arguments: argparse.Namespace, classes: Classes) -> PrepareOptions:
    tolerance = arguments.polygon_tolerance
    if arguments.format == 'polygon' and tolerance is None:
        tolerance = 0.5
    return PrepareOptions(
        workers=worker_count(arguments.workers), skip_bad=arguments.skip_bad,
        skip=frozenset(arguments.skip), sizes=arguments.sizes, polygon_tolerance=tolerance,
        coco=not arguments.no_coco, release=arguments.release, choice=classes.choice,
        out=arguments.out, missing=classes.files.missing)


def check_arguments(arguments: argparse.Namespace) -> None:
    if arguments.format != 'polygon' and arguments.polygon_tolerance is not None:
        raise UserError('--polygon-tolerance is for --format polygon')
    if arguments.json:
        refuse_to_overwrite(arguments.json, *filter(None, (
            arguments.sizes, arguments.classes, arguments.hierarchy)))
    if arguments.num_classes is not None and arguments.num_classes < 1:
        raise UserError(f'--num-classes {arguments.num_classes}, expected at least 1')


def main() -> None:
    arguments = parse_arguments()
    check_arguments(arguments)
    classes = find_label_space(arguments.data_root, arguments.classes, arguments.hierarchy,
                               arguments.num_classes, arguments.release)
    options = read_options(arguments, classes)
    print('\n'.join(classes.describe()), file=sys.stderr)
    for split in arguments.split:  # what is missing altogether is said before hours of work
        files = find_split(arguments.data_root, split, arguments.release)
        print('\n'.join(files.describe()), file=sys.stderr)
    reports = []
    for split in arguments.split:
        prepared = prepare_split(arguments.data_root, split, classes.space, classes.paths, options)
        report, page = (prepared.folder / name for name in REPORTS)
        reports.append({'folder': prepared.folder, **json.loads(report.read_text('utf-8'))})
        if prepared.reused:
            print(f'{prepared.folder}: unchanged inputs, the prepared split is used again')
            continue
        print(page.read_text('utf-8'))
        print(f'{prepared.folder}: prepared')
    write_json(arguments.json, {'splits': reports})


if __name__ == '__main__':
    run_command(main)
