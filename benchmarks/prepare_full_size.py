"""tools/prepare_data.py on a train split of full size: time and memory of the whole run.

Generates the official layout with as many images, boxes, masks and labels as asked for. To make it
in minutes, mask files are drawn from a few hundred small PNGs (a fifth of the image's size, which
preparing scales up), and sizes come from a CSV in place of 500 GB of images. Rows, archives, index
and ground truth have their full size; only decoding is cheaper than with the real archives, and
benchmarks/prepare_speed.py measures that.

    python benchmarks/prepare_full_size.py --images 848512 --folder DIR
    python benchmarks/prepare_full_size.py --images 848512 --folder DIR --v7-label-rows 58800000

With ``--v7-label-rows`` the files are those of V7, whose image labels are so many, nearly all of
images that have no box.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from prepare_speed import HEX, draw_mask, encode_png
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
MASKS_PER_IMAGE = 2_125_000 / 848_512
LABELS_PER_IMAGE = 7
NUM_CLASSES = 300
PNGS = 400
SIZE = (1024, 768)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=5000, help='full size is 848512')
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1)
    parser.add_argument('--folder', type=Path, help='keep the generated files here')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--v7-label-rows', type=int, metavar='N',
                        help="V7's files, with N rows of image labels (it has 58.8 million)")
    parser.add_argument('--no-coco', action='store_true')
    return parser.parse_args()


@dataclass(frozen=True)
class Names:
    """What a release calls its files, and the columns that the challenge does not have."""

    classes: str
    hierarchy: str
    boxes: str
    masks: str
    labels: str
    archive: str
    box_header: str = 'ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf'
    box_row: str = '{image_id},{mid},{box},{group}'
    label_header: str = 'ImageID,LabelName,Confidence'
    label_row: str = '{image_id},{mid},{sign}'


CHALLENGE = Names('challenge-2019-classes-description-segmentable.csv',
                  'challenge-2019-label300-segmentable-hierarchy.json',
                  'challenge-2019-train-segmentation-bbox.csv',
                  'challenge-2019-train-segmentation-masks.csv',
                  'challenge-2019-train-segmentation-labels.csv',
                  'challenge-2019-train-masks-{}.zip')
V7 = Names('oidv7-class-descriptions-segmentable.csv', 'bbox_labels_600_hierarchy.json',
           'oidv6-train-annotations-bbox.csv', 'train-annotations-object-segmentation.csv',
           'oidv7-train-annotations-human-imagelabels.csv', 'train-masks-{}.zip',
           'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,'
           'IsGroupOf,IsDepiction,IsInside', '{image_id},xclick,{mid},1,{box},0,0,{group},0,-1',
           'ImageID,Source,LabelName,Confidence', '{image_id},verification,{mid},{sign}')


def write_classes(folder: Path, names: Names) -> list[str]:
    mids = [f'/m/0c{n:03}' for n in range(NUM_CLASSES)]
    (folder / names.classes).write_text(
        ''.join(f'{mid},class {n}\n' for n, mid in enumerate(mids)), encoding='utf-8')
    tree = {'LabelName': '/m/0bl9f', 'Subcategory': [
        {'LabelName': mids[top], 'Subcategory': [{'LabelName': mid} for mid in mids[25 + top::25]]}
        for top in range(25)]}
    (folder / names.hierarchy).write_text(json.dumps(tree), encoding='utf-8')
    return mids


def generate(folder: Path, count: int, seed: int, label_rows: int | None) -> None:
    """Write the layout; boxes in the two CSVs differ in their decimals, as the official ones do."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    names = CHALLENGE if label_rows is None else V7
    mids = write_classes(folder, names)
    pngs = []
    while len(pngs) < PNGS:
        mask = draw_mask(rng, SIZE[0] // 5, SIZE[1] // 5)
        ys, xs = np.nonzero(mask)
        box = (xs.min() / mask.shape[1], (xs.max() + 1) / mask.shape[1],
               ys.min() / mask.shape[0], (ys.max() + 1) / mask.shape[0])
        pngs.append((encode_png(mask, 1), box))
    image_ids = sorted(f'{n:016x}' for n in rng.choice(1 << 62, count, replace=False).tolist())
    image_ids = [f'{HEX[n * 16 // count]}{image_id[1:]}' for n, image_id in enumerate(image_ids)]
    (folder / 'sizes.csv').write_text('ImageID,ImageWidth,ImageHeight\n' + ''.join(
        f'{image_id},{SIZE[0]},{SIZE[1]}\n' for image_id in image_ids), encoding='utf-8')
    (folder / 'masks').mkdir(exist_ok=True)
    with (open(folder / names.boxes, 'w') as boxes, open(folder / names.masks, 'w') as masks,
          open(folder / names.labels, 'w') as labels):
        boxes.write(names.box_header + '\n')
        masks.write('MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,'
                    'PredictedIoU,Clicks\n')
        labels.write(names.label_header + '\n')
        if label_rows is not None:
            write_other_labels(rng, labels, label_rows - count * LABELS_PER_IMAGE)
        for character in tqdm(HEX, desc='generating'):
            path = folder / 'masks' / names.archive.format(character)
            with zipfile.ZipFile(path, 'w') as archive:
                for image_id in image_ids:
                    if image_id[0] == character:
                        write_image(rng, image_id, mids, pngs, names,
                                    (boxes, masks, labels, archive))


def write_other_labels(rng: np.random.Generator, labels: TextIO, count: int) -> None:
    """Labels of images without boxes, seven an image, of 20,000 classes, as in V7."""
    for start in tqdm(range(0, count, 70_000), desc='labels of other images'):
        size = min(70_000, count - start)
        image_ids = np.repeat(rng.integers(1 << 62, 1 << 63, -(-size // 7)), 7)[:size].tolist()
        classes = rng.integers(0, 20_000, size).tolist()
        labels.writelines(f'{image_id:016x},verification,/m/0d{c},{c & 1}\n'
                          for image_id, c in zip(image_ids, classes, strict=True))


def write_image(rng: np.random.Generator, image_id: str, mids: list[str], pngs: list,
                names: Names, files: tuple) -> None:
    boxes, masks, labels, archive = files
    count = min(int(rng.geometric(0.75 / MASKS_PER_IMAGE)), 100)
    classes = rng.permutation(NUM_CLASSES)[:LABELS_PER_IMAGE].tolist()
    for n, c in enumerate(classes):
        labels.write(names.label_row.format(image_id=image_id, mid=mids[c], sign=int(n < 3)) + '\n')
    choices, chances = rng.integers(0, PNGS, count).tolist(), rng.random(count).tolist()
    shifts = (rng.random(count) * 1e-4).tolist()
    for n in range(count):
        png, box = pngs[choices[n]]
        # A box is where its mask is, but for what tells it from its like in the same image.
        box = [min(side + shifts[n], 1) for side in box]
        mid = mids[classes[n % 3]]
        boxes.write(names.box_row.format(
            image_id=image_id, mid=mid, box=','.join(f'{side:.7f}' for side in box),
            group=int(chances[n] > 0.95)) + '\n')
        if chances[n] < 0.75:
            name = f'{image_id}_{mid[1:].replace("/", "")}_{n:08x}.png'
            masks.write(f'{name},{image_id},{mid},{n:08x},'
                        + ','.join(f'{side:.6f}' for side in box) + ',0.8,\n')
            archive.writestr(name, png)


def watch_memory(process: subprocess.Popen, peaks: dict[str, float]) -> None:
    """Keep the largest sum over the process and its workers of their proportional set sizes."""
    while process.poll() is None:
        total = anonymous = 0.0
        for pid in [process.pid, *children(process.pid)]:
            try:
                lines = Path(f'/proc/{pid}/smaps_rollup').read_text(encoding='ascii').splitlines()
            except OSError:
                continue
            fields = {line.split()[0]: int(line.split()[1]) for line in lines[1:]}
            total += fields['Pss:'] / 2**20
            anonymous += fields['Pss_Anon:'] / 2**20
        peaks['all pages'] = max(peaks.get('all pages', 0), total)
        peaks['without mapped files'] = max(peaks.get('without mapped files', 0), anonymous)
        time.sleep(0.5)


def children(pid: int) -> list[int]:
    found = []
    for path in Path('/proc').glob('[0-9]*/stat'):
        try:
            fields = path.read_text(encoding='utf-8').rpartition(') ')[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / 'data'
        if not (folder / 'sizes.csv').exists():
            generate(folder, arguments.images, arguments.seed, arguments.v7_label_rows)
        command = [sys.executable, str(ROOT / 'tools' / 'prepare_data.py'), '--data-root',
                   str(folder), '--split', 'train', '--workers', str(arguments.workers),
                   '--sizes', str(folder / 'sizes.csv'),
                   *(['--no-coco'] if arguments.no_coco else [])]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        peaks: dict[str, float] = {}
        watcher = threading.Thread(target=watch_memory, args=(process, peaks))
        watcher.start()
        output = process.communicate()[0]
        watcher.join()
        seconds = time.perf_counter() - start
        if process.returncode:
            raise SystemExit(process.returncode)
        print('\n'.join(output.splitlines()[:36]))
        print(f'\n{arguments.workers} workers: {seconds:,.0f} s; peak GiB of all processes: '
              + ', '.join(f'{name} {value:.2f}' for name, value in peaks.items()))
        for path in sorted((folder / 'prepared' / 'train').iterdir()):
            print(f'{path.name:<24}{path.stat().st_size / 2**20:10,.1f} MiB')


if __name__ == '__main__':
    main()
