"""Names of files in folders of a million files."""

from __future__ import annotations

import os
from pathlib import Path

from projects.openimages.common.errors import UserError


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
