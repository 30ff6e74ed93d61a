"""Draws instances over pictures: translucent masks, thin outlines, boxes and names.

In: an image, class ids, boxes in pixels, RLE masks; out: a Pillow image. What an instance lacks is
visible at a glance: a box with a mask is thin and solid, a box without one is dashed, a group-of
box is dashed and hatched. A class has the same colour in every picture.

>>> cup = Instances(labels=[3], boxes=[[10, 10, 90, 60]], scores=[0.92])
>>> draw_instances(Image.new('RGB', (100, 80)), cup, ['a', 'b', 'c', 'Cup'], max_side=200).size
(200, 160)
"""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from projects.openimages.masks import Rle, rle_to_mask

Colour = tuple[int, int, int]
Region = tuple[int, int, int, int]

PAPER, INK, FAINT_INK = (250, 250, 247), (32, 33, 38), (110, 112, 120)
LARGEST_ENLARGEMENT = 2.0  # of pictures smaller than the space they are given
MASK_OPACITY = 0.32
OUTLINE = 2  # pixels
HATCH_SPACING = 9
DASH, GAP = 7, 5
TEXT_SIZE = 12
MOST_DRAWN = 20  # predictions of one image: more names than that nobody can read
PADDING = 4


@dataclass(frozen=True)
class Instances:
    """What is drawn over one image: ground truth, or predictions.

    Attributes:
        labels: (N,) class ids.
        boxes: (N, 4) x0, y0, x1, y1 in pixels of the image.
        masks: N RLE dicts at the image's size, None for an instance without a mask.
        scores: (N,) for predictions; None for ground truth.
        group_of: (N,) bool; None where no box is one.
        marked: numbers of those to point out: a thick frame, and '!' before the name.
    """

    labels: Sequence[int] | np.ndarray
    boxes: Sequence[Sequence[float]] | np.ndarray
    masks: Sequence[Rle | None] | None = None
    scores: Sequence[float] | np.ndarray | None = None
    group_of: Sequence[bool] | np.ndarray | None = None
    marked: Collection[int] = ()

    def __post_init__(self) -> None:
        for name in ('boxes', 'masks', 'scores', 'group_of'):
            value = getattr(self, name)
            if value is not None and len(value) != len(self.labels):
                raise ValueError(f'{len(self.labels)} labels, but {len(value)} {name}')

    def __len__(self) -> int:
        return len(self.labels)

    def at_least(self, score: float) -> Instances:
        """Those with at least this score; all of them where there are no scores."""
        if self.scores is None:
            return self
        return self._picked([i for i, value in enumerate(self.scores) if value >= score])

    def best(self, most: int) -> Instances:
        """At most so many, those of the highest scores; all of them where there are no scores."""
        if self.scores is None or len(self) <= most:
            return self
        order = np.argsort(-np.asarray(self.scores, dtype=float), kind='stable')
        return self._picked(sorted(order[:most].tolist()))

    def _picked(self, kept: list[int]) -> Instances:
        def pick(values: Any) -> Any:
            return None if values is None else [values[i] for i in kept]

        return Instances(pick(self.labels), pick(self.boxes), pick(self.masks), pick(self.scores),
                         pick(self.group_of), [kept.index(i) for i in self.marked if i in kept])


@functools.cache
def class_colour(class_id: int) -> Colour:
    """The colour of a class, the same wherever it is drawn.

    Hue and lightness follow Roberts' R2 sequence, which spreads any run of ids evenly over both.
    """
    hue = (0.02 + class_id * 0.7548776662) % 1.0
    lightness = 0.34 + 0.34 * (class_id * 0.5698402910 % 1.0)
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)


@functools.cache
def font(size: int = TEXT_SIZE, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Pillow's own font lacks most accented letters."""
    name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), 'fonts', 'ttf', name)), size)


