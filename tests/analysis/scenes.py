"""Small scenes that one can draw on squared paper: an index and a submission from a few lines."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from projects.openimages.analysis.outcomes import Outcomes, analyse
from projects.openimages.data.index import IndexColumns, PreparedIndex, write_index
from projects.openimages.labels import LabelSpace
from projects.openimages.masks import encode_text, rle_from_crop
from projects.openimages.submissions.formats import (
    Detection,
    ImageDetections,
    Submission,
    write_submission,
)

HEIGHT, WIDTH = 20, 40
NAMES = ('Animal', 'Cat', 'Dog', 'Cup')
ANIMAL, CAT, DOG, CUP = range(4)
MIDS = tuple(f'/m/0{name.lower()}' for name in NAMES)


@dataclass(frozen=True)
class Thing:
    """A rectangle from column ``left`` to ``right``, over the rows 0 to ``bottom``."""

    class_id: int
    left: int
    right: int
    mask: bool = True
    group: bool = False
    bottom: int = 10


@dataclass(frozen=True)
class Found:
    """A detection of such a rectangle."""

    class_id: int
    score: float
    left: int
    right: int
    bottom: int = 10


@dataclass(frozen=True)
class Scene:
    """One image.

    Attributes:
        things: its instances.
        found: its detections.
        present, absent: class ids of its image labels.
    """

    things: tuple[Thing, ...] = ()
    found: tuple[Found, ...] = ()
    present: tuple[int, ...] = ()
    absent: tuple[int, ...] = ()


def label_space(names=NAMES) -> LabelSpace:
    """Animal above cat and dog; a cup."""
    above = np.zeros((4, 4), bool)
    above[[CAT, DOG], ANIMAL] = True
    return LabelSpace(MIDS, tuple(names), above)


def make_index(path: Path, scenes, names=NAMES) -> PreparedIndex:
    things = [thing for scene in scenes for thing in scene.things]
    labels = [(c, present) for scene in scenes for group, present in (
        (scene.present, True), (scene.absent, False)) for c in group]
    counts = [mask(thing)['counts'] if thing.mask else b'' for thing in things]
    write_index(path, IndexColumns(
        image_ids=[image_id(n) for n in range(len(scenes))],
        widths=np.full(len(scenes), WIDTH), heights=np.full(len(scenes), HEIGHT),
        instance_offsets=np.cumsum([0, *(len(scene.things) for scene in scenes)]),
        class_ids=np.array([thing.class_id for thing in things], np.int16),
        boxes=np.array([[thing.left / WIDTH, thing.right / WIDTH, 0, thing.bottom / HEIGHT]
                        for thing in things]).reshape(-1, 4),
        is_group_of=np.array([thing.group for thing in things], bool),
        mask_area=np.array([bool(item) for item in counts], np.int32),
        mask_box=np.zeros((len(things), 4), np.int32),
        mask_offsets=np.cumsum([0, *map(len, counts)]), mask_data=b''.join(counts),
        label_offsets=np.cumsum([0, *(len(scene.present + scene.absent) for scene in scenes)]),
        label_class_ids=np.array([c for c, _ in labels], np.int16),
        label_present=np.array([present for _, present in labels], bool)),
        split='validation', label_space=label_space(names))
    return PreparedIndex.open(path)


def image_id(number: int) -> str:
    return f'image{number:02}'


def mask(thing: Thing | Found):
    pixels = np.ones((thing.bottom, thing.right - thing.left), bool)
    return rle_from_crop(pixels, thing.left, 0, HEIGHT, WIDTH)


def write_dump(path: Path, scenes) -> Path:
    """The detections as a Kaggle submission."""
    with open(path, 'wb') as file:
        write_submission(file, [ImageDetections(image_id(n), WIDTH, HEIGHT, [
            Detection(MIDS[one.class_id], str(one.score), encode_text(mask(one)['counts']))
            for one in scene.found]) for n, scene in enumerate(scenes)], 'kaggle')
    return path


def outcomes_of(folder: Path, *scenes: Scene) -> Outcomes:
    """What becomes of the detections of some scenes."""
    index = make_index(folder / 'index.arrow', scenes)
    with Submission(write_dump(folder / 'dump.csv', scenes)) as submission:
        return analyse(submission, index)[0]
