"""Build the environment in .venv; what `make setup` runs.

Only the standard library is used: nothing is installed yet. Checks come first and say in one line
what is missing. A finished environment is recognised by a stamp of the requirement files, so a
second run takes a second. MMCV comes as source only; the wheel that its compilation leaves is kept
in the user's cache under all that it was made for: torch and its CUDA, GPU architectures, Python,
C library.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / '.venv'
PYTHON = VENV / 'bin' / 'python'
REQUIREMENTS = ROOT / 'requirements'
STAMP = VENV / 'complete.txt'
PIP_INSTALL = (PYTHON, '-m', 'pip', 'install', '-qq', '--disable-pip-version-check')
COMPILER = ROOT / 'tools' / 'precompiled_header_compiler.py'
PYTHONS = (3, 10), (3, 13)
CACHE = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'openimages-mmdet'
NEEDED_GB = 5
# Extra arguments for the one call that installs torch, such as the index of its CPU builds.
TORCH_PIP_ARGS = os.environ.get('TORCH_PIP_ARGS', '').split()


def main() -> None:
    if is_complete():
        return
    check_machine()
    with one_at_a_time():
        if not is_complete():
            make_environment()


def make_environment() -> None:
    started = time.monotonic()
    if not is_usable():
        say(f'Making .venv for Python {platform.python_version()}')
        run(sys.executable, '-m', 'venv', '--clear', VENV)
    say('Installing torch and the build tools')
    pip('-r', REQUIREMENTS / 'build.txt', *TORCH_PIP_ARGS)
    with installed_meanwhile(*requirement_arguments('runtime', 'tf_evaluator', 'tests')):
        wheel = mmcv_wheel()
    say('Installing MMEngine, MMCV, MMDetection and the official evaluator')
    pip('--no-deps', wheel, *without_mmcv(REQUIREMENTS / 'mm.txt'),
        '-r', REQUIREMENTS / 'tf_evaluator_nodeps.txt')
    run(PYTHON, '-c', 'import mmcv.ops, mmdet, pyarrow, pandas, pycocotools')
    STAMP.write_text(fingerprint())
    say(f'Environment ready in .venv after {time.monotonic() - started:.0f} s')


def is_complete() -> bool:
    return STAMP.exists() and STAMP.read_text() == fingerprint() and PYTHON.exists()


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Two set-ups of one clone, as by `make demo` beside `make test`: the second waits."""
    handle = os.open(REQUIREMENTS, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say('Another set-up is at work here; waiting for it')
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        os.close(handle)


def fingerprint() -> str:
    digest = hashlib.sha256(platform.python_version().encode())
    for path in sorted(REQUIREMENTS.glob('*.txt')):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest() + '\n'


def check_machine() -> None:
    """Everything that would fail late is asked for now, before anything is installed."""
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        stop(f'Python 3.10 to 3.13 is needed and {sys.executable} is {platform.python_version()}; '
             'name another: make setup PYTHON=/path/to/python3.11 (uv gets one without root: '
             'uv python install 3.11)')
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < NEEDED_GB:
        stop(f'{NEEDED_GB} GB of free disk are needed in {ROOT}, {free:.1f} GB are free')
    if not any(CACHE.glob('*/onedl_mmcv-*.whl')):
        check_compiler()


def check_compiler() -> None:
    compiler = os.environ.get('CXX', 'c++').split()[0]
    if not shutil.which(compiler):
        stop(f'a C++ compiler is needed to build MMCV and {compiler!r} is not there; '
             'on Debian or Ubuntu: apt-get install build-essential')
    header = Path(sysconfig.get_paths()['include']) / 'Python.h'
    if not header.exists():
        stop(f'the Python headers are needed to build MMCV and {header} is not there; '
             'on Debian or Ubuntu: apt-get install python3-dev')


def is_usable() -> bool:
    """Whether .venv is of this Python and was made to its end; otherwise it is made again."""
    if not PYTHON.exists():
        return False
    code = 'import pip, platform; print(platform.python_version())'
    result = subprocess.run([PYTHON, '-c', code], capture_output=True, text=True, check=False)
    return result.stdout.strip() == platform.python_version()


def mmcv_wheel() -> Path:
    """The path of MMCV's wheel for this torch and Python, compiled now if there is none yet."""
    folder = CACHE / wheel_key()
    requirement = next(line.split()[0] for line in lines(REQUIREMENTS / 'mm.txt') if 'mmcv' in line)
    pattern = requirement.replace('-', '_').replace('==', '-') + '-*.whl'
    found = sorted(folder.glob(pattern))
    if found:
        say(f'Using the compiled MMCV in {folder}')
        return found[0]
    check_compiler()
    say('Compiling MMCV\'s operators behind a precompiled header: about two minutes on two cores, '
        f'once on this machine; the wheel is then kept in {folder}')
    folder.mkdir(parents=True, exist_ok=True)
    build = VENV / 'mmcv-build'
    compile_wheel(requirement, build)
    made = next(build.glob(pattern))
    part = folder / (made.name + f'.{os.getpid()}.part')
    shutil.copyfile(made, part)
    part.rename(folder / made.name)
    shutil.rmtree(build)
    return folder / made.name


def wheel_key() -> str:
    """Names the builds that can share a compiled wheel.

    Such as ``torch2.13.0+cpu-cp311-x86_64-glibc2.36-cpu``. MMCV compiles its CUDA operators only
    where a GPU is seen, for that GPU, so a wheel made without one is not for a machine with one.
    """
    code = ('import torch; from torch.cuda import device_count, get_device_capability as of; '
            'found = sorted({"sm%d%d" % of(gpu) for gpu in range(device_count())}); '
            'print(torch.__version__, "-".join(found) or "cpu")')
    result = subprocess.run([PYTHON, '-c', code], check=True, capture_output=True, text=True)
    torch, device = result.stdout.split()
    asked = [os.environ[name] for name in ('FORCE_CUDA', 'TORCH_CUDA_ARCH_LIST')
             if os.environ.get(name)]
    parts = [f'torch{torch}', f'cp{sys.version_info[0]}{sys.version_info[1]}', platform.machine(),
             ''.join(platform.libc_ver()), device, *asked]
    return re.sub(r'[^\w.+-]+', '_', '-'.join(parts))


def compile_wheel(requirement: str, folder: Path) -> None:
    """pip wheel, its output in a log and ninja's [done/total] on the screen."""
    log = VENV / 'mmcv-build.log'
    jobs = os.environ.get('MAX_JOBS', str(len(os.sched_getaffinity(0))))
    command = [PYTHON, '-m', 'pip', 'wheel', '-v', '--no-deps', '--no-build-isolation',
               '--no-binary', ':all:', '-w', folder, requirement]
    header = folder / 'precompiled-header'
    header.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, 'MAX_JOBS': jobs, 'MMCV_WITH_OPS': '1', 'CXX': str(COMPILER),
                   'PRECOMPILED_HEADER_CXX': os.environ.get('CXX', 'c++'),
                   'PRECOMPILED_HEADER_FOLDER': str(header)}
    started = shown = time.monotonic()
    with open(log, 'w', encoding='utf-8') as file, subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors='replace', env=environment) as build:
        for line in build.stdout:
            file.write(line)
            step = re.search(r'\[(\d+)/(\d+)\]', line)
            if step and time.monotonic() - shown > 15:
                shown = time.monotonic()
                say(f'  compiled {step[1]} of {step[2]} files in {shown - started:.0f} s')
    if build.returncode:
        stop(f'compiling MMCV failed; the last lines of {log} say why')


