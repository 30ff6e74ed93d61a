"""A small prepared index with every kind of instance, and detections near its instances."""

from pathlib import Path

import numpy as np

from projects.openimages.data.index import IndexColumns, PreparedIndex, write_index
from projects.openimages.labels import LabelSpace
from projects.openimages.masks import rle_from_mask

MIDS = ('/m/0animal', '/m/0cat', '/m/0dog', '/m/0cup')
HEIGHT, WIDTH = 12, 16


def label_space() -> LabelSpace:
    """Animal > (cat, dog), and a cup."""
    above = np.zeros((4, 4), bool)
    above[1:3, 0] = True
    return LabelSpace(MIDS, ('Animal', 'Cat', 'Dog', 'Cup'), above)


def make_index(path: Path, num_images: int = 12, seed: int = 0) -> PreparedIndex:
    """Instances with and without masks, group-of, and cat and dog on the very same box."""
    rng = np.random.default_rng(seed)
    columns = {name: [] for name in ('class_ids', 'boxes', 'is_group_of', 'counts',
                                     'label_class_ids', 'label_present')}
    instance_offsets, label_offsets = [0], [0]
    for _ in range(num_images):
        boxes = [random_box(rng) for _ in range(rng.integers(0, 6))]
        for box in boxes + boxes[:1]:  # one box stands twice, for another class
            columns['class_ids'].append(rng.integers(len(MIDS)))
            columns['boxes'].append(np.array(box) / (WIDTH, WIDTH, HEIGHT, HEIGHT))
            columns['is_group_of'].append(rng.random() < 0.2)
            columns['counts'].append(
                rle_from_mask(fill(box, rng))['counts'] if rng.random() < 0.7 else b'')
        for class_id in np.flatnonzero(rng.random(len(MIDS)) < 0.5):
            columns['label_class_ids'].append(class_id)
            columns['label_present'].append(rng.random() < 0.5)
        instance_offsets.append(len(columns['class_ids']))
        label_offsets.append(len(columns['label_class_ids']))
    counts = columns.pop('counts')
    number = len(counts)
    arrays = {name: np.array(values) for name, values in columns.items()}
    write_index(path, IndexColumns(
        image_ids=[f'{row:04x}c' for row in range(num_images)],
        widths=np.full(num_images, WIDTH), heights=np.full(num_images, HEIGHT),
        instance_offsets=np.array(instance_offsets), label_offsets=np.array(label_offsets),
        mask_area=np.array([bool(item) for item in counts], int),
        mask_box=np.zeros((number, 4), int),
        mask_offsets=np.cumsum([0, *map(len, counts)]), mask_data=b''.join(counts), **arrays),
        split='validation', label_space=label_space())
    return PreparedIndex.open(path)


def random_box(rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, right, top and bottom in pixels, not empty."""
    left, top = rng.integers(WIDTH - 3), rng.integers(HEIGHT - 3)
    return (int(left), int(rng.integers(left + 2, WIDTH + 1)), int(top),
            int(rng.integers(top + 2, HEIGHT + 1)))


def fill(box: tuple[int, int, int, int], rng: np.random.Generator) -> np.ndarray:
    """A mask inside the box, with holes."""
    left, right, top, bottom = box
    pixels = np.zeros((HEIGHT, WIDTH), bool)
    pixels[top:bottom, left:right] = rng.random((bottom - top, right - left)) < 0.9
    pixels[top, left] = True
    return pixels


def detect(index: PreparedIndex, row: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Labels (N,), scores (N,) float32 with ties, and masks (N, H, W) bool for an image."""
    rng = np.random.default_rng((seed, row))
    boxes = index.boxes[index.instance_rows(row)] * (WIDTH, WIDTH, HEIGHT, HEIGHT)
    chosen = [tuple(np.rint(box).astype(int).tolist()) for box in boxes for _ in range(3)]
    chosen += [random_box(rng) for _ in range(3)]
    masks = np.array([fill(box, rng) for box in chosen])
    labels = rng.integers(0, len(MIDS), len(chosen))
    return labels, (rng.integers(1, 11, len(chosen)) / 10).astype(np.float32), masks
