"""Pictures for the report: an image's ground truth beside what was detected, errors pointed out.

In: :class:`Outcomes`, the submission, the index and the folder of images. Out: JPEG bytes. Masks
are read again for the few images that are drawn.
"""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from projects.openimages.analysis.outcomes import Outcomes
from projects.openimages.common.errors import UserError
from projects.openimages.common.files import open_regular
from projects.openimages.data.index import PreparedIndex
from projects.openimages.masks import Rle, bbox, inflate_text
from projects.openimages.metric import FALSE
from projects.openimages.submissions.formats import Submission
from projects.openimages.visualization.contact_sheets import record_instances
from projects.openimages.visualization.drawing import Instances, draw_comparison

SIDE = 400
_QUALITY = 80


@dataclass(frozen=True)
class Artist:
    """Draws images of one dump.

    Attributes:
        outcomes, submission, index: the dump.
        folder: where ``<ImageID>.jpg`` lie.
        score_thr: detections below it are not drawn, unless they are asked for.
    """

    outcomes: Outcomes
    submission: Submission
    index: PreparedIndex
    folder: Path
    score_thr: float

    def image(self, image: int, class_id: int | None = None) -> bytes | None:
        """All instances and detections of an image, or those of one class; marked are instances
        not found and detections that are false. None where there is no such picture file."""
        outcomes = self.outcomes
        rows = np.flatnonzero(outcomes.matches.image == image)
        rows = rows[outcomes.matches.score[rows] >= self.score_thr]
        missed = (outcomes.instance_image == image) & outcomes.to_find & ~outcomes.taken
        if class_id is None:
            rows = rows[~outcomes.copy[rows]]
            missed &= outcomes.instance_own
        else:
            rows = rows[outcomes.matches.class_id[rows] == class_id]
            missed &= outcomes.instance_class == class_id
        return self._draw(image, rows, outcomes.instance_source[missed].tolist())

    def detection(self, row: int) -> bytes | None:
        """One detection alone, and the instance that it is about marked in the ground truth."""
        target = self.outcomes.target[row]
        marked = [int(self.outcomes.instance_source[target])] if target >= 0 else []
        return self._draw(int(self.outcomes.matches.image[row]), np.array([row]), marked)

    def _draw(self, image: int, rows: np.ndarray, marked: list[int]) -> bytes | None:
        record = self.index.image(image)
        picture = self._open(record.image_id, record.width, record.height)
        if picture is None:
            return None
        matches = self.outcomes.matches
        read = self.submission.image(record.image_id)
        masks: list[Rle] = []
        for place in matches.detection[rows].tolist():
            assert read is not None  # its detections have outcomes
            masks.append({'size': [read.height, read.width], 'counts': inflate_text(
                read.detections[place].mask, read.height, read.width)})
        boxes = bbox(masks) if masks else np.zeros((0, 4))
        boxes[:, 2:] += boxes[:, :2]
        found = Instances(matches.class_id[rows], boxes, masks,
                          matches.score[rows],
                          marked=np.flatnonzero(matches.outcome[rows] == FALSE).tolist())
        least = math.floor(100 * matches.score[rows].min(initial=self.score_thr)) / 100
        sheet = draw_comparison(picture, record_instances(record, marked), found,
                                self.index.label_space.names, max_side=SIDE,
                                score_thr=least, title=record.image_id)
        out = io.BytesIO()
        sheet.save(out, 'JPEG', quality=_QUALITY)
        return out.getvalue()

    def _open(self, image_id: str, width: int, height: int) -> Image.Image | None:
        """The image at the size that the index says; None where it cannot be read."""
        if os.sep in image_id or image_id.startswith('.'):
            return None
        try:
            with open_regular(self.folder / f'{image_id}.jpg') as file:
                return Image.open(file).convert('RGB').resize((width, height))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, UserError):
            return None