def draw_instances(image: Image.Image | np.ndarray, instances: Instances, names: Sequence[str], *,
                   max_side: int = 640, caption: str = '') -> Image.Image:
    """Draw instances over an image.

    Args:
        image: Pillow image, or (H, W, 3) uint8 RGB.
        instances: in pixels of that image.
        names: class names by class id.
        max_side: the longer side of the result in pixels. Larger images are scaled down; smaller
            ones are enlarged, at most twice, so that names stay legible.
        caption: a line of text below the picture.
    """
    image = _as_image(image)
    scale = min(max_side / max(image.size), LARGEST_ENLARGEMENT)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    picture = image.resize(size, Image.Resampling.LANCZOS)
    factors = np.array([size[0] / image.width, size[1] / image.height] * 2)
    boxes = np.asarray(instances.boxes, dtype=float).reshape(-1, 4) * factors
    for i in _drawing_order(instances, boxes):
        colour = class_colour(int(instances.labels[i]))
        mask = None if instances.masks is None else instances.masks[i]
        if mask is not None:
            _draw_mask(picture, mask, colour)
        is_group = instances.group_of is not None and bool(instances.group_of[i])
        region = _region(boxes[i], size)
        if i in instances.marked:
            _draw_frame(picture, region)
        _draw_box(picture, region, colour, is_group, mask is not None)
    _draw_names(picture, instances, boxes, names)
    return add_caption(picture, caption) if caption else picture


