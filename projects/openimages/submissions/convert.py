"""From one submission format to the other, without loss.

Scores and masks are handed through as text. What the TF format cannot hold is an image without
detections; the way back restores such rows from a list of the images.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import atomic_write, refuse_to_overwrite
from projects.openimages.common.progress import progress
from projects.openimages.submissions.formats import (
    KAGGLE,
    ImageDetections,
    Submission,
    write_submission,
)
from projects.openimages.submissions.image_list import ImageSizes


def convert(source: str | os.PathLike, out: str | os.PathLike, submission_format: str,
            images: ImageSizes | None = None) -> tuple[int, int, int]:
    """Write ``source`` in a format.

    Args:
        source: a CSV of either format.
        out: the CSV to write.
        submission_format: ``'kaggle'`` or ``'tf'``.
        images: write exactly these, in this order; None takes the file's.

    Returns:
        How many images, detections, and images without detections it has.

    Raises:
        UserError: a broken row, an image that is not in ``images``, one of unknown size, or
            ``out`` is ``source``.
    """
    refuse_to_overwrite(out, source)
    empty = 0

    def counted(items: Iterator[ImageDetections]) -> Iterator[ImageDetections]:
        nonlocal empty
        for item in items:
            empty += not item.detections
            yield item

    with Submission(source) as submission:
        items = iter(submission) if images is None else _listed(submission, images,
                                                                 submission_format)
        total = len(submission if images is None else images)
        with atomic_write(out, 'wb') as file:
            return *write_submission(file, counted(progress(items, total=total, desc='convert',
                                                            unit='img')), submission_format), empty


def _listed(submission: Submission, images: ImageSizes,
            submission_format: str) -> Iterator[ImageDetections]:
    for image_id in submission.image_ids:
        if image_id not in images:
            image = submission.image(image_id)
            raise UserError(f'image {image_id} is not in the list of images',
                            path=submission.path, row=image.row if image else None)
    for image_id, size in images.items():
        image = submission.image(image_id)
        if image is None:
            if size is None and submission_format == KAGGLE:
                raise UserError(f'image {image_id} has no row and the list of images no sizes: '
                                'give a list with sizes', path=submission.path)
            image = ImageDetections(image_id, *(size or (0, 0)), [])
        yield image
