"""How fast the challenge metric is, beside the official evaluator and at full validation size.

    python benchmarks/metric_speed.py                      both parts
    python benchmarks/metric_speed.py --images 0           only side by side with the official one
    python benchmarks/metric_speed.py --official-images 0  only the full size
    python benchmarks/metric_speed.py --peers              only beside COCO evaluators (pip install
                                                           hotcoco faster-coco-eval)

Images are 1024 x 768 with 300 classes and 100 detections each, all of classes that are verified in
their image (the worst case: every mask has to be read). Both evaluators read the same CSVs, each in
a process of its own; the time for one image is subtracted, so start-up does not count. The CSVs
are generated before (in --cache) and not timed.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import psutil
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.metric_peers import PEERS, is_installed, write_coco_files  # noqa: E402
from projects.openimages.common.progress import progress  # noqa: E402
from projects.openimages.masks import encode_text, rle_from_mask  # noqa: E402

WIDTH, HEIGHT = 1024, 768
NUM_CLASSES = 300
DETECTIONS = 100
SHAPES, VARIANTS = 150, 12  # distinct masks: objects, and how differently they are detected


@dataclass(frozen=True)
class Mask:
    """A mask's text and its tight box, ``XMin, XMax, YMin, YMax`` in 0..1."""

    text: str
    box: tuple[float, ...]


def blob(rng: np.random.Generator) -> np.ndarray:
    """An object: radius by angle, and centre; sizes as in Open Images, many small, some large."""
    size = np.exp(rng.uniform(np.log(20), np.log(300)))
    waves = rng.normal(0, 0.12, (2, 6)) / np.arange(1, 7)
    centre = rng.uniform((100, 100), (WIDTH - 100, HEIGHT - 100))
    return np.concatenate(([size], centre, waves.ravel()))


def draw(shape: np.ndarray) -> Mask:
    """A blob as a mask of the whole image."""
    size, x0, y0 = shape[:3]
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    turns = np.outer(np.arange(1, 7), angles)
    radius = size * (1 + shape[3:9] @ np.cos(turns) + shape[9:] @ np.sin(turns))
    image = Image.new('1', (WIDTH, HEIGHT))
    ImageDraw.Draw(image).polygon(list(zip((x0 + radius * np.cos(angles)).tolist(),
                                           (y0 + radius * np.sin(angles)).tolist(),
                                           strict=True)), fill=1)
    pixels = np.array(image)
    ys, xs = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    box = (xs[0] / WIDTH, (xs[-1] + 1) / WIDTH, ys[0] / HEIGHT, (ys[-1] + 1) / HEIGHT)
    return Mask(encode_text(rle_from_mask(pixels)['counts']), tuple(float(v) for v in box))


@cache
def make_masks(seed: int) -> list[list[Mask]]:
    """For each object its mask and variants of it, moved, scaled and deformed."""
    rng = np.random.default_rng(seed)
    masks = []
    for _ in progress(range(SHAPES), desc='drawing masks', unit='object'):
        shape = blob(rng)
        variants = [draw(shape)]
        while len(variants) < VARIANTS:
            noise = rng.normal(0, 1, len(shape)) * ([0.15, 0.2, 0.2] + [0.02] * 12)
            noise[:3] *= shape[0]
            variants.append(draw(shape + noise))
        masks.append(variants)
    return masks


def write_files(folder: Path, num_images: int, seed: int = 0) -> None:
    """The evaluator's input files."""
    rng = np.random.default_rng((seed, num_images))
    masks = make_masks(seed)
    folder.mkdir(parents=True, exist_ok=True)
    names = [f'/m/{number:03d}' for number in range(NUM_CLASSES)]
    (folder / 'label_map.pbtxt').write_text(''.join(
        f'item {{ name: "{name}" id: {number} }}\n' for number, name in enumerate(names, 1)))
    heads = {'boxes': 'ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf',
             'labels': 'ImageID,LabelName,Confidence',
             'segmentations': 'ImageID,LabelName,ImageWidth,ImageHeight,XMin,XMax,YMin,YMax,'
                              'IsGroupOf,Mask',
             'predictions': 'ImageID,ImageWidth,ImageHeight,LabelName,Score,Mask'}
    files = {name: (folder / f'{name}.csv').open('w') for name in heads}
    for name, head in heads.items():
        files[name].write(head + '\n')
    for number in progress(range(num_images), desc='writing CSVs', unit='img'):
        for name, row in image_rows(f'{number:016x}', rng, masks, names):
            files[name].write(row + '\n')
    for file in files.values():
        file.close()
    (folder / 'done').touch()


