"""Shard results and official rows become the columns of the index.

Images that could not be read leave with all their rows; masks that could not be read leave their
instance without a mask. What is worth a note about masks (size, place) is noted here, where their
instances have their final numbers.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from projects.openimages.data.folders import image_path
from projects.openimages.data.index import IndexColumns
from projects.openimages.data.layout import SplitFiles
from projects.openimages.data.official.annotations import Annotations
from projects.openimages.data.prepare.shards import ShardResult, shard_bounds
from projects.openimages.data.problems import Problem, ProblemLog

OUTSIDE_PIXELS = 2
OUTSIDE_SHARE = 0.01
"""A mask may leave its box by so many pixels and this part of the image before it is noted."""
SHAPE_TOLERANCE = 0.01
"""Aspect ratios of mask and image may differ by this much, from rounding a smaller mask's size."""
DISTANT_JOIN = 0.005
"""Joins further apart than this are noted: other decimals explain less."""


@dataclass
class Gathered:
    """A split before it is written; N instances are left.

    Attributes:
        columns: for the index; ``mask_data`` maps a file beside the shards' own.
        join_distances: (N,) float64, nan where there was nothing to join.
        instance_images: (N,) int64 row of the image.
        counts: numbers for the report.
    """

    columns: IndexColumns
    join_distances: np.ndarray
    instance_images: np.ndarray
    counts: dict[str, int] = field(default_factory=dict)


@dataclass
class _Masks:
    """What the shards say of each instance, and where its image is in the split."""

    sizes: np.ndarray
    areas: np.ndarray
    boxes: np.ndarray
    source_sizes: np.ndarray
    lengths: np.ndarray


def gather(annotations: Annotations, results: Iterable[Path], files: SplitFiles,
           data_path: Path, log: ProblemLog) -> Gathered:
    """Join the shards of a split in order.

    Args:
        annotations: the rows.
        results: the file of each shard, in order.
        files: for the names in messages.
        data_path: the file to put all masks' bytes in.
        log: gets the shards' problems and the notes about masks.
    """
    masks = _gather_masks(annotations, results, files, data_path, log)
    keep_images = masks.sizes[:, 0] > 0
    images = annotations.instance_images
    keep = keep_images[images]
    offsets = _kept_offsets(annotations.instance_offsets, keep)
    label_images = np.repeat(np.arange(len(keep_images)), np.diff(annotations.label_offsets))
    keep_labels = keep_images[label_images]
    columns = IndexColumns(
        image_ids=[image_id for image_id, kept in zip(annotations.image_ids, keep_images,
                                                      strict=True) if kept],
        widths=masks.sizes[keep_images, 0], heights=masks.sizes[keep_images, 1],
        instance_offsets=offsets[np.append(keep_images, True)] if len(keep_images) else offsets,
        class_ids=annotations.class_ids[keep], boxes=annotations.boxes[keep],
        is_group_of=annotations.is_group_of[keep], mask_area=masks.areas[keep],
        mask_box=masks.boxes[keep],
        mask_offsets=np.concatenate(([0], np.cumsum(masks.lengths[keep]))),
        mask_data=_map(data_path),
        label_offsets=_kept_offsets(annotations.label_offsets,
                                    keep_labels)[np.append(keep_images, True)],
        label_class_ids=annotations.label_class_ids[keep_labels],
        label_present=annotations.label_present[keep_labels])
    rows = np.cumsum(keep_images) - 1
    _note_instances(annotations, masks, keep, files, log)
    _note_labels(columns, annotations.box_lines[keep], files, log)
    read = keep & (masks.source_sizes[:, 0] > 0)
    counts = {'images_left_out': int((~keep_images).sum()), 'mask_files': int(read.sum()),
              'images_with_mask_files': len(np.unique(images[read])),
              'masks_scaled': int((read & _is_scaled(masks, images)).sum())}
    return Gathered(columns, annotations.join_distances[keep], rows[images[keep]],
                    {**annotations.counts, **counts})


def _is_scaled(masks: _Masks, images: np.ndarray) -> np.ndarray:
    """(N,) bool: mask files of another size than their image."""
    return (masks.source_sizes != masks.sizes[images]).any(axis=1)


