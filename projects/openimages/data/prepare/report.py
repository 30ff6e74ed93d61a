"""What a split holds and what is wrong with it: ``report.json`` for programs, a page for people."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path

import numpy as np

from projects.openimages.common.files import atomic_write
from projects.openimages.data.index import PreparedIndex
from projects.openimages.data.prepare.gathering import Gathered
from projects.openimages.data.problems import BAD_KINDS, NOTE_KINDS, ProblemLog

REPORT_VERSION = 1
_WORST_JOINS = 20
_SHOWN_ROWS = 5
_DISTANCE_STEPS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 5e-3, 2e-2)
_LONGEST_TEXT = 200


def build_report(index: PreparedIndex, gathered: Gathered, log: ProblemLog,
                 root: Path, polygons: dict | None) -> dict:
    """Numbers and problems of a prepared split as JSON values.

    Args:
        index: the finished index.
        gathered: what it was written from.
        log: everything found on the way.
        root: the data root, which files are named from.
        polygons: tolerance and measured IoU, where polygons were written.
    """
    report = {
        'report_version': REPORT_VERSION, 'split': index.split, 'counts': _counts(index, gathered),
        'classes': _classes(index), 'joins': _joins(index, gathered),
        'problems': {kind: {'meaning': meaning, 'stops': kind in BAD_KINDS,
                            'count': log.counts[kind],
                            'rows': [problem.to_json(root) for problem in log.listed[kind]]}
                     for kind, meaning in {**BAD_KINDS, **NOTE_KINDS}.items()
                     if kind in log.counts},
    }
    if polygons is not None:
        report['polygons'] = polygons
    return report


def _counts(index: PreparedIndex, gathered: Gathered) -> dict[str, int]:
    instances = np.diff(index.instance_offsets)
    labels = np.diff(index.label_offsets)
    return {
        'images': index.num_images,
        'images_with_instances': int((instances > 0).sum()),
        'images_with_labels_only': int(((instances == 0) & (labels > 0)).sum()),
        'images_without_annotation': int(((instances == 0) & (labels == 0)).sum()),
        'instances': index.num_instances,
        'masks': int(index.has_mask.sum()),
        'boxes_without_mask': int((~index.has_mask).sum()),
        'boxes_without_mask_not_group_of': int((~index.has_mask & ~index.is_group_of).sum()),
        'group_of': int(index.is_group_of.sum()),
        'labels': len(index.label_class_ids),
        'labels_present': int(index.label_present.sum()),
        'classes': index.label_space.num_classes,
        'classes_with_masks': len(np.unique(index.class_ids[index.has_mask])),
        **gathered.counts,
    }


def _classes(index: PreparedIndex) -> list[dict]:
    """All classes, the one with the most masks first."""
    space = index.label_space
    images = np.repeat(np.arange(index.num_images), np.diff(index.instance_offsets))
    pairs = np.unique(images * space.num_classes + index.class_ids)

    def per_class(class_ids: np.ndarray) -> np.ndarray:
        return np.bincount(class_ids, minlength=space.num_classes)

    columns = {
        'masks': per_class(index.class_ids[index.has_mask]),
        'boxes_without_mask': per_class(index.class_ids[~index.has_mask]),
        'group_of': per_class(index.class_ids[index.is_group_of]),
        'images': per_class(pairs % space.num_classes),
        'labels_present': per_class(index.label_class_ids[index.label_present]),
        'labels_absent': per_class(index.label_class_ids[~index.label_present]),
    }
    order = np.lexsort((np.arange(space.num_classes), -columns['masks']))
    return [{'class_id': int(c), 'mid': space.mids[c], 'name': space.names[c],
             **{name: int(values[c]) for name, values in columns.items()}} for c in order]


def _joins(index: PreparedIndex, gathered: Gathered) -> dict:
    """How far the boxes of the two CSVs are apart, and the worst."""
    distances = gathered.join_distances
    joined = np.flatnonzero(~np.isnan(distances))
    counts = np.histogram(distances[joined], (*_DISTANCE_STEPS, np.inf))[0]
    bounds = [*(f'below {high:g}' for high in _DISTANCE_STEPS[1:]), f'{_DISTANCE_STEPS[-1]:g} up']
    worst = joined[np.lexsort((joined, -distances[joined]))[:_WORST_JOINS]]
    return {
        'count': len(joined),
        'by_distance': {bound: int(count) for bound, count in zip(bounds, counts, strict=True)},
        'worst': [{'distance': float(distances[n]), 'instance': int(n),
                   'image_id': index.image_ids[int(gathered.instance_images[n])],
                   'class': index.label_space.names[index.class_ids[n]]} for n in worst],
    }


def write_report(folder: Path, report: dict) -> None:
    """Write ``report.json`` and ``report.txt``."""
    with atomic_write(folder / 'report.json') as file:
        json.dump(report, file, indent=1, ensure_ascii=False)
        file.write('\n')
    with atomic_write(folder / 'report.txt') as file:
        file.write(format_report(report))


def format_report(report: dict) -> str:
    """The report as a page of text."""
    counts = report['counts']
    lines = [f'Open Images, {report["split"]}', '',
             *_number_lines(counts), '', *_problem_lines(report['problems'])]
    if report['joins']['count']:
        lines += ['', 'Masks joined to boxes, by distance of their boxes (1 = the image)']
        lines += [f'  {bound:<14}{count:>12,}' for bound, count
                  in report['joins']['by_distance'].items() if count]
        worst = report['joins']['worst'][0]
        lines.append(f'  the furthest: {worst["distance"]:.4g}, {worst["class"]} in image '
                     f'{worst["image_id"]}')
    if 'polygons' in report:
        quality = report['polygons']
        lines += ['', f'Polygons at most {quality["tolerance"]:g} pixels from the outline: IoU '
                  f'with the mask {quality["mean_iou"]:.4f} on average, {quality["least_iou"]:.4f} '
                  f'at least; {quality["as_rle"]:,} masks kept as RLE']
    if counts['instances']:
        lines += ['', *_class_lines(report['classes'])]
    return '\n'.join(lines) + '\n'


def _number_lines(counts: dict[str, int]) -> list[str]:
    names = {
        'images': 'images', 'images_with_instances': '  with instances',
        'images_with_labels_only': '  with verified labels only',
        'images_without_annotation': '  without annotation', 'instances': 'instances',
        'masks': '  with a mask', 'boxes_without_mask': '  boxes without mask',
        'group_of': '  group-of', 'labels': 'verified labels', 'labels_present': '  present',
        'classes': 'classes', 'classes_with_masks': '  with masks',
        'rows_of_other_classes': 'rows of classes without masks, not used',
    }
    return [f'{text:<44}{counts[name]:>12,}' for name, text in names.items()
            if counts.get(name) or not text.startswith((' ', 'rows'))]


def _problem_lines(problems: dict[str, dict]) -> list[str]:
    if not problems:
        return ['No problems.']
    lines = ['Problems (all of them in report.json; '
             'tools/browse_dataset.py --only NAME draws them)']
    for kind, found in problems.items():
        lines.append(f'  {kind:<22}{found["count"]:>12,}  {found["meaning"]}')
        for row in found['rows'][:_SHOWN_ROWS]:
            place = os.path.basename(row.get('file', ''))
            place += f' row {row["row"]}' if 'row' in row else ''
            text = f'{place}: {row["message"]}' if place else row['message']
            lines.append('      ' + textwrap.shorten(text, _LONGEST_TEXT, placeholder=' ...'))
        if found['count'] > _SHOWN_ROWS:
            lines.append(f'      and {found["count"] - _SHOWN_ROWS:,} more')
    return lines


def _class_lines(classes: list[dict]) -> list[str]:
    lines = [f'{"Classes by frequency":<36}{"masks":>10}{"no mask":>10}{"group-of":>10}'
             f'{"images":>10}{"verified":>10}{"absent":>10}']
    seen = [c for c in classes if c['masks'] or c['boxes_without_mask']]
    for c in seen:
        name = textwrap.shorten(c['name'], 33, placeholder='...')
        lines.append(f'  {name:<34}{c["masks"]:>10,}{c["boxes_without_mask"]:>10,}'
                     f'{c["group_of"]:>10,}{c["images"]:>10,}{c["labels_present"]:>10,}'
                     f'{c["labels_absent"]:>10,}')
    if len(seen) < len(classes):
        lines.append(f'  and {len(classes) - len(seen)} classes without instances')
    return lines
