"""Prepare a train split in small shards, each process held in the midst of its second one.

    python -m tests.data.prepare.held_run ROOT WORKERS LOG

Every mask read adds ``read PID`` to LOG; a process that has left a shard adds ``held PID`` with its
next mask and waits until LOG.go exists.
"""

import os
import sys
import time
from pathlib import Path

from projects.openimages.common.errors import run_command
from projects.openimages.data.mask_files.png import PackedMask, read_mask
from projects.openimages.data.prepare import shards
from tests.data.helpers import prepare


class CountedResult(shards.ShardResult):
    saved = 0

    def save(self, path: Path) -> None:
        super().save(path)
        CountedResult.saved += 1


def read_and_wait(data: bytes) -> PackedMask:
    note('read')
    if CountedResult.saved and not os.path.exists(f'{sys.argv[3]}.go'):
        note('held')
        while not os.path.exists(f'{sys.argv[3]}.go'):
            time.sleep(0.01)
    return read_mask(data)


def note(word: str) -> None:
    with open(sys.argv[3], 'a', encoding='ascii') as file:
        file.write(f'{word} {os.getpid()}\n')


def main() -> None:
    prepare(Path(sys.argv[1]), workers=int(sys.argv[2]))


if __name__ in ('__main__', '__mp_main__'):  # the run, or one of its workers
    shards.read_mask = read_and_wait
    shards.ShardResult = CountedResult
    shards.MASKS_PER_SHARD = 4
if __name__ == '__main__':
    run_command(main)
