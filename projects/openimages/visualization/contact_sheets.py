"""Contact sheets of ground truth from a prepared index: what a split really holds, to be looked at.

In: an index and the folder of its images; out: pages of thumbnails with masks, boxes and names,
below each what is verified of the image besides, and a legend on top.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageDraw

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import atomic_write, open_regular
from projects.openimages.data.folders import image_path
from projects.openimages.data.index import ImageRecord, PreparedIndex
from projects.openimages.labels import LabelSpace
from projects.openimages.masks import Rle
from projects.openimages.visualization.drawing import (
    FAINT_INK,
    INK,
    PAPER,
    TEXT_SIZE,
    Colour,
    Instances,
    class_colour,
    draw_instances,
    draw_sample,
    fit_text,
    font,
)

COLUMNS, PAGE_ROWS = 4, 5
CELL_WIDTH, CELL_HEIGHT = 384, 288
CAPTION_LINES, NOTE_LINES = 4, 2
LINE = TEXT_SIZE + 4
GUTTER = 14
CELL_STEP = (CELL_WIDTH + GUTTER, CELL_HEIGHT + CAPTION_LINES * LINE + GUTTER)
ABSENT_INK, PRESENT_INK, NOTE_INK = (150, 40, 40), (25, 110, 55), (150, 85, 0)
PLACEHOLDER = (205, 205, 202)


def find_class(label_space: LabelSpace, text: str) -> int:
    """The class id of a machine id or of a name (capitals do not matter)."""
    wanted = text.casefold()
    found = [i for i, (mid, name) in enumerate(zip(label_space.mids, label_space.names,
                                                   strict=True))
             if text == mid or wanted == name.casefold()]
    if not found:
        near = [name for name in label_space.names if wanted in name.casefold()][:5]
        hint = f'; did you mean {", ".join(map(repr, near))}?' if near else ''
        raise UserError(f'no class {text!r} among the {label_space.num_classes}{hint}')
    return found[0]


def images_with_class(index: PreparedIndex, class_id: int) -> np.ndarray:
    """Rows of the images with an instance of a class or of one below it, ascending."""
    wanted = np.zeros(index.label_space.num_classes, dtype=bool)
    wanted[[class_id, *index.label_space.descendants(class_id)]] = True
    instances = np.flatnonzero(wanted[index.class_ids])
    return np.unique(np.searchsorted(index.instance_offsets, instances, side='right') - 1)


@dataclass
class Finding:
    """What a report says of one image under one kind of problem.

    Attributes:
        message: its first message.
        instances: numbers in the index of the instances that it concerns.
    """

    message: str
    instances: list[int] = field(default_factory=list)


def images_with_problem(report_path: str | os.PathLike, kind: str) -> dict[str, Finding]:
    """Image ids that a report lists under a kind of problem, each with what it says of it.

    Args:
        report_path: a split's ``report.json``.
        kind: a name among the report's problems.

    Returns:
        ImageID -> finding.
    """
    try:
        with open_regular(report_path) as file:
            problems = json.load(file)['problems']
        kinds = [name for name, problem in problems.items() if problem['count']]
        rows = problems[kind]['rows'] if kind in kinds else []
    except FileNotFoundError:
        raise UserError('no such report; tools/prepare_data.py writes it',
                        path=report_path) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f'not a report of tools/prepare_data.py: {error!r}',
                        path=report_path) from None
    if kind not in kinds:
        raise UserError(f'no problem of kind {kind!r}; it lists {", ".join(kinds) or "none"}',
                        path=report_path)
    findings: dict[str, Finding] = {}
    for row in rows:
        if row.get('image_id'):
            finding = findings.setdefault(row['image_id'], Finding(row['message']))
            if 'instance' in row:
                finding.instances.append(row['instance'])
    return findings


def choose_rows(index: PreparedIndex, num: int, seed: int, *, class_id: int | None = None,
                image_ids: Collection[str] | None = None) -> np.ndarray:
    """A random choice of at most ``num`` image rows, in the index's order.

    Args:
        index: where from.
        num: how many at most.
        seed: 0 or more; same seed, same choice.
        class_id: only images with an instance of this class or of one below it.
        image_ids: only these images; those that the index does not hold are passed over.
    """
    if num < 1:
        raise UserError(f'{num} images: expected at least 1')
    if seed < 0:
        raise UserError(f'seed {seed}, expected 0 or more')
    rows = np.arange(index.num_images)
    if class_id is not None:
        rows = images_with_class(index, class_id)
    if image_ids is not None:
        listed = list(_rows_by_id(index, image_ids).values())
        rows = np.intersect1d(rows, np.array(listed, dtype=rows.dtype))
    chosen = np.random.default_rng(seed).permutation(len(rows))[:num]
    return rows[np.sort(chosen)]


def record_instances(record: ImageRecord, marked: Collection[int] = ()) -> Instances:
    """An image's ground truth as it is drawn: boxes in pixels, some instances marked."""
    x0, x1, y0, y1 = record.boxes.T
    boxes = np.stack([x0 * record.width, y0 * record.height, x1 * record.width,
                      y1 * record.height], axis=1)
    masks = cast(list[Rle | None], record.masks)
    return Instances(record.class_ids, boxes, masks, group_of=record.is_group_of,
                     marked=marked)


