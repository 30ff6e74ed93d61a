"""How fast whole submissions are checked, converted, merged and swept.

    python benchmarks/submission_speed.py                     quick: 500 images
    python benchmarks/submission_speed.py --images 100000 --detections 20 --sweep-images 0
    python benchmarks/submission_speed.py --images 0 --sweep-images 13500 --detections 100

The first part times the tools on a Kaggle submission of 1024 x 768 images. The second makes an
index with ground truth and times tools/sweep.py over 50 grid points beside one tools/evaluate.py of
the same detections, expanded; start-up included. All on --workers processes; the files are made
before, in --cache, and not timed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.metric_speed import HEIGHT, SHAPES, VARIANTS, WIDTH, Mask, make_masks
from projects.openimages.common.parallel import worker_count
from projects.openimages.data.export.tf_ground_truth import write_tf_ground_truth
from projects.openimages.data.index import IndexColumns, write_index
from projects.openimages.labels import LabelSpace
from projects.openimages.masks import inflate_text
from projects.openimages.submissions.formats import (
    Detection,
    ImageDetections,
    score_text,
    write_submission,
)
from projects.openimages.submissions.selection import expand_detections

ROOT = Path(__file__).resolve().parents[1]
PARENTS, LEAVES = 25, 275
INSTANCES = 8  # an image: 5 with a mask, 2 boxes, 1 group-of box


def label_space() -> LabelSpace:
    """300 classes as many as the challenge's, 25 of them parents of 11 leaves each."""
    count = PARENTS + LEAVES
    above = np.zeros((count, count), bool)
    above[np.arange(PARENTS, count), np.arange(LEAVES) % PARENTS] = True
    mids = tuple(f'/m/0{number:03}' for number in range(count))
    return LabelSpace(mids, mids, above)


def detections(number: int, count: int, masks: list[list[Mask]],
               space: LabelSpace) -> tuple[np.ndarray, ImageDetections]:
    """The classes that are verified in an image, and detections, half of them about an object."""
    random = np.random.default_rng(number)
    classes = random.choice(np.arange(PARENTS, PARENTS + LEAVES), INSTANCES, replace=False)
    found = []
    for score in random.random(count, np.float32):
        n = int(random.integers(2 * INSTANCES))
        shape = (number + n) % SHAPES if n < INSTANCES else int(random.integers(SHAPES))
        mask = masks[shape][int(random.integers(1, VARIANTS))]
        found.append(Detection(space.mids[classes[n % INSTANCES]], score_text(score), mask.text))
    return classes, ImageDetections(f'{number:016x}', WIDTH, HEIGHT, found)


def expanded(image: ImageDetections, space: LabelSpace) -> ImageDetections:
    """The image with each detection also for its ancestors."""
    items = image.detections
    kept = expand_detections([space.ids[d.mid] for d in items],
                             np.array([d.score for d in items], np.float32),
                             [d.mask for d in items], space)
    return image._replace(detections=[
        Detection(space.mids[c], items[n].score, items[n].mask)
        for n, c in zip(kept.rows.tolist(), kept.class_ids.tolist(), strict=True)])


def write_ground_truth(path: Path, images: int, count: int, masks: list[list[Mask]],
                       space: LabelSpace) -> None:
    """An index of which the detections' objects are the instances."""
    classes = np.array([detections(n, count, masks, space)[0] for n in range(images)], np.int16)
    shapes = (np.arange(images)[:, None] + np.arange(INSTANCES)).ravel() % SHAPES
    with_mask = np.tile(np.arange(INSTANCES) < 5, images)
    counts = [inflate_text(masks[shape][0].text, HEIGHT, WIDTH) if has else b''
              for shape, has in zip(shapes.tolist(), with_mask.tolist(), strict=True)]
    total = images * INSTANCES
    write_index(path, IndexColumns(
        image_ids=[f'{n:016x}' for n in range(images)],
        widths=np.full(images, WIDTH), heights=np.full(images, HEIGHT),
        instance_offsets=np.arange(images + 1) * INSTANCES, class_ids=classes.ravel(),
        boxes=np.array([masks[shape][0].box for shape in shapes]),
        is_group_of=np.tile(np.arange(INSTANCES) == INSTANCES - 1, images),
        mask_area=with_mask.astype(np.int32), mask_box=np.zeros((total, 4), np.int32),
        mask_offsets=np.cumsum([0, *map(len, counts)]), mask_data=b''.join(counts),
        label_offsets=np.arange(images + 1) * INSTANCES, label_class_ids=classes.ravel(),
        label_present=np.ones(total, bool)), split='validation', label_space=space)


