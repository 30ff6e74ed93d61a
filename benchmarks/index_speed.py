"""Opening the prepared index against MMDetection's CocoDataset on the same annotations.

Generates an index (real image sizes where a sizes CSV is given, drawn masks, Open Images' own
numbers of instances) and its COCO JSON, then measures each dataset in a fresh process:

* seconds to open it, to build the class-aware sampler, and to read the first batch of items;
* memory of the process: resident, and without the pages it shares with other processes;
* items a second, annotations alone (read for the first time, when an index this program has just
  written still lies on the disk, and again), and with the masks decoded by LoadAnnotations.

    python benchmarks/index_speed.py --images 848512 --coco-images 212128
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.data.export.coco import write_coco
from projects.openimages.data.index import IndexColumns, write_index
from projects.openimages.data.mask_files.packed import encode_packed
from projects.openimages.data.mask_files.png import PackedMask
from projects.openimages.labels import LabelSpace

MASKS_PER_IMAGE = 2_125_000 / 848_512
BOXES_WITHOUT_MASK = 0.25
NUM_CLASSES = 300
BATCH = 16


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=20_000, help='full size is 848512')
    parser.add_argument('--coco-images', type=int,
                        help='a smaller size for CocoDataset, where memory asks for it')
    parser.add_argument('--items', type=int, default=2000, help='items read for the rates')
    parser.add_argument('--sizes', type=Path, help='CSV of real image sizes')
    parser.add_argument('--folder', type=Path, help='keep the generated files here')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', type=Path, help='also write the figures here')
    parser.add_argument('--measure', choices=('ours', 'coco'), help=argparse.SUPPRESS)
    return parser.parse_args()


def mask_pool(rng: np.random.Generator, sizes: np.ndarray) -> list[list]:
    """24 encoded masks for each image size."""
    from prepare_speed import draw_mask
    return [[encode_packed(PackedMask.from_pixels(draw_mask(rng, width, height)), height, width)
             for _ in range(24)] for width, height in sizes.tolist()]


def image_sizes(path: Path | None, rng: np.random.Generator) -> np.ndarray:
    """(40, 2) int width, height to draw from."""
    if path is None:
        return np.array([(1024, 768), (1024, 683), (768, 1024), (1024, 1024)])
    known = np.loadtxt(path, delimiter=',', skiprows=1, usecols=(1, 2), dtype=int)
    return known[rng.choice(np.flatnonzero(known.prod(axis=1) <= 1024 * 1024), 40)]


def generate(path: Path, count: int, arguments: argparse.Namespace) -> None:
    """Write an index of ``count`` images."""
    rng = np.random.default_rng(arguments.seed)
    sizes = image_sizes(arguments.sizes, rng)
    pool = mask_pool(rng, sizes)
    size_of = rng.integers(0, len(sizes), count)
    per_image = np.minimum(rng.geometric(1 / (MASKS_PER_IMAGE / (1 - BOXES_WITHOUT_MASK)), count),
                           200)
    offsets = np.concatenate(([0], np.cumsum(per_image)))
    total = int(offsets[-1])
    images = np.repeat(np.arange(count), per_image)
    has_mask = rng.random(total) >= BOXES_WITHOUT_MASK
    choice = rng.integers(0, 24, total)
    flat = [mask for masks in pool for mask in masks]
    which = size_of[images] * 24 + choice
    lengths = np.where(has_mask, np.array([len(mask.counts) for mask in flat])[which], 0)
    area = np.where(has_mask, np.array([mask.area for mask in flat])[which], 0)
    boxes_px = np.array([mask.box for mask in flat])[which]
    width, height = sizes[size_of[images]].T
    boxes = np.stack([boxes_px[:, 0] / width, (boxes_px[:, 0] + boxes_px[:, 2]) / width,
                      boxes_px[:, 1] / height, (boxes_px[:, 1] + boxes_px[:, 3]) / height], axis=1)
    data = b''.join([flat[n].counts for n in which[has_mask].tolist()])
    # Classes as frequent as a long tail has them: the commonest 10,000 times the rarest.
    frequency = 10.0 ** -np.linspace(0, 4, NUM_CLASSES)
    classes = rng.choice(NUM_CLASSES, total, p=frequency / frequency.sum())
    labels = np.full(count, 6)
    columns = IndexColumns(
        image_ids=sorted(f'{n:016x}' for n in rng.choice(1 << 62, count, replace=False).tolist()),
        widths=sizes[size_of, 0], heights=sizes[size_of, 1], instance_offsets=offsets,
        class_ids=classes, boxes=boxes, is_group_of=~has_mask & (rng.random(total) < 0.2),
        mask_area=area, mask_box=np.where(has_mask[:, None], boxes_px, 0),
        mask_offsets=np.concatenate(([0], np.cumsum(lengths))), mask_data=data,
        label_offsets=np.concatenate(([0], np.cumsum(labels))),
        label_class_ids=rng.integers(0, NUM_CLASSES, int(labels.sum())),
        label_present=rng.random(int(labels.sum())) < 0.5)
    space = LabelSpace(tuple(f'/m/0c{n}' for n in range(NUM_CLASSES)),
                       tuple(f'class {n}' for n in range(NUM_CLASSES)),
                       np.zeros((NUM_CLASSES, NUM_CLASSES), bool))
    write_index(path, columns, split='train', label_space=space)


def memory() -> dict[str, float]:
    """Mebibytes of this process: resident, and private to it."""
    fields = {}
    for line in Path('/proc/self/smaps_rollup').read_text(encoding='ascii').splitlines()[1:]:
        name, value, _ = line.split()
        fields[name] = int(value) / 1024
    return {'resident': fields['Rss:'],
            'private': fields['Private_Clean:'] + fields['Private_Dirty:']}


def measure(kind: str, folder: Path, items: int) -> dict[str, float]:
    """Figures of one dataset in this process; modules are imported before the clock starts."""
    from mmdet.datasets import CocoDataset
    from mmdet.datasets.samplers import ClassAwareSampler
    from mmdet.datasets.transforms import LoadAnnotations

    from projects.openimages.mm.datasets.openimages import OpenImagesInstanceDataset
    from projects.openimages.mm.datasets.samplers import InfiniteClassAwareSampler
    before = memory()
    start = time.perf_counter()
    options = {'data_prefix': {'img': 'images/'}, 'pipeline': [], 'test_mode': False,
               'filter_cfg': {'filter_empty_gt': True, 'min_size': 32}}
    if kind == 'ours':
        dataset = OpenImagesInstanceDataset(str(folder / 'index.arrow'), **options)
    else:
        classes = [f'class {n}' for n in range(NUM_CLASSES)]
        dataset = CocoDataset(ann_file=str(folder / 'coco.json'),
                              metainfo={'classes': classes}, **options)
    opened = time.perf_counter()
    sampler = (InfiniteClassAwareSampler if kind == 'ours' else ClassAwareSampler)(dataset, seed=0)
    indices = iter(sampler)
    first = [next(indices) for _ in range(BATCH)]
    sampled = time.perf_counter()
    for n in first:
        dataset.get_data_info(n)
    batch = time.perf_counter()
    after = memory()
    figures = {'images': len(dataset), 'open s': opened - start, 'sampler s': sampled - opened,
               'first batch s': batch - sampled, 'together s': batch - start,
               'resident MiB': after['resident'] - before['resident'],
               'private MiB': after['private'] - before['private'],
               'process MiB': after['resident'],
               'peak MiB': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    rows = np.random.default_rng(0).integers(0, len(dataset), items).tolist()
    load = LoadAnnotations(with_bbox=True, with_mask=True)
    start = time.perf_counter()
    for n in rows:
        dataset.get_data_info(n)
    read = time.perf_counter()
    figures['items/s, first time'] = items / (read - start)
    for n in rows:
        dataset.get_data_info(n)
    figures['items/s, again'] = items / (time.perf_counter() - read)
    read = time.perf_counter()
    for n in rows[:items // 10]:
        info = dataset.get_data_info(n)
        info['img_shape'] = info['ori_shape'] = (info['height'], info['width'])
        load(info)
    figures['items/s, decoded'] = (items // 10) / (time.perf_counter() - read)
    return figures


def run_measurement(kind: str, folder: Path, items: int) -> dict[str, float]:
    command = [sys.executable, __file__, '--measure', kind, '--folder', str(folder), '--items',
               str(items)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def main() -> None:
    arguments = parse_arguments()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.folder, arguments.items)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        ours, coco = folder / 'ours', folder / 'coco'
        for place, count in ((ours, arguments.images),
                             (coco, arguments.coco_images or arguments.images)):
            if not (place / 'index.arrow').exists():
                place.mkdir(parents=True, exist_ok=True)
                generate(place / 'index.arrow', count, arguments)
        if not (coco / 'coco.json').exists():
            write_coco(coco / 'coco.json', coco / 'index.arrow', workers=os.cpu_count() or 1)
        results = {'ours': run_measurement('ours', ours, arguments.items),
                   'coco': run_measurement('coco', coco, arguments.items)}
        if arguments.coco_images not in (None, arguments.images):
            results['ours, as small'] = run_measurement('ours', coco, arguments.items)
        disk = {'ours': (ours / 'index.arrow').stat().st_size / 2**20,
                'coco': (coco / 'coco.json').stat().st_size / 2**20}
    for kind, size in disk.items():
        results[kind]['file MiB'] = size
    print(f'{"":<20}' + ''.join(f'{kind:>18}' for kind in results))
    for name in results['ours']:
        print(f'{name:<20}' + ''.join(f'{figures.get(name, float("nan")):18,.3f}'
                                      for figures in results.values()))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding='utf-8')


if __name__ == '__main__':
    main()
