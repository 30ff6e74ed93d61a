"""Labels that are likely missing or wrong in the ground truth, as a list for an annotator.

Open Images is labelled in part, so a confident detection that nothing in the ground truth matches
may be right. In: :class:`Outcomes`, the submission and the index. Out: the most confident of

- detections whose class nobody has verified in the image,
- false ones on nothing, where the class is verified present (an object without a box?) or absent,
- false ones on an instance of another class (a wrong label?).
"""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from dataclasses import asdict, dataclass, fields
from typing import cast

import numpy as np

from projects.openimages.analysis.causes import WRONG_CLASS, Cause
from projects.openimages.analysis.outcomes import Outcomes
from projects.openimages.common.files import atomic_write
from projects.openimages.data.index import PreparedIndex
from projects.openimages.masks import Rle, inflate_text
from projects.openimages.metric import MeasuredMasks, measure
from projects.openimages.metric.overlaps import box_iou, mask_intersections, mask_iou
from projects.openimages.submissions.formats import Submission

MOST = 500
NOT_VERIFIED = 'class not verified in the image'
ABSENT = 'verified absent'
PRESENT = 'verified present, but no instance here'
OTHER_LABEL = 'labelled as another class'


@dataclass(frozen=True)
class Suspect:
    """One line of the list; the column names are those of the official files.

    Attributes:
        row: of the detection in :class:`Outcomes`; not written.
        XMin, XMax, YMin, YMax: the tight box of the mask, 0 to 1.
        Reason: why it is here.
        LabelHere: the class of the instance that it overlaps most, by IoU from 0.5; else empty.
        IoU: with that instance.
    """

    row: int
    ImageID: str
    LabelName: str
    Name: str
    Score: float
    XMin: float
    XMax: float
    YMin: float
    YMax: float
    Reason: str
    LabelHere: str
    IoU: float


def find_suspects(outcomes: Outcomes, submission: Submission, index: PreparedIndex,
                  score_thr: float, most: int = MOST) -> list[Suspect]:
    """The most confident suspects, from the highest score down.

    Args:
        outcomes: of the submission.
        submission, index: masks are read from them again.
        score_thr: no detection below it is listed.
        most: so many at most.
    """
    wanted = np.isin(outcomes.cause, (Cause.UNVERIFIED, Cause.BACKGROUND, *WRONG_CLASS))
    rows = np.flatnonzero(wanted & ~outcomes.copy & (outcomes.matches.score >= score_thr))
    rows = rows[np.argsort(-outcomes.matches.score[rows], kind='stable')][:most]
    by_image = defaultdict(list)
    for row in rows.tolist():
        by_image[int(outcomes.matches.image[row])].append(row)
    found = {suspect.row: suspect for image, members in by_image.items()
             for suspect in _of_image(outcomes, submission, index, image, members)}
    return [found[row] for row in rows.tolist() if row in found]


def _of_image(outcomes: Outcomes, submission: Submission, index: PreparedIndex, image: int,
              rows: list[int]) -> list[Suspect]:
    read = submission.image(index.image_id(image))
    assert read is not None
    details = [read.detections[outcomes.matches.detection[row]] for row in rows]
    masks = measure({'size': [read.height, read.width],
                     'counts': inflate_text(item.mask, read.height, read.width)}
                    for item in details)
    here, iou = _labels_here(index, image, masks)
    space = index.label_space
    labels = index.label_rows(image)
    _, absent = space.expand_labels(*_part(index, labels, ~index.label_present[labels]))
    result = []
    for n, (row, item) in enumerate(zip(rows, details, strict=True)):
        class_id = int(outcomes.matches.class_id[row])
        related = here[n] >= 0 and (here[n] == class_id or class_id in space.ancestors(here[n]))
        if masks.areas[n] == 0 or related:
            continue
        cause = outcomes.cause[row]
        reason = (OTHER_LABEL if cause in WRONG_CLASS else NOT_VERIFIED
                  if cause == Cause.UNVERIFIED else ABSENT if class_id in absent else PRESENT)
        left, right, top, bottom = masks.boxes[n].tolist()
        result.append(Suspect(row, read.image_id, item.mid, space.names[class_id],
                              float(outcomes.matches.score[row]), left, right, top, bottom, reason,
                              space.mids[here[n]] if here[n] >= 0 else '', float(iou[n])))
    return result


def _part(index: PreparedIndex, labels: slice, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return index.label_class_ids[labels][rows], index.label_present[labels][rows]


def _labels_here(index: PreparedIndex, image: int,
                 masks: MeasuredMasks) -> tuple[list[int], np.ndarray]:
    """For each mask the class of the instance that it lies on, or -1, and the (F,) IoU with it."""
    instances = index.instance_rows(image)
    truth = measure(cast(list[Rle | None], index.masks(image)))
    boxes = np.ascontiguousarray(index.boxes[instances])
    overlap = box_iou(masks.boxes[:, None], boxes)
    masked, present = np.flatnonzero(truth.areas > 0), np.flatnonzero(masks.areas > 0)
    common = mask_intersections(masks.present(present), truth.present(masked),
                                masks.areas[present])
    overlap[np.ix_(present, masked)] = mask_iou(common, masks.areas[present, None],
                                                truth.areas[masked])
    overlap = np.column_stack((np.full(len(overlap), 0.5 - 1e-9), overlap))
    best = overlap.argmax(axis=1)
    classes = np.append(-1, index.class_ids[instances])[best]
    return classes.tolist(), np.where(best > 0, overlap.max(axis=1), 0.0)


def write_suspects(path: str | os.PathLike, suspects: list[Suspect]) -> None:
    """Write the list as a CSV."""
    names = [field.name for field in fields(Suspect) if field.name != 'row']
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, names, lineterminator='\n', extrasaction='ignore')
        writer.writeheader()
        writer.writerows(map(asdict, suspects))
