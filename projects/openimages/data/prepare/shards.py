"""The heavy part of preparing, in pieces: image sizes and masks of a range of images.

A shard is a range of a split's images in order of their ids, so that what its masks become stands
together in the index as well. Each finished shard is a file; a run that was killed finds them and
goes on, and since shards do not depend on the number of workers, neither do the bytes.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import atomic_write
from projects.openimages.data.folders import image_path
from projects.openimages.data.mask_files.archives import EntryError, MaskPlaces, MaskReader
from projects.openimages.data.mask_files.packed import EMPTY, EncodedMask, encode_packed
from projects.openimages.data.mask_files.png import PngError, read_mask
from projects.openimages.data.official.annotations import Annotations
from projects.openimages.data.official.image_sizes import ImageError, read_image_size

MASKS_PER_SHARD = 1024
IMAGES_PER_SHARD = 4096


@dataclass(frozen=True)
class Shard:
    """One piece of work: the images ``[start, stop)``, i of them, with m masks.

    Attributes:
        path: the file for its result.
        image_folders: where ``<ImageID>.jpg`` are; none where there are no images.
        image_ids: i strings.
        sizes: (i, 2) int32 width, height known beforehand; 0 where not.
        mask_images: (m,) int64 image of each mask, counted in the shard.
        mask_names: m file names.
        places: where their bytes are.
    """

    path: Path
    image_folders: tuple[Path, ...]
    image_ids: Sequence[str]
    sizes: np.ndarray
    mask_images: np.ndarray
    mask_names: list[str]
    places: MaskPlaces


@dataclass(frozen=True)
class ShardResult:
    """What a shard became; i images, m masks.

    Attributes:
        sizes: (i, 2) int32 width, height; 0 for an image that is left out.
        orientations: (i,) int8 of EXIF, 1 to 8; 1 is as stored, or not looked at.
        areas: (m,) int32 pixels; 0 without a mask.
        boxes: (m, 4) int32 x, y, w, h.
        source_sizes: (m, 2) int32 width, height of the mask file; 0 without one.
        lengths: (m,) int64 bytes of each mask in ``data``.
        data: (bytes,) uint8 compressed RLE counts, end to end.
        problems: ``(kind, position, message)``, the position that of an image or a mask.
    """

    sizes: np.ndarray
    orientations: np.ndarray
    areas: np.ndarray
    boxes: np.ndarray
    source_sizes: np.ndarray
    lengths: np.ndarray
    data: np.ndarray
    problems: list[tuple[str, int, str]]

    def save(self, path: Path) -> None:
        text = np.frombuffer(json.dumps(self.problems).encode(), np.uint8)
        packed = io.BytesIO()  # a zip writer left by a full disk would still try to finish
        np.savez(packed, **{**vars(self), 'problems': text})
        with atomic_write(path, 'wb') as file:
            file.write(packed.getvalue())

    @classmethod
    def load(cls, path: Path) -> ShardResult:
        with np.load(path, allow_pickle=False) as arrays:
            values = dict(arrays)
        problems = json.loads(values.pop('problems').tobytes())
        return cls(**values, problems=[tuple(problem) for problem in problems])


def shard_bounds(annotations: Annotations) -> list[tuple[int, int]]:
    """Ranges of images with about ``MASKS_PER_SHARD`` masks each."""
    masks = np.concatenate(([0], np.cumsum(annotations.mask_rows >= 0)))
    before = masks[annotations.instance_offsets]
    bounds, start, count = [], 0, len(annotations.image_ids)
    while start < count:
        stop = int(np.searchsorted(before, before[start] + MASKS_PER_SHARD, 'left'))
        stop = min(max(stop, start + 1), start + IMAGES_PER_SHARD, count)
        bounds.append((start, stop))
        start = stop
    return bounds


def make_shards(annotations: Annotations, places: MaskPlaces, sizes: np.ndarray,
                image_folders: tuple[Path, ...], folder: Path) -> Iterator[Shard]:
    """The shards of a split in order; their files go to ``folder``."""
    for start, stop in shard_bounds(annotations):
        instances = slice(annotations.instance_offsets[start], annotations.instance_offsets[stop])
        rows = annotations.mask_rows[instances]
        counts = np.diff(annotations.instance_offsets[start:stop + 1])
        images = np.repeat(np.arange(stop - start), counts)[rows >= 0]
        rows = rows[rows >= 0]
        yield Shard(folder / f'shard-{start:07d}-{stop:07d}.npz', image_folders,
                    annotations.image_ids[start:stop], sizes[start:stop], images,
                    annotations.mask_names.take(rows).to_pylist(), places.take(rows))


def process_shard(reader: MaskReader, shard: Shard) -> Path:
    """Read a shard's images and masks and write its file, unless an earlier run did."""
    if not _is_whole(shard.path):
        problems: list[tuple[str, int, str]] = []
        sizes, orientations = _read_sizes(shard, problems)
        encoded, source_sizes = _read_masks(reader, shard, sizes, problems)
        counts = b''.join(mask.counts for mask in encoded)
        ShardResult(
            sizes=sizes, orientations=orientations,
            areas=np.array([mask.area for mask in encoded], np.int32),
            boxes=np.array([mask.box for mask in encoded], np.int32).reshape(-1, 4),
            source_sizes=source_sizes,
            lengths=np.array([len(mask.counts) for mask in encoded], np.int64),
            data=np.frombuffer(counts, np.uint8), problems=problems).save(shard.path)
    return shard.path


