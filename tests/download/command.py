"""Running ``tools/download.py`` against a local server, and the commands after it."""

import subprocess
from pathlib import Path

from tests.download.server import Server
from tests.helpers import run_here, run_tool


def arguments(server: Server, root: Path, *more, release: str = 'challenge',
              split: tuple[str, ...] = ('validation',)) -> list[str]:
    """The command line."""
    return ['tools/download.py', '--release', release, '--split', *split, '--data-root', str(root),
            '--base-url', server.url, *map(str, more)]


def download(server: Server, root: Path, *more, **options) -> subprocess.CompletedProcess:
    """The command in this process, whose imports are done."""
    return run_here(*arguments(server, root, *more, **options))


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
