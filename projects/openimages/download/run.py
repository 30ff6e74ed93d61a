"""Downloading: choose, fetch, put in place.

In order: class files and CSVs, the choice of images, the mask archives that those need, the images,
and at the end the CSVs where preparing looks for them, so that what it finds is whole. What is
there is not fetched again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import exclusive
from projects.openimages.common.progress import progress
from projects.openimages.data.official.release_classes import read_release_classes
from projects.openimages.data.official.releases import SHARDS
from projects.openimages.download.choice import Choice, ImageList, choose_images, find_classes
from projects.openimages.download.client import FetchError, Job, fetch_all
from projects.openimages.download.files import (
    Order,
    OrderedFiles,
    absent_images,
    looked_up,
    place_of,
    readable,
    still_to_fetch,
)
from projects.openimages.download.tables import adopt, place


@dataclass(frozen=True)
class Amount:
    """How much of a kind is to come.

    Attributes:
        kind: for people.
        files: how many.
        size: bytes.
        is_size_known: the bytes are what the servers say; else the files times their mean size.
        is_most: it may be less, which only the CSVs tell.
    """

    kind: str
    files: int
    size: int
    is_size_known: bool = True
    is_most: bool = False


def download(order: Order, say: Callable[[str], object] = print) -> dict[str, int]:
    """Download an order; a second call goes on where the first one stopped.

    Args:
        order: what to download.
        say: is told what is to come, and what is there at the end.

    Returns:
        How many images each split has of the order.

    Raises:
        UserError: a file that cannot be had or is not the official one, another run in the folder.
        OSError: what the file system refuses, with the name of the file.
    """
    files, listed = OrderedFiles(order), _read_list(order)
    with exclusive(order.root / 'download', 'downloading into this folder'):
        _fetch(still_to_fetch(looked_up(files.class_files(), order.connections)), 'class files',
               order)
        mids = _find_classes(order, files)
        tables = looked_up([job for split in order.splits for job in files.tables(split)],
                           order.connections)
        for job in tables:
            assert job.remote is not None
            adopt(place_of(job), job.remote)
        _fetch(still_to_fetch(tables), 'CSVs', order)

        choices = {split: _choose(order, split, files, mids, listed) for split in order.splits}
        archives = _archives(order, files, choices)
        images = {split: absent_images(files.images_folder(split), choice.image_ids)
                  for split, choice in choices.items()}
        say(in_words([_amount('mask archives', archives), *(
            _images_amount(order, split, len(ids)) for split, ids in images.items())],
            order.root))
        _fetch(archives, 'mask archives', order)
        missing = [error for split, ids in images.items()
                   for error in _fetch_images(ids, split, files, order)]
        for split, choice in choices.items():
            for job in files.tables(split):
                place(place_of(job), None if order.is_whole else choice.image_ids)
            say(f'{order.root}: {split}, {len(choice.image_ids):,} images')
    if missing:
        raise UserError(f'the server does not have {len(missing)} of the images; all else is '
                        f'there. The first: {missing[0]}')
    return {split: len(choice.image_ids) for split, choice in choices.items()}


def amounts_to_come(order: Order) -> list[Amount]:
    """How many files and bytes :func:`download` would fetch; nothing is written.

    Without the CSVs nobody knows which images are needed: then they are as many as are published.
    """
    files, listed = OrderedFiles(order), _read_list(order)
    tables = looked_up([*files.class_files(), *(
        job for split in order.splits for job in files.tables(split))], order.connections)
    amounts = [_amount('class files, CSVs',
                       [job for job in tables if not readable(job).exists()])]
    has_classes = all(job.target.exists() for job in files.class_files())
    mids = _find_classes(order, files) if has_classes else None
    choices = {split: _choose(order, split, files, mids, listed)
               if has_classes and all(readable(job).exists() for job in files.tables(split))
               else None for split in order.splits}
    amounts.append(_amount('mask archives', _archives(order, files, choices),
                           is_most=not order.is_whole and None in choices.values()))
    for split, choice in choices.items():
        if choice is not None:
            absent = absent_images(files.images_folder(split), choice.image_ids)
            amounts.append(_images_amount(order, split, len(absent)))
        else:
            published = order.release.splits[split].images
            number = min(published, order.max_images or published,
                         published if listed is None else len(listed.of_split(split)))
            amounts.append(_images_amount(order, split, number, is_most=number < published
                                          or bool(order.classes)))
    return amounts


def in_words(amounts: list[Amount], root: Path) -> str:
    """A table of what is to come, its sum, and the free space if that is less."""
    total = Amount('to come', sum(amount.files for amount in amounts),
                   sum(amount.size for amount in amounts),
                   all(amount.is_size_known for amount in amounts),
                   any(amount.is_most for amount in amounts))
    lines = [f'{amount.kind:24}{amount.files:>9,} files  '
             f'{"" if amount.is_size_known else "about "}{_size_in_words(amount.size)}'
             f'{" at most" if amount.is_most else ""}' for amount in (*amounts, total)]
    free = _free_space(root)
    if total.size > free:
        lines.append(f'{root}: {_size_in_words(free)} free, which is not enough')
    return '\n'.join(lines)


def _size_in_words(size: int) -> str:
    return f'{size / 1e9:,.1f} GB' if size >= 1e9 else f'{size / 1e6:.1f} MB'


def _free_space(root: Path) -> int:
    existing = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def _read_list(order: Order) -> ImageList | None:
    return None if order.image_list is None else ImageList(order.image_list)


def _find_classes(order: Order, files: OrderedFiles) -> set[str] | None:
    """The MIDs that are wanted; None for any."""
    if not order.classes:
        return None
    classes, hierarchy, *segmentable = (job.target for job in files.class_files())
    return find_classes(order.classes, read_release_classes(
        classes, hierarchy, next(iter(segmentable), None)))


def _choose(order: Order, split: str, files: OrderedFiles, mids: set[str] | None,
            listed: ImageList | None) -> Choice:
    """The images of a split, by its CSVs, which are there."""
    ids = None if listed is None else listed.of_split(split)
    if files.tables(split):
        boxes, labels, masks = map(readable, files.tables(split))
        chosen = choose_images(masks, () if order.release.masked_only else (boxes, labels), mids,
                               ids, order.max_images)
    else:
        assert ids is not None  # or there would be no such order
        chosen = Choice(tuple(sorted(ids)[:order.max_images]), ())
    if not chosen.image_ids:
        raise UserError(f'--split {split}: no image is left by --classes and --image-list')
    return chosen


def _archives(order: Order, files: OrderedFiles,
              choices: Mapping[str, Choice | None]) -> list[Job]:
    """The mask archives to fetch; where the images are not known yet, all."""
    jobs = [job for split, choice in choices.items() if order.release.splits[split].archives
            for job in files.archives(split, SHARDS if choice is None else choice.shards)]
    return still_to_fetch(looked_up(jobs, order.connections))


def _amount(kind: str, jobs: list[Job], *, is_most: bool = False) -> Amount:
    sizes = [job.remote.size if job.remote else None for job in jobs]
    return Amount(kind, len(jobs), sum(size or 0 for size in sizes), None not in sizes, is_most)


def _images_amount(order: Order, split: str, number: int, *, is_most: bool = False) -> Amount:
    return Amount(f'images, {split}', number, number * order.release.splits[split].image_bytes,
                  is_size_known=number == 0, is_most=is_most)


def _fetch(jobs: list[Job], kind: str, order: Order) -> None:
    for folder in {job.target.parent for job in jobs}:
        folder.mkdir(parents=True, exist_ok=True)
    with progress(total=_amount(kind, jobs).size or None, desc=kind, unit='B', scaled=True) as bar:
        fetch_all(jobs, order.connections, on_bytes=bar.update)


def _fetch_images(image_ids: list[str], split: str, files: OrderedFiles,
                  order: Order) -> list[FetchError]:
    """Fetch images; returns those that the server does not have."""
    folder = files.images_folder(split)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_parts(folder)
    received = 0

    def count(size: int) -> None:
        nonlocal received
        received += size

    with progress(total=len(image_ids), desc=f'images, {split}', unit='image') as bar:
        def tick() -> None:
            seconds = max(bar.format_dict['elapsed'], 1e-3)
            bar.set_postfix_str(f'{received / seconds / 1e6:.1f} MB/s', refresh=False)
            bar.update()

        return fetch_all(files.images(split, image_ids), order.connections, on_bytes=count,
                         on_file=tick, keep_going=True)


def _remove_parts(folder: Path) -> None:
    """What a run left that was killed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith('.') and entry.name.endswith('.jpg.part'):
                os.unlink(entry.path)