def _is_whole(path: Path) -> bool:
    try:
        ShardResult.load(path)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return False  # not there yet, or half of it after a crash of the file system
    return True


def _read_sizes(shard: Shard, problems: list) -> tuple[np.ndarray, np.ndarray]:
    """Sizes (i, 2) and EXIF orientations (i,); zeros for the images with a problem."""
    sizes = shard.sizes.copy()
    orientations = np.ones(len(sizes), np.int8)
    for n in np.flatnonzero(sizes[:, 0] == 0).tolist():
        if not shard.image_folders:
            problems.append(('missing_image', n, f'image {shard.image_ids[n]}: no size for it in '
                             'the sizes CSV'))
            continue
        path = image_path(shard.image_folders, shard.image_ids[n])
        try:
            *sizes[n], orientations[n] = read_image_size(path)
        except FileNotFoundError:
            problems.append(('missing_image', n, f'image {path}: no such image'))
        except UserError as error:
            problems.append(('broken_image', n, f'image {error}'))
        except ImageError as error:
            problems.append(('broken_image', n, f'image {path}: {error}'))
        except OSError as error:
            problems.append(('broken_image', n, f'image {path}: {error.strerror}'))
    return sizes, orientations


def _read_masks(reader: MaskReader, shard: Shard, sizes: np.ndarray,
                problems: list) -> tuple[list[EncodedMask], np.ndarray]:
    """The masks at their images' sizes, and their files' sizes (m, 2)."""
    encoded = [EMPTY] * len(shard.mask_names)
    source_sizes = np.zeros((len(encoded), 2), np.int32)
    places = zip(shard.places.source.tolist(), shard.places.entry.tolist(), shard.mask_names,
                 strict=True)
    for n, (image, place) in enumerate(zip(shard.mask_images.tolist(), places, strict=True)):
        width, height = sizes[image].tolist()
        if not width:
            continue
        if place[0] < 0:
            problems.append(('missing_mask', n, 'no such file in the mask archives'))
            continue
        try:
            mask = read_mask(reader.read(*place))
        except (PngError, EntryError) as error:
            problems.append(('broken_mask', n, str(error)))
            continue
        source_sizes[n] = mask.width, mask.height
        encoded[n] = encode_packed(mask, height, width)
    return encoded, source_sizes