def image_rows(image_id: str, rng: np.random.Generator, masks: list[list[Mask]],
               names: list[str]) -> Iterator[tuple[str, str]]:
    """Rows of an image: 8 instances (5 with mask, 2 boxes, 1 group-of box), 10 verified classes."""
    classes = rng.choice(NUM_CLASSES, 10, replace=False).tolist()
    for class_id in classes:
        yield 'labels', f'{image_id},{names[class_id]},{int(class_id in classes[:5])}'
    objects = rng.choice(SHAPES, 8, replace=False).tolist()
    labels = rng.choice(classes[:5], 8).tolist()
    for n, (shape, class_id) in enumerate(zip(objects, labels, strict=True)):
        mask = masks[shape][0]
        box = f'{",".join(map(repr, mask.box))},{int(n == 7)}'
        yield 'boxes', f'{image_id},{names[class_id]},{box}'
        if n < 5:
            yield 'segmentations', (f'{image_id},{names[class_id]},{WIDTH},{HEIGHT},{box},'
                                    f'{mask.text}')
    for score in rng.random(DETECTIONS, np.float32):
        n = int(rng.integers(16))  # half of the detections are about one of the objects
        shape = objects[n] if n < 8 else int(rng.integers(SHAPES))
        class_id = labels[n] if n < 8 else classes[int(rng.integers(10))]
        mask = masks[shape][int(rng.integers(1, VARIANTS))]
        yield 'predictions', f'{image_id},{WIDTH},{HEIGHT},{names[class_id]},{score},{mask.text}'


@dataclass(frozen=True)
class Run:
    """Wall time, CPU time of the process and its children, and their peak memory (shared pages
    counted once)."""

    seconds: float
    cpu_seconds: float
    gigabytes: float


def evaluator(command: list[str], folder: Path) -> list[str]:
    """The command that scores the files in a folder."""
    flags = [f'--input_annotations_boxes={folder}/boxes.csv',
             f'--input_annotations_labels={folder}/labels.csv',
             f'--input_annotations_segm={folder}/segmentations.csv',
             f'--input_class_labelmap={folder}/label_map.pbtxt',
             f'--input_predictions={folder}/predictions.csv',
             f'--output_metrics={folder}/{command[-1].replace("/", ".")}.metrics.csv']
    return [*command, *flags]


