"""Long work in named steps, each done once for what it is made from.

In: commands, the files they write, and what they depend on: the command line, the Python files
that it imports, and the steps before it. Out: those files, and ``.demo/`` in their folder, with a
log a step and a state file that says what each step was made from and which files it left.

While all that is as it was, a step is not run again. Otherwise it is, and every step after it; the
files that the state names are removed first. Nothing else ever is: anything that these steps did
not write, or that has been changed since, stops the run before a file is touched.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import atomic_write, exclusive

STATE_FOLDER = '.demo'
LAST_LINES = 25
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: short, for file names.
        title: what a reader sees.
        command: program and arguments.
        outputs: files or folders it makes; they must be there when it has ended.
        leftovers: what else it may leave when it is interrupted.
        sources: files whose contents it depends on.
        settings: text that it depends on as well.
        after: names of the steps whose results it uses.
        resume_flags: added when a run of the very same step was interrupted.
        show: picks the lines of its output that are shown; the log has all of them.
    """

    name: str
    title: str
    command: Sequence[str]
    outputs: Sequence[Path]
    leftovers: Sequence[Path] = ()
    sources: Sequence[Path] = ()
    settings: str = ''
    after: Sequence[str] = ()
    resume_flags: Sequence[str] = ()
    show: Callable[[str], str | None] = field(default=lambda line: line)


class StepRunner:
    """Runs steps in order.

    Args:
        folder: what the steps write is in it; new, empty, or of a former run.
        working_directory: where the commands run.
        say: prints a line for the reader.
    """

    def __init__(self, folder: Path, working_directory: Path,
                 say: Callable[[str], None] = print) -> None:
        self.folder = folder
        self.working_directory = working_directory
        self.say = say
        self._state_file = folder / STATE_FOLDER / 'state.json'
        # By step: 'digest' of what it is made from; 'files' it left, None while it runs; and
        # 'seconds' that it took, None until it has ended well.
        self._state: dict[str, dict[str, Any]] = {}

    def run(self, steps: Sequence[Step]) -> list[str]:
        """Run those steps that are not done; the names of the others.

        Raises:
            UserError: the folder or a file in it is not of these steps, another run works in it,
                or a command failed or did not write what it should.
        """
        found = os.listdir(self.folder) if self.folder.exists() else []
        if found and STATE_FOLDER not in found:
            raise UserError('holds files that this command did not make; choose a folder that is '
                            'empty or not there yet', path=self.folder)
        with exclusive(self._state_file, 'working in this folder'):
            return self._run_all(steps)

    def _run_all(self, steps: Sequence[Step]) -> list[str]:
        self._state = _read_state(self._state_file)
        digests = {step.name: _digest(step) for step in steps}
        again: dict[str, bool] = {}  # of the steps to run: whether to go on with what is there
        for step in steps:
            record = self._state.get(step.name, {})
            same = (record.get('digest') == digests[step.name]
                    and not any(name in again for name in step.after))
            done = record.get('seconds') is not None
            if not (same and done and record['files'].items() <= self._files(step).items()):
                again[step.name] = same and not done and bool(step.resume_flags)
        self._remove_outputs([step for step in steps if again.get(step.name) is False])
        for number, step in enumerate(steps, 1):
            self.say(f'\n== {number}/{len(steps)}  {step.title}')
            if step.name in again:
                self._run(step, digests[step.name], again[step.name])
            else:
                self.say('nothing it depends on has changed: reused (it took '
                         f'{self._state[step.name]["seconds"]:.0f} s)')
        return [step.name for step in steps if step.name not in again]

    def _remove_outputs(self, steps: Sequence[Step]) -> None:
        """Remove what former runs of the steps left, or nothing where other files are among it."""
        found: dict[str, str] = {}
        ours: dict[str, str] = {}
        for step in steps:
            files = self._files(step)
            found |= files
            if step.name in self._state:  # one that was killed while it ran began with nothing
                former = self._state[step.name]['files']
                ours |= files if former is None else former
        others = [name for name, mark in found.items() if ours.get(name) != mark]
        if others:
            raise UserError('is in the way: it was not written here, or has been changed since; '
                            'move it, or choose another folder', path=self.folder / others[0])
        for step in steps:
            for path in _places(step):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            self._state.pop(step.name, None)
        self._write_state()

    def _run(self, step: Step, digest: str, going_on: bool) -> None:
        if going_on:
            self.say('going on with an interrupted run')
        record = self._state[step.name] = {'digest': digest, 'files': None, 'seconds': None}
        self._write_state()
        start = time.monotonic()
        try:
            self._execute(step, [*step.command, *(step.resume_flags if going_on else ())])
            missing = [path for path in step.outputs if not path.exists()]
            if missing:
                raise UserError(f'step {step.name!r} ended without writing this', path=missing[0])
            record['seconds'] = time.monotonic() - start
        finally:
            record['files'] = self._files(step)
            self._write_state()
        self.say(f'done in {record["seconds"]:.0f} s')

    def _execute(self, step: Step, command: Sequence[str]) -> None:
        log = self.folder / STATE_FOLDER / f'{step.name}.log'
        shown = shlex.join([Path(command[0]).name, *command[1:]])
        self.say(f'$ {shown.replace(f"{self.working_directory}/", "")}')
        with open(log, 'w', encoding='utf-8') as file, subprocess.Popen(
                command, cwd=self.working_directory, text=True, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, bufsize=1, errors='replace',
                start_new_session=True, preexec_fn=_end_with_parent) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    file.write(line)
                    shown_line = step.show(line.rstrip())
                    if shown_line is not None:
                        self.say(f'  {shown_line}')
            except BaseException:
                process.send_signal(signal.SIGINT)  # in a session of its own it has had none yet
                process.wait()
                raise
        if process.returncode:
            lines = log.read_text(encoding='utf-8').splitlines()[-LAST_LINES:]
            self.say('\n'.join(f'  {line}' for line in lines))
            raise UserError(f'step {step.name!r} failed with exit code {process.returncode}; the '
                            'whole output is in the log', path=log)

    def _files(self, step: Step) -> dict[str, str]:
        """What lies where the step writes: size and time of change by name in the folder."""
        found = {}
        for place in _places(step):
            for path in [place, *place.rglob('*')]:
                status = path.lstat() if os.path.lexists(path) else None
                if status and not stat.S_ISDIR(status.st_mode):
                    name = path.relative_to(self.folder).as_posix()
                    found[name] = f'{status.st_size} {status.st_mtime_ns}'
        return found

    def _write_state(self) -> None:
        with atomic_write(self._state_file) as file:
            json.dump(self._state, file, indent=1)


