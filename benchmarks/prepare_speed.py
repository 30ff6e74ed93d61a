"""Preparing mask archives against the usual way and against plain PNG decoding.

Generates masks (1-bit and 8-bit PNGs of polygons with holes and crumbs, at real image sizes where
a sizes CSV is given) in zips, and then, each on one core and in turns, the best of some rounds:

* read: every PNG's bytes out of the zips;
* packed bits: those bytes to one bit a pixel, by read_mask and by cv2.imdecode and np.packbits;
* floor: decode every PNG, by each of cv2, Pillow and imagecodecs (where installed);
* ours: zip to compressed RLE at the image's size, in shards, as tools/prepare_data.py does;
* usual: cv2 decode, resize, pycocotools encode, findContours, and one json.dump;
* ours over two processes.

    python benchmarks/prepare_speed.py --masks 20000
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
from PIL import Image
from pycocotools import mask as coco_mask
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.common.parallel import run_in_order
from projects.openimages.data.layout import SplitFiles
from projects.openimages.data.mask_files.archives import MaskPlaces, MaskReader, find_masks
from projects.openimages.data.mask_files.png import read_mask
from projects.openimages.data.official.releases import FULL
from projects.openimages.data.prepare.shards import (
    MASKS_PER_SHARD,
    Shard,
    ShardResult,
    process_shard,
)
from projects.openimages.data.problems import ProblemLog

HEX = '0123456789abcdef'


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--masks', type=int, default=2000, help='of each kind (default 2000)')
    parser.add_argument('--width', type=int, default=1024)
    parser.add_argument('--height', type=int, default=768)
    parser.add_argument('--sizes', type=Path, help='CSV of real image sizes to draw from instead')
    parser.add_argument('--scaled', type=float, default=0.0, metavar='SHARE',
                        help='share of masks stored at 0.8 of their image\'s size (default 0)')
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', type=Path, help='also write the figures here')
    return parser.parse_args()


def draw_mask(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """(H, W) 0/255: a lumpy outline as annotators draw, sometimes in pieces or with a hole."""
    mask = np.zeros((height, width), np.uint8)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        count = int(rng.integers(12, 80))
        angles = np.sort(rng.uniform(0, 2 * np.pi, count))
        radius = rng.lognormal(-1.9, 0.7) * np.convolve(
            np.tile(rng.uniform(0.5, 1.3, count), 3), np.ones(3) / 3, 'same')[count:2 * count]
        centre = rng.uniform(0.15, 0.85, 2)
        points = centre + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        cv2.fillPoly(mask, [np.rint(points * (width, height)).astype(np.int32)], 255)
        if rng.random() < 0.2:
            hole = centre + 0.3 * (points - centre)
            cv2.fillPoly(mask, [np.rint(hole * (width, height)).astype(np.int32)], 0)
    if not mask.any():
        mask[height // 2, width // 2] = 255
    return mask


def encode_png(mask: np.ndarray, bits: int) -> bytes:
    image = Image.fromarray(mask)
    file = io.BytesIO()
    (image.convert('1') if bits == 1 else image).save(file, 'PNG')
    return file.getvalue()


def make_archives(folder: Path, bits: int, arguments: argparse.Namespace
                  ) -> tuple[list[str], np.ndarray]:
    """Zips 0..f of masks; returns their names in order and the image sizes (M, 2)."""
    rng = np.random.default_rng(arguments.seed + bits)
    sizes = np.tile([arguments.width, arguments.height], (arguments.masks, 1))
    if arguments.sizes:
        known = np.loadtxt(arguments.sizes, delimiter=',', skiprows=1, usecols=(1, 2), dtype=int)
        known = known[known.prod(axis=1) <= 1024 * 1024]
        sizes = known[rng.integers(0, len(known), arguments.masks)]
    names = sorted(f'{rng.integers(1 << 62):016x}_m0x_{n:08x}.png' for n in range(arguments.masks))
    archives = {c: zipfile.ZipFile(folder / f'train-masks-{c}.zip', 'w') for c in HEX}
    for name, (width, height) in tqdm(zip(names, sizes.tolist(), strict=True), total=len(names),
                                      desc=f'drawing {bits}-bit masks', mininterval=5):
        scale = 0.8 if rng.random() < arguments.scaled else 1
        mask = draw_mask(rng, int(width * scale), int(height * scale))
        archives[name[0]].writestr(name, encode_png(mask, bits))
    for archive in archives.values():
        archive.close()
    return names, sizes


def measure(function: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds of this process, and seconds on the clock."""
    cpu, clock = time.process_time(), time.perf_counter()
    function()
    return time.process_time() - cpu, time.perf_counter() - clock


def split_files(folder: Path) -> SplitFiles:
    archives = tuple(folder / f'train-masks-{c}.zip' for c in HEX)
    return SplitFiles(folder, 'train', FULL, None, None, None, None, (folder,), archives, ())


def places_of(files: SplitFiles, names: list[str]) -> MaskPlaces:
    return find_masks(files, pa.chunked_array([pa.array(names, pa.large_utf8())]), ProblemLog())


def read_all(folder: Path, names: list[str]) -> Iterator[bytes]:
    """Every mask file's bytes, archive by archive."""
    files = split_files(folder)
    places = places_of(files, names)
    with closing(MaskReader(files)) as reader:
        for source, entry, name in zip(places.source.tolist(), places.entry.tolist(), names,
                                       strict=True):
            yield reader.read(source, entry, name)


