"""How long the report on a dump of a whole split takes, and how much memory.

    python benchmarks/report_speed.py                      quick: 500 images
    python benchmarks/report_speed.py --images 12965       the challenge's validation split
    python benchmarks/report_speed.py --images 12965 --compare

Makes an index of 1024 x 768 images with 8 instances each and a dump with so many detections an
image, half of them about an object, expanded over the hierarchy; then times tools/report.py in a
process of its own, start-up included and without pictures, counts the CPU time of it and its
workers (which other work on the machine changes less), and reads every second how much memory they
have together. The files are made before, in --cache, and not timed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.metric_speed import Mask, make_masks
from benchmarks.submission_speed import (
    detections,
    expanded,
    label_space,
    write,
    write_ground_truth,
)
from projects.openimages.common.parallel import worker_count
from projects.openimages.submissions.formats import ImageDetections

ROOT = Path(__file__).resolve().parents[1]


def dump(images: int, count: int, masks: list[list[Mask]], shift: int) -> Iterator[ImageDetections]:
    """An expanded dump; another shift takes other masks for the same objects."""
    space = label_space()
    turned = masks[shift:] + masks[:shift]
    return (expanded(detections(n, count, turned, space)[1], space) for n in range(images))


def timed(*command: str | Path) -> tuple[float, float, float]:
    """Seconds of a tool, seconds of CPU time, and the most GB that its processes had together."""
    process = psutil.Popen([sys.executable, *map(str, command)], cwd=ROOT,
                           stdout=subprocess.DEVNULL)
    most, ended = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(1):
            total = 0
            for one in (process, *children(process)):
                try:
                    total += one.memory_full_info().pss  # shared pages once
                except psutil.Error:
                    continue
            most = max(most, total)

    watcher = threading.Thread(target=watch)
    start = time.perf_counter()
    watcher.start()
    code = process.wait()
    seconds = time.perf_counter() - start
    ended.set()
    watcher.join()
    if code:
        sys.exit(f'exit code {code}')
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # it is the first child
    return seconds, used.ru_utime + used.ru_stime, most / 1e9


def children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=500)
    parser.add_argument('--detections', type=int, default=100, help='an image, before expansion')
    parser.add_argument('--compare', action='store_true', help='with a second dump')
    parser.add_argument('--workers', type=int, help='default: one a CPU core')
    parser.add_argument('--cache', type=Path,
                        default=ROOT / 'work_dirs' / 'benchmarks' / 'report_speed')
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    workers = worker_count(args.workers)
    masks = make_masks(np.random.default_rng(0))
    write_ground_truth(args.cache / 'index.arrow', args.images, args.detections, masks,
                       label_space())
    dumps = [write(args.cache / f'{shift}.csv', dump(args.images, args.detections, masks, shift))
             for shift in range(1 + args.compare)]
    out = args.cache / 'report'
    seconds, cpu, memory = timed(
        'tools/report.py', dumps[0], '--prepared', args.cache, '--out', out, '--workers',
        str(workers), '--pictures', '0', *(['--compare', dumps[1]] if args.compare else []))
    told = json.loads((out / 'report.json').read_text(encoding='utf-8'))['headline']
    page = (out / 'index.html').stat().st_size
    print(f'{args.images} images, {told["detections"]} detections with the expanded ones'
          f'{", compared with as many" if args.compare else ""}, {workers} processes: '
          f'{seconds:.1f} s ({cpu:.0f} s of CPU), {memory:.2f} GB; page of {page / 1e6:.2f} MB; '
          f'mAP {told["mAP"]:.4f}')


if __name__ == '__main__':
    main()