def imported_files(root: Path, script: Path, without: Sequence[str] = ()) -> list[Path]:
    """The Python files below ``root`` that a script imports, directly or not, and itself.

    Args:
        root: where its packages are.
        script: the program.
        without: modules that are left out, and with them what only they import.
    """
    finder = ModuleFinder([str(root)], excludes=without)
    finder.run_script(str(script))
    files = (vars(module)['__file__'] for module in finder.modules.values())
    return sorted(Path(file) for file in files if file)


def _read_state(path: Path) -> dict[str, dict[str, Any]]:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise UserError('not the state of a former run; choose another folder', path=path) from None


def _digest(step: Step) -> str:
    sources = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in step.sources}
    depends_on = json.dumps([[*step.command], step.settings, sources])
    return hashlib.sha256(depends_on.encode()).hexdigest()


def _places(step: Step) -> tuple[Path, ...]:
    return (*step.outputs, *step.leftovers)


def _end_with_parent() -> None:
    """Called in the new process: the kernel interrupts it when the demo ends, however that ends.

    A killed demo would otherwise leave a training behind that writes beside the next demo's. It is
    the signal of Ctrl-C, on which programs end their own worker processes; it may be ignored here,
    as it is in a shell script's background, and must not be there.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


_LOGGED = re.compile(r'^\d\d/\d\d \d\d:\d\d:\d\d - mmengine - (\w+) - (.*)$')


class MMEngineLines:
    """Shows the lines of MMEngine's log that say how far it is and what came out.

    Left out: the config, the environment, one line a parameter, the table of hooks, and warnings
    about optional packages.
    """

    def __init__(self) -> None:
        self._in_table = False

    def __call__(self, line: str) -> str | None:
        """The line as shown; None to leave it out."""
        logged = _LOGGED.match(line)
        if logged:
            level, message = logged.groups()
            self._in_table = False
            wanted = (message.startswith(('Iter(', 'resumed', 'continue'))
                      or level == 'ERROR' or re.search(r'\d+ images, \d+ detections', message))
            return message if wanted else None
        if re.match(r'name\s+AP\b', line):
            self._in_table = True
        return line if (self._in_table and line) or line.startswith('error: ') else None