def _rows_by_id(index: PreparedIndex, image_ids: Collection[str]) -> dict[str, int]:
    """The rows of those images that the index holds."""
    rows = {}
    for image_id in image_ids:
        with contextlib.suppress(UserError):
            rows[image_id] = index.find(image_id)
    return rows


def images_outside(index: PreparedIndex, image_ids: Collection[str], num: int,
                   seed: int) -> list[str]:
    """A random choice of at most ``num`` of the images that the index does not hold, by id."""
    outside = sorted(set(image_ids).difference(_rows_by_id(index, image_ids)))
    chosen = np.random.default_rng(seed).permutation(len(outside))[:max(num, 0)]
    return [outside[n] for n in np.sort(chosen)]


def contact_sheets(index: PreparedIndex, rows: Sequence[int], image_folders: Path | Sequence[Path],
                   title: str, findings: Mapping[str, Finding] | None = None,
                   outside: Sequence[str] = ()) -> Iterator[Image.Image]:
    """Draw the images of some rows, page after page.

    Args:
        index: their annotations.
        rows: which images, in the order of drawing.
        image_folders: where ``<ImageID>.jpg`` lie; an image that is not there, or cannot be read,
            becomes a grey field that says so.
        title: heads every page.
        findings: ImageID -> what to print with the image, and which instances to point out.
        outside: ids of further images, which the index does not hold.
    """
    folders = [image_folders] if isinstance(image_folders, Path) else list(image_folders)
    per_page = COLUMNS * PAGE_ROWS
    items: list[int | str] = [*map(int, rows), *outside]
    pages = -(-len(items) // per_page)
    for number in range(pages):
        cells = [_cell(index, item, folders, findings or {}) if isinstance(item, int)
                 else _cell_outside(item, folders, findings or {})
                 for item in items[number * per_page:(number + 1) * per_page]]
        heading = title if pages == 1 else f'{title}   (page {number + 1} of {pages})'
        yield _page(cells, index.label_space, heading)


def write_pages(pages: Iterator[Image.Image], out: Path) -> Iterator[Path]:
    """Write pages to ``out`` and, from the second on, to ``out`` with -2, -3, ... in its name."""
    if out.suffix.lower() not in ('.png', '.jpg', '.jpeg'):
        raise UserError(f'{out.suffix or "no suffix"}: expected .png or .jpg', path=out)
    for number, page in enumerate(pages, start=1):
        path = out if number == 1 else out.with_name(f'{out.stem}-{number}{out.suffix}')
        with atomic_write(path, 'wb') as file:
            page.save(file, format='PNG' if out.suffix.lower() == '.png' else 'JPEG', quality=90)
        yield path


@dataclass(frozen=True)
class _Cell:
    """An image on a page: its record if it is in the index, its drawing and the lines below."""

    record: ImageRecord | None
    thumbnail: Image.Image
    caption: list[tuple[str, Colour]]


def _cell(index: PreparedIndex, row: int, folders: Sequence[Path],
          findings: Mapping[str, Finding]) -> _Cell:
    record = index.image(row)
    finding = findings.get(record.image_id)
    marked = [] if finding is None else [n - index.instance_rows(row).start
                                         for n in finding.instances]
    return _Cell(record, _thumbnail(record, folders, marked, index.label_space),
                 _caption_lines(record, index.label_space, finding.message if finding else None))


def _cell_outside(image_id: str, folders: Sequence[Path],
                  findings: Mapping[str, Finding]) -> _Cell:
    """An image that is not in the index: its picture, if it has one, and why."""
    image = _read_image(image_path(folders, image_id))
    caption = [f'{image_id}  not in the index']
    if isinstance(image, str):
        image = _placeholder(image)
    else:
        caption[0] = f'{image_id}  {image.width}×{image.height}  not in the index'
        image.thumbnail((CELL_WIDTH, CELL_HEIGHT))
    lines = [(line, INK) for line in caption]
    if image_id in findings:
        lines += [(line, NOTE_INK) for line in _wrap(f'! {findings[image_id].message}',
                                                     CAPTION_LINES - 1)]
    return _Cell(None, image, [(fit_text(text, font(), CELL_WIDTH), ink) for text, ink in lines])


def _page(cells: list[_Cell], label_space: LabelSpace, heading: str) -> Image.Image:
    columns = min(COLUMNS, len(cells))
    width = max(columns, 2) * CELL_STEP[0] + GUTTER
    header = _header([cell.record for cell in cells if cell.record], label_space, heading, width)
    page_rows = -(-len(cells) // columns)
    page = Image.new('RGB', (width, header.height + page_rows * CELL_STEP[1]), PAPER)
    page.paste(header, (0, 0))
    draw = ImageDraw.Draw(page)
    for number, cell in enumerate(cells):
        x = GUTTER + number % columns * CELL_STEP[0]
        y = header.height + number // columns * CELL_STEP[1]
        page.paste(cell.thumbnail, (x + (CELL_WIDTH - cell.thumbnail.width) // 2,
                                    y + (CELL_HEIGHT - cell.thumbnail.height) // 2))
        for line, (text, ink) in enumerate(cell.caption):
            draw.text((x, y + CELL_HEIGHT + 3 + line * LINE), text, ink, font())
    return page


def _thumbnail(record: ImageRecord, folders: Sequence[Path], marked: Collection[int],
               label_space: LabelSpace) -> Image.Image:
    scale = min(CELL_WIDTH / record.width, CELL_HEIGHT / record.height)
    max_side = max(1, int(scale * max(record.width, record.height)))
    image = _read_image(image_path(folders, record.image_id))
    if isinstance(image, str):
        return _placeholder(image)
    if image.size != (record.width, record.height):
        image = image.resize((record.width, record.height))
    return draw_instances(image, record_instances(record, marked), label_space.names,
                          max_side=max_side)


def _read_image(path: Path) -> Image.Image | str:
    """The picture, or why there is none."""
    try:
        with open_regular(path) as file:
            return Image.open(file).convert('RGB')
    except FileNotFoundError:
        return 'no image file'
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, UserError):
        return 'image cannot be read'


def _placeholder(reason: str) -> Image.Image:
    field = Image.new('RGB', (CELL_WIDTH, CELL_HEIGHT), PLACEHOLDER)
    ImageDraw.Draw(field).text((CELL_WIDTH / 2, CELL_HEIGHT / 2), reason, INK, font(), anchor='mm')
    return field


def _caption_lines(record: ImageRecord, label_space: LabelSpace,
                   note: str | None) -> list[tuple[str, Colour]]:
    """What stands below a picture: at most CAPTION_LINES lines with their ink."""
    masks = sum(mask is not None for mask in record.masks)
    counts = f'{_plural(len(record.masks), "box", "boxes")}, {_plural(masks, "mask", "masks")}'
    if record.is_group_of.any():
        counts += f', {int(record.is_group_of.sum())} group-of'
    lines = [(f'{record.image_id}  {record.width}×{record.height}  {counts}', INK)]
    if note:
        lines += [(line, NOTE_INK) for line in _wrap(f'! {note}', NOTE_LINES)]
    boxed = set(record.class_ids.tolist())
    present = [c for c in record.label_class_ids[record.label_present] if c not in boxed]
    absent = record.label_class_ids[~record.label_present]
    for mark, class_ids, ink, most in (
            ('✓ present, no box: ', present, PRESENT_INK, 1),
            ('✗ verified absent: ', absent, ABSENT_INK, CAPTION_LINES)):
        room = min(most, CAPTION_LINES - len(lines))
        if len(class_ids) and room:
            text = mark + '\u00a0· '.join(label_space.names[c] for c in class_ids)
            lines += [(line, ink) for line in _wrap(text, room)]
    return [(fit_text(text, font(), CELL_WIDTH), ink) for text, ink in lines]


def _plural(count: int, one: str, many: str) -> str:
    return f'{count} {one if count == 1 else many}'


def _wrap(text: str, most: int) -> list[str]:
    """Break a text at its spaces into lines of a cell's width; the last may still be too wide."""
    lines = ['']
    for word in text.split(' '):
        longer = f'{lines[-1]} {word}'.strip()
        if len(lines) < most and font().getlength(longer) > CELL_WIDTH:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _header(records: list[ImageRecord], label_space: LabelSpace, heading: str,
            width: int) -> Image.Image:
    """Title, how boxes are drawn, and the page's classes with their colours and counts."""
    counts = Counter(int(c) for record in records for c in record.class_ids)
    entries = [(label_space.names[c], class_colour(c), count)
               for c, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    page = Image.new('RGB', (width, 200), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((GUTTER, 12), fit_text(heading, font(18, bold=True), width - 2 * GUTTER), INK,
              font(18, bold=True))
    x, y = GUTTER, 46
    for text, is_group, has_mask in (('mask and its box', False, True),
                                     ('box without a mask', False, False),
                                     ('group-of box', True, False)):
        draw_sample(page, (x, y, x + 34, y + 22), FAINT_INK, is_group=is_group, has_mask=has_mask)
        draw.text((x + 42, y + 11), text, INK, font(), anchor='lm')
        x += 42 + int(font().getlength(text)) + 24
    bottom = _write_classes(draw, entries, y + 34, width)
    return page.crop((0, 0, width, bottom + GUTTER))


def _write_classes(draw: ImageDraw.ImageDraw, entries: list[tuple], y: int, width: int) -> int:
    """Colour, name and count of each class in at most three lines; returns where they end."""
    x, lines = GUTTER, 1
    for number, (name, colour, count) in enumerate(entries):
        text = f'{name} {count}'
        step = 18 + int(font().getlength(text)) + 16
        if x + step > width and x > GUTTER:
            x, y, lines = GUTTER, y + LINE + 2, lines + 1
        if lines > 3:
            draw.text((x, y), f'and {len(entries) - number} more classes', FAINT_INK, font())
            return y + LINE
        draw.rounded_rectangle((x, y + 1, x + 12, y + 13), 3, colour)
        draw.text((x + 18, y + 7), text, INK, font(), anchor='lm')
        x += step
    return y + LINE
