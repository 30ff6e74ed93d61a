"""Running ``tools/download.py`` against a local server, and the commands after it."""

import contextlib
import io
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.download.server import Server
from tests.helpers import REPOSITORY, run_tool


def arguments(server: Server, root: Path, *more, release: str = 'challenge',
              split: tuple[str, ...] = ('validation',)) -> list[str]:
    """The command line."""
    return ['tools/download.py', '--release', release, '--split', *split, '--data-root', str(root),
            '--base-url', server.url, *map(str, more)]


def download(server: Server, root: Path, *more, **options) -> subprocess.CompletedProcess:
    """The command in this process, whose imports are done."""
    words, out, err = arguments(server, root, *more, **options), io.StringIO(), io.StringIO()
    with (pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out),
          contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end):
        patch.setattr(sys, 'argv', words)
        patch.setattr(sys, 'path', list(sys.path))
        runpy.run_path(str(REPOSITORY / words[0]), run_name='__main__')
    return subprocess.CompletedProcess(words, end.value.code, out.getvalue(), err.getvalue())


def downloaded(server: Server, root: Path, *more, **options) -> str:
    """What it says when all goes well."""
    result = download(server, root, *more, **options)
    assert result.returncode == 0, result.stderr
    return result.stdout


def prepared(root: Path, *splits: str) -> None:
    """Prepare splits; no problem must stop it."""
    result = run_tool('tools/prepare_data.py', '--data-root', root, '--split', *splits,
                      '--workers', '1')
    assert result.returncode == 0, result.stderr


def images_of(root: Path, split: str = 'validation') -> set[str]:
    """Ids of the images that are there."""
    return {path.stem for path in (root / 'images' / split).iterdir()}


def table(root: Path, name: str, split: str = 'validation') -> Path:
    """A CSV of the challenge."""
    return root / f'challenge-2019-{split}-segmentation-{name}.csv'