def draw_comparison(image: Image.Image | np.ndarray, ground_truth: Instances | None,
                    predictions: Instances, names: Sequence[str], *, max_side: int = 640,
                    score_thr: float = 0.3, title: str = '', caption: str = '') -> Image.Image:
    """Draw ground truth and predictions of one image side by side.

    Args:
        image: Pillow image, or (H, W, 3) uint8 RGB.
        ground_truth: in pixels of that image; None where there is none, as in the test split.
        predictions: in pixels of that image.
        names: class names by class id.
        max_side: the longer side of each of the two pictures.
        score_thr: predictions with a lower score are left out, and of more than ``MOST_DRAWN``
            all but the best.
        title: heads the left picture, usually the image id.
        caption: a line of text below both.
    """
    found = predictions.at_least(score_thr)
    shown = found.best(MOST_DRAWN)
    few = f'{len(shown)} best of ' if len(shown) < len(found) else ''
    truth = Instances([], []) if ground_truth is None else ground_truth
    halves = [draw_instances(image, truth, names, max_side=max_side),
              draw_instances(image, shown, names, max_side=max_side)]
    headings = ['' if ground_truth is None else f'ground truth ({len(truth)})',
                f'predictions ({few}{len(found)} of score ≥ {score_thr:g})']
    if title:
        headings[0] = f'{title}   {headings[0]}'.rstrip()
    margin, head = 8, 24
    width, height = halves[0].size
    sheet = Image.new('RGB', (2 * width + 3 * margin, height + head + margin), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (half, heading) in enumerate(zip(halves, headings, strict=True)):
        x = margin + number * (width + margin)
        draw.text((x, head // 2), fit_text(heading, font(bold=True), width), INK, font(bold=True),
                  anchor='lm')
        sheet.paste(half, (x, head))
    return add_caption(sheet, caption) if caption else sheet


def add_caption(picture: Image.Image, caption: str) -> Image.Image:
    """The picture with a line of text below it, cut where it would run out of the picture."""
    strip = TEXT_SIZE + 2 * PADDING
    result = Image.new('RGB', (picture.width, picture.height + strip), PAPER)
    result.paste(picture, (0, 0))
    text = fit_text(caption, font(), picture.width - 2 * PADDING)
    ImageDraw.Draw(result).text((PADDING, picture.height + strip // 2), text, INK, font(),
                                anchor='lm')
    return result


def fit_text(text: str, face: ImageFont.FreeTypeFont, width: float) -> str:
    """The text, cut with an ellipsis where it is wider than ``width`` pixels."""
    if face.getlength(text) <= width:
        return text
    end = len(text)
    while end and face.getlength(text[:end].rstrip() + '…') > width:
        end -= 1
    return text[:end].rstrip() + '…'


def draw_sample(draw_on: Image.Image, region: Region, colour: Colour, *, is_group: bool,
                has_mask: bool) -> None:
    """A specimen for a legend: how a box, with or without a mask, is drawn."""
    if has_mask:
        x0, y0, x1, y1 = region
        alpha = Image.new('L', draw_on.size)
        ImageDraw.Draw(alpha).ellipse((x0 + 1, y0 + 1, x1 - 2, y1 - 2), fill=255)
        _blend(draw_on, alpha, colour)
    _draw_box(draw_on, region, colour, is_group, has_mask)


def _as_image(image: Image.Image | np.ndarray) -> Image.Image:
    return (image if isinstance(image, Image.Image) else Image.fromarray(image)).convert('RGB')


def _drawing_order(instances: Instances, boxes: np.ndarray) -> list[int]:
    """Large ones first, so that small ones lie on top; among predictions, doubtful ones first."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    if instances.scores is None:
        return np.argsort(-areas, kind='stable').tolist()
    return np.argsort(np.asarray(instances.scores, dtype=float), kind='stable').tolist()


def _region(box: np.ndarray, size: tuple[int, int]) -> Region:
    """Whole pixels of a box within the picture: x0, y0, x1, y1, the last ones excluded."""
    x0, y0, x1, y1 = np.round(box).astype(int).tolist()
    x0, y0 = min(max(x0, 0), size[0] - 2), min(max(y0, 0), size[1] - 2)
    return x0, y0, min(max(x1, x0 + 2), size[0]), min(max(y1, y0 + 2), size[1])


def _draw_mask(picture: Image.Image, mask: Rle, colour: Colour) -> None:
    """Tint the mask's pixels and trace its edge."""
    pixels = Image.fromarray(rle_to_mask(mask).astype(np.uint8) * 255)
    _blend(picture, pixels.resize(picture.size, Image.Resampling.BILINEAR), colour)


def _blend(picture: Image.Image, alpha: Image.Image, colour: Colour) -> None:
    region = alpha.getbbox()
    if region is None:
        return
    region = (max(region[0] - 2, 0), max(region[1] - 2, 0),
              min(region[2] + 2, picture.width), min(region[3] + 2, picture.height))
    alpha = alpha.crop(region)
    inner = np.asarray(alpha.filter(ImageFilter.MinFilter(2 * OUTLINE + 1)), dtype=np.float32)
    edge = np.asarray(alpha, dtype=np.float32) - inner  # within the mask
    strength = np.maximum(MASK_OPACITY * np.asarray(alpha, dtype=np.float32), edge)
    picture.paste(colour, region[:2], Image.fromarray(strength.round().astype(np.uint8)))


def _draw_box(picture: Image.Image, region: Region, colour: Colour, is_group: bool,
              has_mask: bool) -> None:
    x0, y0, x1, y1 = region
    if is_group:
        _hatch(picture, region, colour)
    lines = [(x0, y0, x1, y0), (x1 - 1, y0, x1 - 1, y1), (x0, y1 - 1, x1, y1 - 1), (x0, y0, x0, y1)]
    draw = ImageDraw.Draw(picture)
    if has_mask and not is_group:
        for line in lines:
            draw.line(line, fill=colour, width=1)
        return
    for ax, ay, bx, by in lines:
        _dashed_line(draw, (ax, ay), (bx, by), colour)


def _draw_frame(picture: Image.Image, region: Region) -> None:
    """Three pixels of black within three of white around a box."""
    draw = ImageDraw.Draw(picture)
    for reach, ink in ((6, (255, 255, 255)), (3, (0, 0, 0))):
        draw.rectangle((region[0] - reach, region[1] - reach, region[2] + reach - 1,
                        region[3] + reach - 1), outline=ink, width=3)


def _dashed_line(draw: ImageDraw.ImageDraw, start: tuple[int, int], end: tuple[int, int],
                 colour: Colour) -> None:
    """A dashed horizontal or vertical line on a dark ground, so that it shows on any picture."""
    draw.line((*start, *end), fill=(25, 25, 28), width=2)
    along = 0 if start[1] == end[1] else 1
    for begin in range(start[along], end[along], DASH + GAP):
        a, b = list(start), list(end)
        a[along], b[along] = begin, min(begin + DASH, end[along])
        draw.line((*a, *b), fill=colour, width=2)


def _hatch(picture: Image.Image, region: Region, colour: Colour) -> None:
    x0, y0, x1, y1 = region
    ys, xs = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    distance = np.abs((xs + ys) / np.sqrt(2) % HATCH_SPACING - HATCH_SPACING / 2)
    alpha = np.clip(1.4 - distance, 0, 1) * 190
    picture.paste(colour, (x0, y0), Image.fromarray(alpha.astype(np.uint8)))


def _draw_names(picture: Image.Image, instances: Instances, boxes: np.ndarray,
                names: Sequence[str]) -> None:
    """Write every instance's name (and score) on a plate at its box, where no other plate is."""
    draw = ImageDraw.Draw(picture)
    plates: list[Region] = []
    order = _drawing_order(instances, boxes)
    for i in reversed(order) if instances.scores is not None else order:
        label = int(instances.labels[i])
        text = f'! {names[label]}' if i in instances.marked else names[label]
        if instances.scores is not None:
            text += f' {float(instances.scores[i]):.2f}'
        text = fit_text(text, font(), picture.width - 2 * PADDING)
        size = (int(font().getlength(text)) + 2 * PADDING, TEXT_SIZE + PADDING)
        plates.append(_free_place(_region(boxes[i], picture.size), size, picture.size, plates))
        colour = class_colour(label)
        draw.rounded_rectangle((*plates[-1][:2], plates[-1][2] - 1, plates[-1][3] - 1), 3, colour)
        draw.text((plates[-1][0] + PADDING, (plates[-1][1] + plates[-1][3]) / 2), text,
                  _ink_on(colour), font(), anchor='lm')


def _free_place(box: Region, size: tuple[int, int], picture_size: tuple[int, int],
                taken: list[Region]) -> Region:
    """Where a plate goes: on the box's edge, inside it, below it; wherever it hides least."""
    width, height = size
    lefts = (box[0], box[2] - width, (box[0] + box[2] - width) // 2)
    tops = (box[1] - height, box[1], box[3] - height, box[3], (box[1] + box[3] - height) // 2)
    best, least = (0, 0, width, height), np.inf
    for top in tops:
        for left in lefts:
            x = min(max(left, 0), picture_size[0] - width)
            y = min(max(top, 0), picture_size[1] - height)
            place = (x, y, x + width, y + height)
            hidden = sum(_shared_area(place, other) for other in taken)
            if hidden < least:
                best, least = place, hidden
            if hidden == 0:
                return place
    return best


def _shared_area(a: Region, b: Region) -> int:
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    return max(0, across) * max(0, down)


def _ink_on(colour: Colour) -> Colour:
    """Black or white, whichever reads better on a colour."""
    brightness = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return (0, 0, 0) if brightness > 140 else (255, 255, 255)


def montage(pictures: Sequence[Image.Image], columns: int = 2, gap: int = 12) -> Image.Image:
    """Pictures in rows on white, each row as high as its highest picture."""
    rows = [pictures[start:start + columns] for start in range(0, len(pictures), columns)]
    width = max(sum(picture.width + gap for picture in row) for row in rows) + gap
    height = sum(max(picture.height for picture in row) + gap for row in rows) + gap
    sheet = Image.new('RGB', (width, height), 'white')
    y = gap
    for row in rows:
        x = gap
        for picture in row:
            sheet.paste(picture, (x, y))
            x += picture.width + gap
        y += max(picture.height for picture in row) + gap
    return sheet
