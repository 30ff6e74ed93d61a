"""What a split holds and what is wrong with it: ``report.json`` for programs, a page for people."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path

import numpy as np

from projects.openimages.common.files import atomic_write
from projects.openimages.data.index import PreparedIndex
from projects.openimages.data.layout import SplitFiles
from projects.openimages.data.official.releases import (
    CHALLENGE_TEST,
    RELEASE_TEST_IMAGES,
    Published,
)
from projects.openimages.data.prepare.gathering import Gathered
from projects.openimages.data.problems import BAD_KINDS, NOTE_KINDS, ProblemLog

REPORT_VERSION = 2
_WORST_JOINS = 20
_SHOWN_ROWS = 5
_DISTANCE_STEPS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 5e-3, 2e-2)
_LONGEST_TEXT = 200


def build_report(index: PreparedIndex, gathered: Gathered, log: ProblemLog, files: SplitFiles, *,
                 all_classes: bool, polygons: dict | None) -> dict:
    """Numbers and problems of a prepared split as JSON values.

    Args:
        index: the finished index.
        gathered: what it was written from.
        log: everything found on the way.
        files: the split's files, which are named from the data root.
        all_classes: the index has all of the release's, so that its counts should be the published
            ones.
        polygons: tolerance and measured IoU, where polygons were written.
    """
    report = {
        'report_version': REPORT_VERSION, 'split': index.split, 'release': files.release.name,
        'counts': _counts(index, gathered),
        'classes': _classes(index), 'joins': _joins(index, gathered),
        'problems': {kind: {'meaning': meaning, 'stops': kind in BAD_KINDS,
                            'count': log.counts[kind],
                            'rows': [problem.to_json(files.root) for problem in log.listed[kind]]}
                     for kind, meaning in {**BAD_KINDS, **NOTE_KINDS}.items()
                     if kind in log.counts},
    }
    published = _compare_with_published(index, gathered, files) if all_classes else None
    if published is not None:
        report['published'] = published
    if polygons is not None:
        report['polygons'] = polygons
    return report


def _compare_with_published(index: PreparedIndex, gathered: Gathered,
                            files: SplitFiles) -> dict | None:
    """Masks and images of the split beside those that are published; None where nothing is."""
    split = CHALLENGE_TEST if files.is_challenge and index.split == 'test' else index.split
    published = files.release.published.get(split)
    if published is None or (published.masks > 0) != (files.masks is not None):
        return None
    here = Published(gathered.counts['images_with_mask_files'] if published.masks
                     else index.num_images, gathered.counts['mask_files'])
    return {'images': here.images, 'images_published': published.images,
            'masks': here.masks, 'masks_published': published.masks,
            'complete': here == published}


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
             *_number_lines(counts), '', *_published_lines(report.get('published')),
             *_problem_lines(report['problems'])]
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
        'masks': '  with a mask', 'masks_scaled': '    scaled to the size of their image',
        'boxes_without_mask': '  boxes without mask',
        'group_of': '  group-of', 'labels': 'verified labels', 'labels_present': '  present',
        'classes': 'classes', 'classes_with_masks': '  with masks',
        'rows_of_other_classes': 'rows of classes without masks, not used',
        'rows_of_other_images': 'rows of labels of other images, not used',
        'instances_of_other_classes': 'instances of classes not chosen',
    }
    return [f'{text:<44}{counts[name]:>12,}' for name, text in names.items()
            if counts.get(name) or not text.startswith((' ', 'rows', 'instances of'))]


def _published_lines(published: dict | None) -> list[str]:
    if published is None:
        return []
    names = [name for name in ('images', 'masks') if published[f'{name}_published']]
    if published['complete']:
        counts = ' and '.join(f'{published[name]:,} {name}' for name in names)
        return [f'Complete: all {counts} that are published.', '']
    lines = ['Not what is published' + (', counting images with masks' if len(names) > 1 else '')]
    for name in names:
        here, there = published[name], published[f'{name}_published']
        rest = f', {there - here:,} missing' if here < there else ''
        rest = f', {here - there:,} too many' if here > there else rest
        lines.append(f'  {name:<10}{here:>12,} of {there:,}{rest}')
    if not published['masks_published'] and published['images'] == RELEASE_TEST_IMAGES:
        lines.append('  these are the test images of the full release; those of the challenge are '
                     f'{CHALLENGE_TEST}')
    return [*lines, '']


def _problem_lines(problems: dict[str, dict]) -> list[str]:
    """What stops the work, then what is only worth knowing."""
    lines = []
    for title, stops in (('Problems', True), ('Notes', False)):
        kinds = {kind: found for kind, found in problems.items() if found['stops'] == stops}
        if kinds:
            lines += [f'{title} (all of them in report.json; '
                      'tools/browse_dataset.py --only NAME draws them)', *_kind_lines(kinds)]
        elif stops:
            lines += ['No problems.']
    return lines


def _kind_lines(kinds: dict[str, dict]) -> list[str]:
    lines = []
    for kind, found in kinds.items():
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
