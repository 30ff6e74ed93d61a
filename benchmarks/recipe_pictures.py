#!/usr/bin/env python
"""What runs of ``benchmarks/recipe.py`` find on the hard world's whole truth: a count, a picture.

    python benchmarks/recipe_pictures.py --data DIR --out recipe.jpg stock=RUN main=RUN recipe=RUN

RUN is the ``validation.csv`` of a run. Of an image with ``k`` objects each detector may name ``k``
leaves: its best detections that do not overlap by half. An object is found where one of them has
its class and half of its mask. The count is over all images with three to seven objects; the
picture shows those on which the last run gains most over the first.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from projects.openimages.challenge.from_index import IndexGroundTruth
from projects.openimages.common.errors import UserError, run_command
from projects.openimages.common.files import atomic_write
from projects.openimages.data.index import PreparedIndex
from projects.openimages.masks import Rle, bbox, inflate_text, iou
from projects.openimages.submissions.formats import ImageDetections, Submission
from projects.openimages.visualization.drawing import (
    Instances,
    add_caption,
    draw_instances,
    montage,
)

FEWEST, MOST = 3, 7  # objects of an image that is looked at
Named = list[tuple[int, Rle]]  # class ids and masks


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument('runs', nargs='+', metavar='NAME=CSV')
    parser.add_argument('--data', type=Path, required=True, help='the prepared hard world')
    parser.add_argument('--out', type=Path, required=True, help='the picture, a JPEG')
    parser.add_argument('--images', type=int, default=4, help='of the picture (default: 4)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    index = PreparedIndex.open(args.data / 'prepared' / 'oracle' / 'index.arrow')
    truths = IndexGroundTruth(index)
    leaves = index.label_space.leaves
    looked_at, totals, objects = [], {}, 0
    with ExitStack() as stack:
        runs = {}
        for text in args.runs:
            name, _, path = text.partition('=')
            if not path:
                raise UserError(f'{text!r}, expected NAME=CSV')
            runs[name] = stack.enter_context(Submission(path))
        for row in range(index.num_images):
            truth = truths.image(row)
            there = [(int(truth.class_ids[n]), truth.masks[n])
                     for n in np.flatnonzero(leaves[truth.class_ids])]
            if not FEWEST <= len(there) <= MOST:
                continue
            named = {name: best_leaves(run.image(index.image_id(row)), index, len(there))
                     for name, run in runs.items()}
            found = {name: count_found(items, there) for name, items in named.items()}
            looked_at.append((row, there, named, found))
            objects += len(there)
            for name, count in found.items():
                totals[name] = totals.get(name, 0) + count
    print(f'{len(looked_at)} images, {objects} objects')
    for name, count in totals.items():
        print(f'{name}: {count} found, {count / max(objects, 1):.3f}')
    first, *_, last = runs
    looked_at.sort(key=lambda item: item[3][first] - item[3][last])
    cells = [cell for item in looked_at[:args.images]
             for cell in draw(item, args.data / 'images' / 'validation', index, (first, last))]
    if cells:
        with atomic_write(args.out, 'wb') as file:
            montage(cells, columns=3).save(file, format='jpeg', quality=72)


def best_leaves(image: ImageDetections | None, index: PreparedIndex, count: int) -> Named:
    """The ``count`` best-scoring leaves whose masks do not overlap by half."""
    chosen: Named = []
    for item in sorted(image.detections if image else [], key=lambda item: -float(item.score)):
        class_id = index.label_space.class_id(item.mid)
        if len(chosen) == count:
            break
        if not index.label_space.leaves[class_id]:
            continue
        mask = {'size': [image.height, image.width],
                'counts': inflate_text(item.mask, image.height, image.width)}
        if not chosen or iou([mask], [other for _, other in chosen]).max() < 0.5:
            chosen.append((class_id, mask))
    return chosen


def count_found(named: Named, there: Named) -> int:
    """Objects whose class is named where they are."""
    if not named:
        return 0
    same = np.array([[one == other for other, _ in there] for one, _ in named])
    overlaps = iou([mask for _, mask in named], [mask for _, mask in there])
    return int((same & (overlaps > 0.5)).any(axis=0).sum())


def draw(item: tuple, folder: Path, index: PreparedIndex, names: tuple[str, ...]) -> list:
    """The image with the truth and with what each of the runs named."""
    row, there, named, found = item
    with Image.open(folder / f'{index.image_id(row)}.jpg') as file:
        photo = file.convert('RGB')
    cells = []
    for name, items in (('truth', there), *((name, named[name]) for name in names)):
        masks = [mask for _, mask in items]
        x, y, width, height = bbox(masks).reshape(-1, 4).T
        instances = Instances([label for label, _ in items],
                              np.stack([x, y, x + width, y + height], axis=1), masks)
        caption = name if name not in found else f'{name}: {found[name]} of {len(there)} right'
        cells.append(add_caption(
            draw_instances(photo, instances, index.label_space.names, max_side=420), caption))
    return cells


if __name__ == '__main__':
    run_command(main)