def _map(path: Path) -> bytes | mmap.mmap:
    with open(path, 'rb') as file:
        if not path.stat().st_size:
            return b''
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _kept_offsets(offsets: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Offsets after the rows that are not kept are taken out."""
    return np.concatenate(([0], np.cumsum(keep)))[offsets]


def _gather_masks(annotations: Annotations, results: Iterable[Path], files: SplitFiles,
                  data_path: Path, log: ProblemLog) -> _Masks:
    count = len(annotations.class_ids)
    masks = _Masks(np.zeros((len(annotations.image_ids), 2), np.int32),
                   np.zeros(count, np.int32), np.zeros((count, 4), np.int32),
                   np.zeros((count, 2), np.int32), np.zeros(count, np.int64))
    with open(data_path, 'wb') as data:
        for (start, stop), path in zip(shard_bounds(annotations), results, strict=True):
            result = ShardResult.load(path)
            first, last = annotations.instance_offsets[[start, stop]].tolist()
            with_mask = first + np.flatnonzero(annotations.mask_rows[first:last] >= 0)
            masks.sizes[start:stop] = result.sizes
            masks.areas[with_mask] = result.areas
            masks.boxes[with_mask] = result.boxes
            masks.source_sizes[with_mask] = result.source_sizes
            masks.lengths[with_mask] = result.lengths
            data.write(result.data.tobytes())
            _log_problems(result, annotations, start, with_mask, files, log)
    return masks


def _log_problems(result: ShardResult, annotations: Annotations, start: int,
                  with_mask: np.ndarray, files: SplitFiles, log: ProblemLog) -> None:
    for kind, position, message in result.problems:
        if kind in ('missing_image', 'broken_image'):
            image = start + position
            source, row = _first_row(annotations, image, files)
            log.bad(kind, message, path=source, row=row, image_id=annotations.image_ids[image])
        else:
            instance = with_mask[position]
            row = annotations.mask_rows[instance]
            image = np.searchsorted(annotations.instance_offsets, instance, 'right') - 1
            log.bad(kind, f'mask {annotations.mask_names[row].as_py()}: {message}',
                    path=files.masks, row=int(annotations.mask_lines[row]),
                    image_id=annotations.image_ids[image])
    for position in np.flatnonzero(result.orientations > 1):
        image_id = annotations.image_ids[start + position]
        log.add(Problem('rotated_image', f'EXIF orientation {result.orientations[position]} asks '
                        'to turn or mirror it, which is not done here',
                        str(image_path(files.image_folders, image_id)), None, image_id))


def _first_row(annotations: Annotations, image: int,
               files: SplitFiles) -> tuple[Path | None, int | None]:
    """Where an image is first mentioned: the CSV and its line."""
    first, last = annotations.instance_offsets[[image, image + 1]].tolist()
    for instance in range(first, last):
        if annotations.box_lines[instance]:
            return files.boxes, int(annotations.box_lines[instance])
        return files.masks, int(annotations.mask_lines[annotations.mask_rows[instance]])
    first = int(annotations.label_offsets[image])
    if first < annotations.label_offsets[image + 1]:
        return files.labels, int(annotations.label_lines[first])
    return None, None


def _note_instances(annotations: Annotations, masks: _Masks, keep: np.ndarray, files: SplitFiles,
                    log: ProblemLog) -> None:
    """Notes about masks and joins, by column; only what is listed is made into words."""
    images = annotations.instance_images
    width, height = masks.sizes[images].T.astype(np.float64)
    mask_width, mask_height = masks.source_sizes.T
    read = keep & (mask_width > 0)
    has_mask = keep & (masks.areas > 0)
    outside = _outside(annotations.boxes, masks.boxes, width, height)
    too_far = outside > np.maximum(OUTSIDE_PIXELS, OUTSIDE_SHARE * np.maximum(width, height))
    other_size = read & _is_scaled(masks, images)
    # A mask made smaller has its sides rounded to whole pixels: allow for one of them.
    other_shape = other_size & (np.abs(mask_width * height - mask_height * width) > np.maximum(
        SHAPE_TOLERANCE * mask_width * height, np.maximum(width, height)))
    numbers = np.cumsum(keep) - 1
    boxes_name = files.boxes.name if files.boxes else ''

    def note(kind: str, chosen: np.ndarray, message: Callable[[int], str]) -> None:
        def problems() -> Iterator[Problem]:
            for n in np.flatnonzero(chosen):
                row = annotations.mask_rows[n]
                name = annotations.mask_names[row].as_py()
                yield Problem(kind, f'mask {name}: {message(n)}', str(files.masks),
                              int(annotations.mask_lines[row]), annotations.image_ids[images[n]],
                              int(numbers[n]))
        log.notes(kind, int(chosen.sum()), problems())

    note('empty_mask', read & (masks.areas == 0), lambda n: 'no pixel is set')
    note('mask_outside_box', has_mask & too_far,
         lambda n: f'reaches {outside[n]:.0f} pixels outside its box')
    note('shape_mismatch', other_shape, lambda n: (
        f'{mask_width[n]}x{mask_height[n]} pixels, the image has {width[n]:.0f}x{height[n]:.0f}'))
    note('distant_join', keep & (annotations.join_distances > DISTANT_JOIN), lambda n: (
        f'its box is {annotations.join_distances[n]:.4g} from that in row '
        f'{annotations.box_lines[n]} of {boxes_name}'))


def _outside(boxes: np.ndarray, mask_boxes: np.ndarray, width: np.ndarray,
             height: np.ndarray) -> np.ndarray:
    """(N,) float64 pixels by which a mask's box leaves the annotated box."""
    left, top, w, h = mask_boxes.T
    return np.max([boxes[:, 0] * width - left, left + w - boxes[:, 1] * width,
                   boxes[:, 2] * height - top, top + h - boxes[:, 3] * height,
                   np.zeros(len(boxes))], axis=0)


def _note_labels(columns: IndexColumns, box_lines: np.ndarray, files: SplitFiles,
                 log: ProblemLog) -> None:
    """Boxes whose class no label verifies in their image, or a label denies."""
    if files.labels is None or not len(columns.class_ids):
        return
    space = int(max(columns.class_ids.max(), columns.label_class_ids.max(initial=0))) + 1
    images = np.repeat(np.arange(len(columns.widths)), np.diff(columns.instance_offsets))
    label_images = np.repeat(np.arange(len(columns.widths)), np.diff(columns.label_offsets))
    keys = images * space + columns.class_ids
    label_keys = label_images * space + columns.label_class_ids
    verified = np.isin(keys, label_keys)
    absent = np.isin(keys, label_keys[~columns.label_present])

    def note(kind: str, chosen: np.ndarray, message: str) -> None:
        log.notes(kind, int(chosen.sum()), (
            Problem(kind, message, str(files.boxes), int(box_lines[n]) or None,
                    columns.image_ids[images[n]], int(n)) for n in np.flatnonzero(chosen)))

    note('unverified_class', ~verified, 'no label of the box\'s class in this image')
    note('absent_class', absent, 'a label says that the box\'s class is absent')
