"""From a painted picture to the rows and mask PNGs that the official files would hold for it.

The verified labels say less (and, of absent classes, more) than the boxes do; the traps of boxes
and masks are laid in :mod:`.rows`.
"""

from __future__ import annotations

import numpy as np

from projects.openimages.demo.classes import VISIBLE, DemoClasses
from projects.openimages.demo.rows import ImageAnnotations, draw_box, draw_mask
from projects.openimages.demo.scenes import (
    GROUP_OF,
    LABEL_ONLY,
    MASKED,
    UNLABELLED,
    PaintedObject,
    ScenePlan,
)

PARENT_NAMED_TOO = 0.1  # share of labelled pictures where an annotator verified a parent as well


def annotate(image_id: str, plan: ScenePlan, objects: list[PaintedObject], classes: DemoClasses,
             rng: np.random.Generator) -> ImageAnnotations:
    """Write down one picture as the annotators of Open Images would have."""
    result = ImageAnnotations()
    for thing in objects:
        if thing.annotation in (LABEL_ONLY, UNLABELLED):
            continue
        mid = classes.mid(VISIBLE[thing.visible_class].name)
        box = draw_box(thing.mask, rng)
        result.add_box(image_id, mid, box, group_of=thing.annotation == GROUP_OF)
        if thing.annotation == MASKED:
            drawn = draw_mask(thing.mask, box, plan.width, plan.height, rng)
            result.add_mask(image_id, mid, drawn)
    seen = {VISIBLE[thing.visible_class].name for thing in objects}
    named = {VISIBLE[t.visible_class].name for t in objects if t.annotation != UNLABELLED}
    result.labels = [(image_id, classes.mid(name), confidence)
                     for name, confidence in _labels(seen, named, plan, classes, rng)]
    return result


def _labels(seen: set[str], named: set[str], plan: ScenePlan, classes: DemoClasses,
            rng: np.random.Generator) -> list[tuple[str, str]]:
    """Verified labels: (class name, '1' or '0'), present ones first.

    Nothing is verified of an object that nobody labelled, neither of its class nor above it; and
    what is verified absent is truly not in the picture.
    """
    above = {name: classes.ancestors(name) for name in seen}
    hidden = set().union(*({name} | above[name] for name in seen - named))
    present = sorted(named)
    if named and rng.random() < PARENT_NAMED_TOO:
        parents = set().union(*(above[name] for name in named)) - named
        present += sorted(parents)[:1]
    invisible = _invisible(classes)
    if plan.stones:  # a pebble is called by a name that never has boxes
        present.append(invisible[int(rng.integers(len(invisible)))])
    possible = {v.name for v in VISIBLE} | {a for v in VISIBLE for a in classes.ancestors(v.name)}
    present_anywhere = seen | set().union(*above.values())
    absent = sorted(possible - present_anywhere - hidden)
    absent = [absent[i] for i in rng.permutation(len(absent))[:int(rng.integers(2, 6))]]
    absent += [invisible[int(i)] for i in rng.integers(len(invisible), size=2)]
    labels = [(name, '1') for name in present]
    return labels + [(name, '0') for name in dict.fromkeys(absent) if name not in present]


def _invisible(classes: DemoClasses) -> list[str]:
    visible = {v.name for v in VISIBLE}
    visible |= {a for v in VISIBLE for a in classes.ancestors(v.name)}
    return [name for name in classes.names if name not in visible]
