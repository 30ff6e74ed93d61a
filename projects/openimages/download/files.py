"""What the user ordered, and each of its files: its address, and its place under the data root."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from projects.openimages.common.errors import UserError
from projects.openimages.download.client import Job, look_up
from projects.openimages.download.sources import DEFAULT_CONNECTIONS, Addresses, Release
from projects.openimages.download.tables import check_official, full_path


@dataclass(frozen=True)
class Order:
    """What to download.

    Attributes:
        root: the data root.
        release: of which release.
        splits: names of its splits.
        classes: MIDs or names; only images with a mask of these or of classes below them.
        max_images: at most so many images a split.
        image_list: only images of this list.
        base_url: a mirror, see :class:`Addresses`.
        connections: files at a time.

    Raises:
        UserError: what does not fit the release, or together.
    """

    root: Path
    release: Release
    splits: tuple[str, ...]
    classes: tuple[str, ...] = ()
    max_images: int | None = None
    image_list: Path | None = None
    base_url: str | None = None
    connections: int = DEFAULT_CONNECTIONS

    def __post_init__(self) -> None:
        for split in self.splits:
            if split not in self.release.splits:
                raise UserError(f'--split {split}: the release {self.release.name} has '
                                f'{", ".join(self.release.splits)}')
            has_tables = bool(self.release.splits[split].tables)
            if not has_tables and self.image_list is None:
                raise UserError(f'--split {split}: which images these are says only Kaggle\'s '
                                'sample submission: --image-list sample_submission.csv')
            if not has_tables and self.classes:
                raise UserError(f'--split {split}: nothing is published of its classes, so '
                                '--classes cannot choose')
        for flag, number in (('max-images', self.max_images), ('connections', self.connections)):
            if number is not None and number < 1:
                raise UserError(f'--{flag} {number}, expected at least 1')

    @property
    def is_whole(self) -> bool:
        """All images of the CSVs are wanted."""
        return (not self.release.masked_only and not self.classes and self.max_images is None
                and self.image_list is None)


class OrderedFiles:
    """The files of an order, as jobs without what the server says of them.

    A CSV's job is of the official file, which is kept whole (:mod:`.tables`).
    """

    def __init__(self, order: Order) -> None:
        self._order, self._addresses = order, Addresses(order.base_url)

    def class_files(self) -> list[Job]:
        """The class list, the hierarchy and, where there is one, the list of those with masks."""
        return [self._job(path, self._order.root) for path in self._order.release.class_files]

    def tables(self, split: str) -> list[Job]:
        """Boxes, labels and masks, in this order."""
        return [replace(job, target=full_path(job.target))
                for job in (self._job(path, self._order.root)
                            for path in self._order.release.splits[split].tables)]

    def archives(self, split: str, shards: Iterable[str]) -> list[Job]:
        """Mask zips by the first characters of their images."""
        path = self._order.release.splits[split].archives
        return [replace(self._job(path.format(shard=shard), self._order.root / 'masks'),
                        is_zip=True) for shard in shards]

    def images(self, split: str, image_ids: Iterable[str]) -> Iterator[Job]:
        """Images, one by one: a million jobs at once would take a gigabyte."""
        folder = self.images_folder(split)
        for image_id in image_ids:
            yield Job(self._addresses.image(split, image_id), folder / f'{image_id}.jpg')

    def images_folder(self, split: str) -> Path:
        """Where a split's images are put."""
        return self._order.root / 'images' / split

    def _job(self, path: str, folder: Path) -> Job:
        return Job(self._addresses.annotations(path), folder / path.rpartition('/')[2])


def place_of(table: Job) -> Path:
    """Where preparing looks for a CSV."""
    return table.target.parent.parent / table.target.name


def readable(table: Job) -> Path:
    """A CSV where it is: kept, or put under the data root by somebody else."""
    return table.target if table.target.exists() else place_of(table)


def looked_up(jobs: list[Job], connections: int) -> list[Job]:
    """The same jobs with what the server says of their files."""
    remotes = look_up([job.url for job in jobs], connections)
    return [replace(job, remote=remote) for job, remote in zip(jobs, remotes, strict=True)]


def still_to_fetch(jobs: list[Job]) -> list[Job]:
    """The jobs, looked up, whose files are not there; a UserError if another file is."""
    for job in jobs:
        if job.target.exists() and job.remote is not None:
            check_official(job.target, job.remote)
    return [job for job in jobs if not job.target.exists()]


def absent_images(folder: Path, image_ids: Iterable[str]) -> list[str]:
    """The ids whose image is not in a folder; an empty file is none."""
    try:
        with os.scandir(folder) as entries:
            present = {entry.name for entry in entries
                       if entry.name.endswith('.jpg') and entry.stat().st_size}
    except FileNotFoundError:
        present = set()
    return [image_id for image_id in image_ids if f'{image_id}.jpg' not in present]
