"""Part files: a submission on its way, safe against kills, written by several processes at once.

Each process appends the images it has finished to its own file in the folder ``FILE.parts``. The
first line of a part says what run it belongs to; every further line is one image:
``INDEX,ImageID,ImageWidth,ImageHeight,PredictionString``, the Kaggle row with the image's place in
the test list before it. Rows reach the system whole batches at a time, and a row that a kill cut
short has no line end, so what is left after a kill is complete rows and at most one torn tail.
One run at a time writes to a folder (:func:`begin_parts`).

:class:`FinishedImages` opens such a folder, cuts torn tails and knows where each image's row is: 12
bytes of memory an image, nothing else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import exclusive
from projects.openimages.submissions.formats import (
    KAGGLE,
    Header,
    ImageDetections,
    format_rows,
    parse_row,
)

PARTS_VERSION = 1


def parts_folder(out: str | os.PathLike) -> Path:
    """Where the parts of the submission ``out`` are kept."""
    out = Path(out)
    return out.with_name(out.name + '.parts')


def begin_parts(folder: Path, settings: dict[str, Any], *, resume: bool) -> ExitStack:
    """Make the folder, or check that an interrupted run in it was this run, and lock it.

    One process of a run does this, before the others open the folder.

    Args:
        folder: where the parts go.
        settings: what must be equal for rows of two runs to stand in one submission, in values of
            JSON. The number of threads is one of them: a convolution's last bits depend on it.
        resume: go on with what is there.

    Returns:
        The lock. Keep it until the submission is there and the parts are removed, then ``close()``
        it, or use it as a context. However the process ends, its lock ends with it.

    Raises:
        UserError: another run writes there now, or parts are there but were not asked for, or
            come from another run.
    """
    with ExitStack() as lock:
        lock.enter_context(exclusive(folder, 'writing this submission'))
        folder.mkdir(parents=True, exist_ok=True)
        for path in _part_files(folder):
            former = _read_settings(path)
            if former is None:  # killed before its first line was whole: nothing in it
                path.unlink()
                continue
            if not resume:
                raise UserError('holds the finished images of an interrupted run: continue it with '
                                '--resume-submission, or delete the folder', path=folder)
            for name in sorted({*former, *settings}):
                if former.get(name) != settings.get(name):
                    raise UserError(f'was begun with {name} = {former.get(name)}, now it is '
                                    f'{settings.get(name)}: give the same, or delete the folder',
                                    path=folder)
        return lock.pop_all()


class PartWriter:
    """Appends one process's finished images to its part file.

    Args:
        folder: made by :func:`begin_parts`.
        rank: this process's number among those that write.
        settings: as given to :func:`begin_parts`.
    """

    def __init__(self, folder: Path, rank: int, settings: dict[str, Any]) -> None:
        path = folder / f'part-{rank:04d}.csv'
        self._file = open(path, 'ab', buffering=0)  # noqa: SIM115  (closed by close())
        if self._file.tell() == 0:
            self._write(_settings_line(settings))

    def write(self, images: Iterable[tuple[int, ImageDetections]]) -> None:
        """Append images with their places in the test list, all of them or none."""
        rows = [f'{index},{next(format_rows(image, KAGGLE))}\n' for index, image in images]
        self._write(''.join(rows).encode())

    def _write(self, data: bytes) -> None:
        while data:  # a raw write may take only part, as on a disk that is almost full
            data = data[self._file.write(data):]

    def close(self) -> None:
        self._file.close()


class FinishedImages:
    """The finished images in a folder of parts.

    Args:
        folder: made by :func:`begin_parts`; torn last rows in it are cut off.
        num_images: the length of the test list.
    """

    def __init__(self, folder: Path, num_images: int) -> None:
        self._paths = _part_files(folder)
        self._part = np.full(num_images, -1, np.int32)
        self._offset = np.zeros(num_images, np.int64)
        for number, path in enumerate(self._paths):
            _cut_torn_tail(path)
            self._locate(number, path)

    @property
    def done(self) -> np.ndarray:
        """(I,) bool: which images of the test list are finished."""
        return self._part >= 0

    def images(self) -> Iterator[ImageDetections]:
        """The finished images, in the order of the test list."""
        files = [open(path, 'rb') for path in self._paths]  # noqa: SIM115
        try:
            for index in np.flatnonzero(self.done).tolist():
                file = files[self._part[index]]
                file.seek(self._offset[index])
                yield parse_row(file.readline().split(b',', 1)[1], Header(KAGGLE))
        finally:
            for file in files:
                file.close()

    def remove(self) -> None:
        """Delete the parts and, if nothing else is in it, their folder."""
        for path in self._paths:
            path.unlink()
        if self._paths and not any(self._paths[0].parent.iterdir()):
            self._paths[0].parent.rmdir()

    def _locate(self, number: int, path: Path) -> None:
        with open(path, 'rb') as file:
            offset = len(file.readline())
            for row, line in enumerate(file, start=2):
                text = line.split(b',', 1)[0]
                index = int(text) if text.isdigit() else -1
                if not 0 <= index < len(self._part):
                    raise UserError(f'image number {text[:20]!r}, expected 0 to '
                                    f'{len(self._part) - 1}: delete the folder and start again',
                                    path=path, row=row)
                if self._part[index] < 0:  # a sampler may hand out an image twice: the first counts
                    self._part[index] = number
                    self._offset[index] = offset
                offset += len(line)


def _part_files(folder: Path) -> list[Path]:
    return sorted(folder.glob('part-*.csv'))


def _settings_line(settings: dict[str, Any]) -> bytes:
    return json.dumps({'version': PARTS_VERSION, **settings}, sort_keys=True).encode() + b'\n'


def _read_settings(path: Path) -> dict[str, Any] | None:
    with open(path, 'rb') as file:
        line = file.readline()
    if not line.endswith(b'\n'):
        return None
    try:
        settings = json.loads(line)
    except ValueError:
        settings = None
    if not isinstance(settings, dict) or settings.pop('version', None) != PARTS_VERSION:
        raise UserError('not a part of a submission: delete the folder and start again',
                        path=path, row=1)
    return settings


def _cut_torn_tail(path: Path) -> None:
    """Drop what stands after the last line end."""
    with open(path, 'rb+') as file:
        end = file.seek(0, os.SEEK_END)
        keep = end
        while keep > 0:
            start = max(0, keep - (1 << 16))
            file.seek(start)
            found = file.read(keep - start).rfind(b'\n')
            if found >= 0:
                keep = start + found + 1
                break
            keep = start
        if keep < end:
            file.truncate(keep)