def requirement_arguments(*names: str) -> list[str | Path]:
    return [part for name in names for part in ('-r', REQUIREMENTS / f'{name}.txt')]


def without_mmcv(path: Path) -> list[str]:
    return [line.split()[0] for line in lines(path) if 'mmcv' not in line]


def lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith('#')]


def pip(*arguments: str | Path) -> None:
    run(*PIP_INSTALL, *arguments)


@contextmanager
def installed_meanwhile(*arguments: str | Path) -> Iterator[None]:
    """pip in a process of its own beside the block: it loads and unpacks while a core compiles.

    What the block uses is installed already, by the same exact versions, so pip leaves it alone.
    """
    command = [*PIP_INSTALL, *arguments]
    process = subprocess.Popen([str(part) for part in command])
    try:
        yield
        code = process.wait()
    finally:
        process.kill()
    if code:
        failed(command, code)


def run(*command: str | Path) -> None:
    result = subprocess.run([str(part) for part in command], check=False)
    if result.returncode:
        failed(command, result.returncode)


def failed(command: Sequence[str | Path], code: int) -> NoReturn:
    shown = ' '.join(str(part) for part in command[:5])
    stop(f'{shown} … failed with exit code {code}; its own words are above')


def say(message: str) -> None:
    print(f'[setup] {message}', flush=True)


def stop(message: str) -> NoReturn:
    sys.exit(f'error: {message}')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('interrupted; run it again to go on')
    except OSError as error:
        stop(f'{error.filename or ROOT}: {error.strerror}')
