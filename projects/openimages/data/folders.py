"""Names of files in folders of a million files, and images in one of several folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from projects.openimages.common.errors import UserError
from projects.openimages.data.official.releases import SHARDS


def file_names(folder: Path, suffix: str) -> list[str]:
    """The names in a folder that end in ``suffix``, in no order.

    Raises:
        UserError: one of them is not UTF-8, so that no output could hold it.
    """
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.endswith(suffix)]
    for name in names:
        check_name(name, folder)
    return names


def check_name(name: str, folder: Path | None = None) -> None:
    """Raise a UserError if a file's name is not UTF-8; ``folder`` is where it is."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f'file name {os.fsencode(name)!r} is not UTF-8', path=folder) from None


def has_files(folder: Path, suffix: str) -> bool:
    """Whether a folder is there and holds a file whose name ends in ``suffix``."""
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(entry.name.endswith(suffix) for entry in entries)


def shards_of(folder: Path) -> list[Path]:
    """The folders ``<folder>_0`` to ``<folder>_f`` that are there: unpacked image archives."""
    shards = (folder.with_name(f'{folder.name}_{shard}') for shard in SHARDS)
    return [shard for shard in shards if shard.is_dir()]


def image_path(folders: Sequence[Path], image_id: str) -> Path:
    """Where an image is, or would be in the first folder.

    Args:
        folders: one or more; with many, as the shards ``train_0`` to ``train_f`` of the image
            archives, the one of the id's first character is looked into first.
        image_id: its id.
    """
    name = f'{image_id}.jpg'
    if len(folders) > 1:
        shard = f'_{image_id[:1]}'
        for folder in sorted(folders, key=lambda folder: not folder.name.endswith(shard)):
            if (folder / name).exists():
                return folder / name
    return folders[0] / name
