"""Two steps in a process of its own: ``python -m tests.demo.steps_run FOLDER [RESUME_FLAG]``.

The second writes its process id and then, as long as it is not resumed and there is a file
``slowly`` in the folder, waits for something to end it. Asked to, it takes its time over that and
writes one more file.
"""

import sys
from pathlib import Path

from projects.openimages.common.errors import run_command
from projects.openimages.demo.steps import Step, StepRunner

QUICK = 'import sys, pathlib; pathlib.Path(sys.argv[1]).write_text("made")'
SLOW = '''
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def end(*_):
    time.sleep(0.3)
    (folder / 'late').touch()
    sys.exit(1)
if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as Python itself does
    signal.signal(signal.SIGINT, end)
folder.mkdir(exist_ok=True)
(folder / 'half').write_text('half')
(folder / 'pid.part').write_text(str(os.getpid()))
(folder / 'pid.part').rename(folder / 'pid')
if len(sys.argv) == 2 and folder.with_name('slowly').exists():
    time.sleep(100)
'''


def main() -> None:
    folder, *flags = sys.argv[1:]
    steps = [Step(name, name, [sys.executable, '-c', code, f'{folder}/{name}'],
                  [Path(folder, name)], after=after, resume_flags=flags)
             for name, code, after in (('quick', QUICK, []), ('slow', SLOW, ['quick']))]
    print('reused', StepRunner(Path(folder), Path(folder)).run(steps))


if __name__ == '__main__':
    run_command(main)