def decode_by_cv2(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def decoders() -> dict[str, Callable[[bytes], object]]:
    found = {
        'cv2': decode_by_cv2,
        'Pillow': lambda data: Image.open(io.BytesIO(data)).load(),
    }
    try:
        import imagecodecs
        found['imagecodecs'] = imagecodecs.png_decode
    except ImportError:
        pass
    return found


def for_each(function: Callable[[bytes], object], pngs: list[bytes]) -> None:
    for data in pngs:
        function(data)


def usual_way(folder: Path, names: list[str], sizes: np.ndarray, out: Path) -> None:
    """What scripts for this data set do, mask by mask, in memory until one json.dump."""
    annotations = []
    for n, data in enumerate(read_all(folder, names)):
        width, height = sizes[n].tolist()
        mask = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        if mask.shape != (height, width):
            mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
        binary = (mask > 0).astype(np.uint8)
        rle = coco_mask.encode(np.asfortranarray(binary))
        contours, _ = cv2.findContours(binary, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        annotations.append({
            'id': n + 1, 'image_id': n + 1, 'category_id': 1, 'iscrowd': 0,
            'area': int(coco_mask.area(rle)), 'bbox': coco_mask.toBbox(rle).tolist(),
            'segmentation': [c.reshape(-1).tolist() for c in contours if len(c) > 2],
            'rle': {'size': rle['size'], 'counts': rle['counts'].decode()}})
    with open(out, 'w', encoding='utf-8') as file:
        json.dump({'annotations': annotations}, file)


def ours(folder: Path, names: list[str], sizes: np.ndarray, workers: int = 1) -> Path:
    """As tools/prepare_data.py: find the files, read them in shards, leave a file of each."""
    out = Path(tempfile.mkdtemp(dir=folder))
    files = split_files(folder)
    places = places_of(files, names)
    starts = range(0, len(names), MASKS_PER_SHARD)
    shards = (Shard(out / f'{start}.npz', (), names[start:start + MASKS_PER_SHARD],
                    sizes[start:start + MASKS_PER_SHARD].astype(np.int32),
                    np.arange(len(names[start:start + MASKS_PER_SHARD])),
                    names[start:start + MASKS_PER_SHARD],
                    places.take(np.arange(start, min(start + MASKS_PER_SHARD, len(names)))))
              for start in starts)
    with closing(MaskReader(files)) as reader:
        for _ in run_in_order(process_shard, shards, workers, len(starts), shared=reader):
            pass
    return out


def check(folder: Path, names: list[str], sizes: np.ndarray, out: Path) -> None:
    """Our first masks are pycocotools' encoding of what Pillow decodes, scaled pixel by pixel."""
    result = ShardResult.load(out / '0.npz')
    ends = np.cumsum(result.lengths)
    data = result.data.tobytes()
    for n, png in zip(range(min(50, len(names))), read_all(folder, names), strict=False):
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert('L')) > 0
        columns, rows = ((2 * np.arange(new) + 1) * old // (2 * new)  # nearest by pixel centres
                         for new, old in zip(sizes[n], pixels.shape[::-1], strict=True))
        scaled = pixels[np.ix_(rows, columns)]
        expected = coco_mask.encode(np.asfortranarray(scaled.astype(np.uint8)))['counts']
        assert data[ends[n] - result.lengths[n]:ends[n]] == expected, names[n]


def run_kind(bits: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Milliseconds a mask of every contender for one kind of PNG."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names, sizes = make_archives(folder, bits, arguments)
        check(folder, names, sizes, ours(folder, names, sizes))
        pngs = list(read_all(folder, names))
        one, several = 'ours, 1 process, clock', f'ours, {arguments.workers} processes, clock'
        contenders: dict[str, Callable[[], object]] = {
            'read only': lambda: list(read_all(folder, names)),
            'packed bits, read_mask': lambda: for_each(read_mask, pngs),
            'packed bits, cv2 and numpy': lambda: for_each(
                lambda data: np.packbits(decode_by_cv2(data) != 0, axis=1), pngs),
            **{f'decode only, {decoder}': lambda decode=decode: for_each(decode, pngs)
               for decoder, decode in decoders().items()},
            'ours': lambda: ours(folder, names, sizes),
            'usual way': lambda: usual_way(folder, names, sizes, folder / 'usual.json'),
            one: lambda: ours(folder, names, sizes),
            several: lambda: ours(folder, names, sizes, arguments.workers),
        }
        figures = dict.fromkeys(contenders, float('inf'))
        for _ in range(arguments.rounds):
            for key, contender in contenders.items():
                cpu, clock = measure(contender)
                seconds = clock if key in (one, several) else cpu
                figures[key] = min(figures[key], 1000 * seconds / len(names))
        figures['floor'] = min(v for k, v in figures.items() if k.startswith('decode'))
        return figures


def main() -> None:
    arguments = parse_arguments()
    cv2.setNumThreads(1)
    print(f'{platform.processor() or platform.machine()}, {os.cpu_count()} cores, '
          f'cv2 {cv2.__version__}, Pillow {Image.__version__}, {arguments.masks} masks a kind, '
          + (f'sizes of {arguments.sizes.name}' if arguments.sizes
             else f'{arguments.width}x{arguments.height}'))
    results = {}
    for bits in (1, 8):
        figures = results[f'{bits}-bit'] = run_kind(bits, arguments)
        print(f'\n{bits}-bit PNGs, CPU milliseconds a mask')
        for key, value in figures.items():
            print(f'  {key:<34}{value:8.3f}')
        gain = figures['packed bits, cv2 and numpy'] / figures['packed bits, read_mask']
        print(f'  cv2 and numpy / read_mask         {gain:8.2f}')
        print(f'  ours / floor                      {figures["ours"] / figures["floor"]:8.2f}')
        print(f'  usual way / ours                  {figures["usual way"] / figures["ours"]:8.2f}')
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding='utf-8')


if __name__ == '__main__':
    main()
