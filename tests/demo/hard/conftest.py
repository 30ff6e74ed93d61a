"""A hard world on disk, and images of one in memory for what needs no files."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from projects.openimages.data.layout import find_classes, read_classes_of
from projects.openimages.data.prepare.run import PrepareOptions, prepare_split
from projects.openimages.demo.hard import Knobs, make_hard_world
from projects.openimages.demo.hard.annotate import choose_annotations
from projects.openimages.demo.hard.classes import HardClasses, hard_classes
from projects.openimages.demo.hard.plan import plan_split
from projects.openimages.demo.hard.scenes import PaintedImage, paint_image
from projects.openimages.demo.hard.verification import Verdict, verify_split
from projects.openimages.labels import LabelSpace

KNOBS = Knobs(group=0.12, lost=0.15)  # so that a small world has some of each
SPLITS = ('train', 'validation', 'test', 'oracle')


def each_plan(num_images: int, knobs: Knobs, classes: HardClasses):
    """Plans of a split with a moderate tail, and each one's random numbers."""
    plans = plan_split(num_images, 20, classes, knobs, np.random.default_rng(1))
    for number, plan in enumerate(plans):
        yield plan, np.random.default_rng((1, number))


def paint_images(num_images: int, knobs: Knobs, classes: HardClasses) -> list[PaintedImage]:
    return [paint_image(plan, classes, knobs, rng)
            for plan, rng in each_plan(num_images, knobs, classes)]


@dataclass(frozen=True)
class Split:
    """A split's tables and truth as dicts of text, and its label space."""

    root: Path
    name: str
    space: LabelSpace
    boxes: list[dict[str, str]]
    labels: list[dict[str, str]]
    masks: list[dict[str, str]]
    truth: list[dict[str, str]]

    def closure(self, mid: str) -> set[str]:
        """A class and those above it."""
        class_id = self.space.class_id(mid)
        return {mid, *(self.space.mids[i] for i in self.space.ancestors(class_id))}

    def is_parent(self, mid: str) -> bool:
        return bool(self.space.parents[self.space.class_id(mid)])


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope='session')
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('hard') / 'data'
    make_hard_world(folder, num_images=160, seed=4, knobs=KNOBS, workers=2)
    return folder


@pytest.fixture(scope='session')
def space(root) -> LabelSpace:
    return read_classes_of(find_classes(root))


@pytest.fixture(scope='session', params=['train', 'validation'])
def split(request, root, space) -> Split:
    name = request.param
    tables = [read_rows(root / f'challenge-2019-{name}-segmentation-{table}.csv')
              for table in ('bbox', 'labels', 'masks')]
    return Split(root, name, space, *tables, read_rows(root / 'truth' / f'{name}.csv'))


@pytest.fixture(scope='session')
def prepared(root, space) -> dict[str, Path]:
    """Folder of each prepared split; bad input in any would have raised."""
    files = find_classes(root).paths
    return {name: prepare_split(root, name, space, files, PrepareOptions()).folder
            for name in SPLITS}


@pytest.fixture(scope='session')
def classes() -> HardClasses:
    return hard_classes('A')


@pytest.fixture(scope='session')
def painted(classes) -> list[PaintedImage]:
    return paint_images(120, Knobs(group=0.1), classes)


@dataclass(frozen=True)
class Labelled:
    """Images as they are verified and annotated with some knobs."""

    images: list[PaintedImage]
    verdicts: list[Verdict]
    kinds: list[list[str]]

    def things(self):
        """(thing, name it is filed under or None, kind of annotation) of all images."""
        for image, verdict, kinds in zip(self.images, self.verdicts, self.kinds, strict=True):
            yield from zip(image.things, verdict.named, kinds, strict=True)


@pytest.fixture
def label(painted, classes):
    """Verify and annotate the painted images with the knobs given."""
    def labelled(**knobs: float) -> Labelled:
        chosen, rng = Knobs(**knobs), np.random.default_rng(2)
        verdicts = verify_split(painted, classes, chosen, rng)
        return Labelled(painted, verdicts, choose_annotations(painted, verdicts, chosen, rng))

    return labelled