def seconds(*command: str | Path) -> float:
    """Wall time of a tool in a process of its own."""
    start = time.perf_counter()
    result = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, text=True,
                            capture_output=True, check=False)
    if result.returncode:
        sys.exit(f'{" ".join(map(str, command))}:\n{result.stderr[-2000:]}')
    return time.perf_counter() - start


def write(path: Path, images: Iterator[ImageDetections]) -> Path:
    with open(path, 'wb') as file:
        write_submission(file, images, 'kaggle')
    return path


def time_tools(folder: Path, masks: list[list[Mask]], args: argparse.Namespace) -> None:
    space = label_space()
    one, two = (write(folder / f'{name}.csv', (
        detections(n, args.detections, turned, space)[1] for n in range(args.images)))
        for name, turned in (('one', masks), ('two', masks[1:] + masks[:1])))
    (folder / 'sizes.csv').write_text('image_id,image_w,image_h\n' + ''.join(
        f'{n:016x},{WIDTH},{HEIGHT}\n' for n in range(args.images)))
    (folder / 'classes.csv').write_text(''.join(f'{mid},{mid}\n' for mid in space.mids))
    workers = ('--workers', args.workers)
    print(f'{args.images} images, {args.detections} detections each, '
          f'{one.stat().st_size / 1e6:.0f} MB, {args.workers} processes')
    for name, command in (
            ('check', ('tools/check_submission.py', one, '--images', folder / 'sizes.csv',
                       '--classes', folder / 'classes.csv', *workers)),
            ('convert', ('tools/convert_submission.py', one, folder / 'tf.csv')),
            *((f'merge 2, {method}', ('tools/merge_submissions.py', one, two, '--out',
                                      folder / 'merged.csv', '--method', method,
                                      '--no-expand-hierarchy', *workers))
              for method in ('nms', 'wbf'))):
        print(f'{name:<14}{seconds(*map(str, command)):8.1f} s', flush=True)


def time_sweep(folder: Path, masks: list[list[Mask]], args: argparse.Namespace) -> None:
    space = label_space()
    images = [detections(n, args.detections, masks, space)[1] for n in range(args.sweep_images)]
    plain = write(folder / 'plain.csv', iter(images))
    whole = write(folder / 'expanded.csv', (expanded(image, space) for image in images))
    index = folder / 'index.arrow'
    write_ground_truth(index, args.sweep_images, args.detections, masks, space)
    write_tf_ground_truth(folder, index)
    evaluation = seconds('tools/evaluate.py', '--workers', str(args.workers), *(
        f'--{flag}={folder / name}' for flag, name in (
            ('input_annotations_boxes', 'tf_boxes.csv'),
            ('input_annotations_labels', 'tf_labels.csv'),
            ('input_annotations_segm', 'tf_segmentations.csv'),
            ('input_class_labelmap', 'label_map.pbtxt'), ('input_predictions', whole.name),
            ('output_metrics', 'metrics.csv'))))
    swept = seconds('tools/sweep.py', plain, '--index', index, '--out', folder,
                    '--workers', str(args.workers))
    print(f'{args.sweep_images} images, {args.detections} detections each: one evaluation '
          f'{evaluation:.1f} s, 50 grid points {swept:.1f} s, ratio {swept / evaluation:.2f}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=500, help='0 leaves this part out')
    parser.add_argument('--sweep-images', type=int, default=500, help='0 leaves this part out')
    parser.add_argument('--detections', type=int, default=20, help='an image')
    parser.add_argument('--workers', type=int, help='default: one a CPU core')
    parser.add_argument('--cache', type=Path,
                        default=ROOT / 'work_dirs' / 'benchmarks' / 'submission_speed')
    args = parser.parse_args()
    args.workers = worker_count(args.workers)
    args.cache.mkdir(parents=True, exist_ok=True)
    masks = make_masks(np.random.default_rng(0))
    if args.images:
        time_tools(args.cache, masks, args)
    if args.sweep_images:
        time_sweep(args.cache, masks, args)


if __name__ == '__main__':
    main()
