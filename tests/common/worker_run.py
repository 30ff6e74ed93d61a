"""A command that works in processes, to be interrupted or killed: ``FOLDER TASKS``.

Each task leaves a file ``start-N`` holding the pid that works on it and, a second later, ``end-N``.
"""

import os
import sys
import time
from pathlib import Path

from projects.openimages.common.errors import run_command
from projects.openimages.common.parallel import run_in_order


def work(folder: Path, task: int) -> int:
    (folder / f'start-{task}').write_text(str(os.getpid()))
    time.sleep(1)
    (folder / f'end-{task}').touch()
    return task


def main() -> None:
    folder, number = Path(sys.argv[1]), int(sys.argv[2])
    for _ in run_in_order(work, range(number), 2, number, shared=folder):
        pass


if __name__ == '__main__':
    run_command(main)
