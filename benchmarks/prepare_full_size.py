"""tools/prepare_data.py on a train split of full size: time and memory of the whole run.

Generates the official layout with as many images, boxes, masks and labels as asked for. To make it
in minutes, mask files are drawn from a few hundred small PNGs (a fifth of the image's size, which
preparing scales up), and sizes come from a CSV in place of 500 GB of images. Rows, archives, index
and ground truth have their full size; only decoding is cheaper than with the real archives, and
benchmarks/prepare_speed.py measures that.

    python benchmarks/prepare_full_size.py --images 848512 --folder DIR
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
from pathlib import Path

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
    return parser.parse_args()


def write_classes(folder: Path) -> list[str]:
    mids = [f'/m/0c{n:03}' for n in range(NUM_CLASSES)]
    (folder / 'challenge-2019-classes-description-segmentable.csv').write_text(
        ''.join(f'{mid},class {n}\n' for n, mid in enumerate(mids)), encoding='utf-8')
    tree = {'LabelName': '/m/0bl9f', 'Subcategory': [
        {'LabelName': mids[top], 'Subcategory': [{'LabelName': mid} for mid in mids[25 + top::25]]}
        for top in range(25)]}
    (folder / 'challenge-2019-label300-segmentable-hierarchy.json').write_text(
        json.dumps(tree), encoding='utf-8')
    return mids


def generate(folder: Path, count: int, seed: int) -> None:
    """Write the layout; boxes in the two CSVs differ in their decimals, as the official ones do."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    mids = write_classes(folder)
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
    prefix = f'{folder}/challenge-2019-train-segmentation'
    (folder / 'masks').mkdir(exist_ok=True)
    with (open(f'{prefix}-bbox.csv', 'w') as boxes, open(f'{prefix}-masks.csv', 'w') as masks,
          open(f'{prefix}-labels.csv', 'w') as labels):
        boxes.write('ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\n')
        masks.write('MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,'
                    'PredictedIoU,Clicks\n')
        labels.write('ImageID,LabelName,Confidence\n')
        for character in tqdm(HEX, desc='generating'):
            path = folder / 'masks' / f'challenge-2019-train-masks-{character}.zip'
            with zipfile.ZipFile(path, 'w') as archive:
                for image_id in image_ids:
                    if image_id[0] == character:
                        write_image(rng, image_id, mids, pngs, (boxes, masks, labels, archive))


def write_image(rng: np.random.Generator, image_id: str, mids: list[str], pngs: list,
                files: tuple) -> None:
    boxes, masks, labels, archive = files
    count = min(int(rng.geometric(0.75 / MASKS_PER_IMAGE)), 100)
    classes = rng.permutation(NUM_CLASSES)[:LABELS_PER_IMAGE].tolist()
    for n, c in enumerate(classes):
        labels.write(f'{image_id},{mids[c]},{int(n < 3)}\n')
    choices, chances = rng.integers(0, PNGS, count).tolist(), rng.random(count).tolist()
    shifts = (rng.random(count) * 1e-4).tolist()
    for n in range(count):
        png, box = pngs[choices[n]]
        # A box is where its mask is, but for what tells it from its like in the same image.
        box = [min(side + shifts[n], 1) for side in box]
        mid = mids[classes[n % 3]]
        boxes.write(f'{image_id},{mid},' + ','.join(f'{side:.7f}' for side in box)
                    + f',{int(chances[n] > 0.95)}\n')
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
            generate(folder, arguments.images, arguments.seed)
        command = [sys.executable, str(ROOT / 'tools' / 'prepare_data.py'), '--data-root',
                   str(folder), '--split', 'train', '--workers', str(arguments.workers),
                   '--sizes', str(folder / 'sizes.csv')]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        peaks: dict[str, float] = {}
        watcher = threading.Thread(target=watch_memory, args=(process, peaks))
        watcher.start()
        output = process.communicate()[0]
        watcher.join()
        seconds = time.perf_counter() - start
        print('\n'.join(output.splitlines()[:24]))
        print(f'\n{arguments.workers} workers: {seconds:,.0f} s; peak GiB of all processes: '
              + ', '.join(f'{name} {value:.2f}' for name, value in peaks.items()))
        for path in sorted((folder / 'prepared' / 'train').iterdir()):
            print(f'{path.name:<24}{path.stat().st_size / 2**20:10,.1f} MiB')


if __name__ == '__main__':
    main()
