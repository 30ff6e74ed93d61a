"""What a prepared split was made from, so that a second run can tell that nothing has changed.

Files are known by size and time of change, folders by those of all their files. The code is known
by its versions only: who changes what the outputs look like raises one of them, or old outputs are
taken for new ones.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from projects.openimages.common.files import atomic_write
from projects.openimages.data.index import INDEX_VERSION
from projects.openimages.data.layout import SplitFiles
from projects.openimages.data.official.joining import JOIN_TOLERANCE

STATE_FILE = '.inputs.json'
PREPARE_VERSION = 3
"""Raised when the same inputs would give other outputs than before. 2: truncated images are
refused, and every EXIF orientation but the first is noted. 3: ids, filled boxes and verified labels
in ``coco.json``, published counts in the report."""


def describe_inputs(files: SplitFiles, others: list[Path], options: dict) -> dict:
    """Everything the outputs depend on, as JSON.

    Args:
        files: the split's own files.
        others: class list, hierarchy, sizes CSV.
        options: those of the command line that change outputs.
    """
    paths = [*files.tables, *files.archives, *others]
    folders = [*files.mask_folders, *files.image_folders]
    return {
        'versions': [INDEX_VERSION, PREPARE_VERSION], 'join_tolerance': JOIN_TOLERANCE,
        'options': options,
        'files': {_name(path, files.root): _describe_file(path) for path in paths},
        'folders': {_name(folder, files.root): _describe_folder(folder) for folder in folders},
    }


def _name(path: Path, root: Path) -> str:
    path, root = path.resolve(), root.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _describe_file(path: Path | os.DirEntry) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _describe_folder(folder: Path) -> str | None:
    if not folder.is_dir():
        return None
    total, count = 0, 0
    with os.scandir(folder) as entries:
        for entry in entries:
            line = f'{entry.name}\0{_describe_entry(entry)}'
            digest = hashlib.blake2b(line.encode('utf-8', 'surrogateescape'), digest_size=16)
            # A sum does not depend on the order in which the file system lists its files.
            total = (total + int.from_bytes(digest.digest(), 'little')) % (1 << 128)
            count += 1
    return f'{count} files, {total:032x}'


def _describe_entry(entry: os.DirEntry) -> list[int] | None:
    try:
        return _describe_file(entry)
    except OSError:  # a link to nowhere: what needs the file says so
        return None


def inputs_key(state: dict) -> str:
    """A short name for a state of the inputs."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


def is_prepared(folder: Path, state: dict, names: list[str]) -> bool:
    """Whether a finished run left these outputs, made from exactly these inputs."""
    try:
        recorded = json.loads((folder / STATE_FILE).read_text(encoding='utf-8'))
        sizes = {name: (folder / name).stat().st_size for name in names}
    except (OSError, ValueError):
        return False
    return recorded == {'inputs': json.loads(json.dumps(state)), 'outputs': sizes}


def record_prepared(folder: Path, state: dict, names: list[str]) -> None:
    """Say that a run is finished; the last file written."""
    sizes = {name: (folder / name).stat().st_size for name in names}
    with atomic_write(folder / STATE_FILE) as file:
        json.dump({'inputs': state, 'outputs': sizes}, file, indent=1)