def run(command: list[str]) -> Run:
    """Run a Python command in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    process = psutil.Popen([sys.executable, *command], cwd=ROOT,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory(process))
        time.sleep(0.05)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f'{" ".join(command)} ended with {process.returncode}')
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Run(seconds, cpu, peak / 1e9)


def memory(process: psutil.Process) -> int:
    """Bytes of the process tree, shared pages counted once."""
    total = 0
    try:
        for member in (process, *process.children(recursive=True)):
            total += member.memory_full_info().pss
    except psutil.Error:  # it has ended
        pass
    return total


def generated(cache: Path, num_images: int) -> Path:
    """The folder with the files for so many images, made if it is not there."""
    folder = cache.resolve() / f'metric_speed_{num_images}'
    if not (folder / 'done').exists():
        write_files(folder, num_images)
    return folder


OURS, OFFICIAL = ['tools/evaluate.py'], ['-m', 'evaluation.tf_challenge']


def side_by_side(cache: Path, official_images: int, our_images: int) -> None:
    """Seconds an image of both evaluators, start-up subtracted, and whether they agree."""
    one, few = generated(cache, 1), generated(cache, official_images)
    many = generated(cache, our_images)
    start, start_official = (run(evaluator(command, one)).seconds for command in (OURS, OFFICIAL))
    theirs = (run(evaluator(OFFICIAL, few)).seconds - start_official) / (official_images - 1)
    run(evaluator(OURS, few))
    ours = (run(evaluator(OURS, many)).seconds - start) / (our_images - 1)
    outputs = [(few / f'{command[-1].replace("/", ".")}.metrics.csv').read_bytes()
               for command in (OURS, OFFICIAL)]
    print(f'start-up with one image: {start:.2f} s, official {start_official:.2f} s')
    print(f'an image beyond start-up: {ours * 1000:.2f} ms ({our_images} images), official '
          f'{theirs * 1000:.0f} ms ({official_images} images): {theirs / ours:.0f} times as fast')
    print(f'metrics of the {official_images} images: '
          f'{"the same bytes" if outputs[0] == outputs[1] else "DIFFERENT"}')


def full_size(cache: Path, num_images: int) -> None:
    """Time and memory at the size of the challenge's validation set."""
    folder = generated(cache, num_images)
    size = (folder / 'predictions.csv').stat().st_size / 1e9
    result = run(evaluator(OURS, folder))
    print(f'{num_images} images, {num_images * DETECTIONS} masks, predictions of {size:.2f} GB: '
          f'{result.seconds:.1f} s, {result.gigabytes:.2f} GB')


def beside_peers(cache: Path, num_images: int, rounds: int) -> None:
    """Times of this project and of COCO evaluators for the same detections, taken in turn.

    The best of some rounds counts: other work on the machine only adds.
    """
    folder = generated(cache, num_images)
    if not (folder / 'results.json').exists():
        write_coco_files(folder)
    commands = {'ours, Open Images rules, CSV': evaluator(OURS, folder)}
    for peer in PEERS:
        if is_installed(peer):
            commands[f'{peer}, COCO rules, JSON'] = ['benchmarks/metric_peers.py', peer,
                                                     str(folder)]
        else:
            print(f'{peer} is not installed: left out (pip install {peer})')
    runs = [{name: run(command) for name, command in commands.items()} for _ in range(rounds)]
    print(f'{num_images} images, {num_images * DETECTIONS} masks, start-up included, '
          f'best of {rounds}:')
    seconds, cpu, gigabytes = ({name: min(getattr(one[name], value) for one in runs)
                                for name in commands}
                               for value in ('seconds', 'cpu_seconds', 'gigabytes'))
    ours = next(iter(commands))
    for name in commands:
        print(f'{name:34s} {seconds[name]:6.2f} s ({seconds[name] / seconds[ours]:.2f} of ours), '
              f'{cpu[name]:6.2f} s of CPU ({cpu[name] / cpu[ours]:.2f}), '
              f'{gigabytes[name]:.2f} GB')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=13_500, help='full size; 0 leaves it out')
    parser.add_argument('--official-images', type=int, default=12,
                        help='images for the official evaluator; 0 leaves it out')
    parser.add_argument('--our-images', type=int, default=4000,
                        help='images for this project beside it')
    parser.add_argument('--peers', action='store_true',
                        help='only: beside COCO evaluators, on --peer-images images')
    parser.add_argument('--peer-images', type=int, default=3000)
    parser.add_argument('--rounds', type=int, default=3, help='of --peers')
    parser.add_argument('--cache', type=Path, default=Path('work_dirs/benchmarks'),
                        help='folder of the generated CSVs (about 1.5 GB at full size)')
    arguments = parser.parse_args()
    if arguments.peers:
        beside_peers(arguments.cache, arguments.peer_images, arguments.rounds)
        return
    if arguments.official_images:
        side_by_side(arguments.cache, arguments.official_images, arguments.our_images)
    if arguments.images:
        full_size(arguments.cache, arguments.images)


if __name__ == '__main__':
    main()
