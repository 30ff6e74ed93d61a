#!/usr/bin/env python3
"""A C++ compiler that precompiles the one header which all of MMCV's operator files begin with.

`tools/setup_environment.py` names this file as `CXX` while MMCV is compiled. An operator file of
MMCV is a few hundred lines below torch's headers, some 400,000; reading those takes most of the
time that a file takes. They are read once here: the first call makes the precompiled header,
with the very flags that it was called with (a compiler takes such a header for no others), the
calls beside it wait for it, and all of them then begin with it. Whatever goes wrong with the
header, the file is compiled without it.

The environment says where the header is kept (PRECOMPILED_HEADER_FOLDER) and which compiler does
the work (PRECOMPILED_HEADER_CXX).
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

HEADER = 'pytorch_cpp_helper.hpp'
# Without debugging information files and header are half the size and take two thirds of the time.
EXTRA_FLAGS = ['-g0']
# What names one file's outputs, with the argument that follows it.
OUTPUTS = {'-o', '-MF', '-MT', '-MQ'}


def main() -> None:
    compiler = os.environ.get('PRECOMPILED_HEADER_CXX', 'c++').split()
    arguments = sys.argv[1:]
    if '-c' in arguments and any(word.endswith('.cpp') for word in arguments):
        header = precompiled_header(compiler, flags_for_all(arguments))
        arguments += EXTRA_FLAGS
        if header is not None:
            arguments = ['-include', str(header), *arguments]
    os.execvp(compiler[0], [*compiler, *arguments])


def flags_for_all(arguments: list[str]) -> list[str]:
    """What is left of a compiler's arguments without the names of one file and its outputs."""
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        if word in OUTPUTS:
            next(words, None)
        elif word not in ('-c', '-MMD', '-MD') and not word.endswith('.cpp'):
            kept.append(word)
    return kept


def precompiled_header(compiler: list[str], flags: list[str]) -> Path | None:
    """The header to begin a file with, made by the first that asks; None where that failed."""
    folder = Path(os.environ['PRECOMPILED_HEADER_FOLDER'])
    header, made, failed = (folder / f'all.hpp{end}' for end in ('', '.gch', '.failed'))
    with open(folder / 'lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists() and not failed.exists():
            header.write_text(f'#include <{HEADER}>\n')
            part = folder / 'part.gch'
            result = subprocess.run([*compiler, *flags, *EXTRA_FLAGS, '-x', 'c++-header', header,
                                     '-o', part], capture_output=True, text=True, check=False)
            if result.returncode:
                failed.write_text(result.stderr)
            else:
                part.rename(made)
    return header if made.exists() else None


if __name__ == '__main__':
    main()
