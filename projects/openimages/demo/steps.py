"""Long work in named steps, each done once for what it was made from.

A step is a command, the files it writes, and what it depends on: its own command line, the code
and data named in ``sources``, and the steps before it. The digest of all that is kept in a stamp
when the step has ended well. While digest and outputs are there, the step is not run again; when
anything of it changes, its outputs are removed and it is.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import atomic_write

LAST_LINES = 25


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: short, for file names.
        title: what a reader sees.
        command: program and arguments.
        outputs: files or folders it makes; they must be there when it has ended.
        sources: files, or folders of Python files, whose contents it depends on.
        after: names of the steps whose results it uses.
        resume_flags: added when a run of the very same step was interrupted.
        show: picks the lines of its output that are shown; the log has all of them.
    """

    name: str
    title: str
    command: Sequence[str]
    outputs: Sequence[Path]
    sources: Sequence[Path] = ()
    after: Sequence[str] = ()
    resume_flags: Sequence[str] = ()
    show: Callable[[str], str | None] = field(default=lambda line: line)


class StepRunner:
    """Runs steps in order and keeps their stamps and logs.

    Args:
        folder: gets ``stamps/`` and ``logs/``.
        working_directory: where the commands run.
        say: prints a line for the reader.
    """

    def __init__(self, folder: Path, working_directory: Path,
                 say: Callable[[str], None] = print) -> None:
        self.stamps, self.logs = folder / 'stamps', folder / 'logs'
        for made in (self.stamps, self.logs):
            made.mkdir(parents=True, exist_ok=True)
        self.working_directory = working_directory
        self.say = say
        self._digests: dict[str, str] = {}
        self.reused: list[str] = []

    def run(self, step: Step) -> bool:
        """Run a step unless it is done; whether it was run.

        Raises:
            UserError: the command failed or did not write what it should; with the end of its log.
        """
        digest = self._digest(step)
        self._digests[step.name] = digest
        done, begun = (self.stamps / f'{step.name}.{state}' for state in ('done', 'begun'))
        if _holds(done, digest) and all(path.exists() for path in step.outputs):
            seconds = json.loads(done.read_text())['seconds']
            self.say(f'nothing it depends on has changed: reused (it took {seconds:.0f} s)')
            self.reused.append(step.name)
            return False
        command = [*step.command]
        done.unlink(missing_ok=True)
        if _holds(begun, digest) and step.resume_flags:
            self.say('going on with an interrupted run')
            command += step.resume_flags
        else:
            _remove(step.outputs)
        _write_stamp(begun, digest)
        start = time.monotonic()
        self._execute(step, command)
        missing = [path for path in step.outputs if not path.exists()]
        if missing:
            raise UserError(f'step {step.name!r} ended without writing this', path=missing[0])
        seconds = time.monotonic() - start
        _write_stamp(done, digest, seconds=seconds)
        begun.unlink()
        self.say(f'done in {seconds:.0f} s')
        return True

    def _digest(self, step: Step) -> str:
        before = [self._digests[name] for name in step.after]
        digest = hashlib.sha256(json.dumps([before, list(step.command)]).encode())
        for path in _files(step.sources):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def _execute(self, step: Step, command: Sequence[str]) -> None:
        log = self.logs / f'{step.name}.log'
        self.say(f'$ {shlex.join(_short(command))}')
        with open(log, 'w', encoding='utf-8') as file, subprocess.Popen(
                command, cwd=self.working_directory, text=True, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, bufsize=1, errors='replace') as process:
            try:
                for line in process.stdout:
                    file.write(line)
                    shown = step.show(line.rstrip())
                    if shown is not None:
                        self.say(f'  {shown}')
            except BaseException:
                process.terminate()
                raise
        if process.returncode:
            lines = log.read_text(encoding='utf-8').splitlines()[-LAST_LINES:]
            self.say('\n'.join(f'  {line}' for line in lines))
            raise UserError(f'step {step.name!r} failed with exit code {process.returncode}; the '
                            'whole output is in the log', path=log)


def _holds(stamp: Path, digest: str) -> bool:
    try:
        return json.loads(stamp.read_text())['digest'] == digest
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return False


def _write_stamp(path: Path, digest: str, **more: float) -> None:
    with atomic_write(path) as file:
        json.dump({'digest': digest, **more}, file)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _files(sources: Iterable[Path]) -> list[Path]:
    """The sources, folders replaced by the Python files below them, in a fixed order."""
    return [file for path in sources
            for file in (sorted(path.rglob('*.py')) if path.is_dir() else [path])]


def _short(command: Sequence[str]) -> list[str]:
    return [Path(command[0]).name, *command[1:]]


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
