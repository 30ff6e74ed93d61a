"""Masks as polygons, with what is lost by that measured."""

from __future__ import annotations

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from projects.openimages.masks import Rle, bbox, iou, rle_to_mask

MAX_TOLERANCE = 1000.0
"""Pixels; the long side of most Open Images photos."""


def mask_to_polygons(rle: Rle, tolerance: float) -> tuple[list[list[float]], float]:
    """The outlines of a mask.

    COCO's polygons have no holes, so those are filled, and IoU says so. Outlines go round the
    pixels' outer sides rather than through their centres, which would shave half a pixel off.

    Args:
        rle: a mask with pixels.
        tolerance: pixels by which the outline may be simplified (Douglas-Peucker), at most
            ``MAX_TOLERANCE``.

    Returns:
        Polygons ``[x1, y1, x2, y2, ...]`` of at least three points, and the IoU of what
        pycocotools makes of them with the mask; no polygons and -1 if nothing would be left.
    """
    height, width = rle['size']
    x, y, w, h = bbox([rle])[0].astype(int).tolist()
    crop = rle_to_mask(rle)[y:y + h, x:x + w].astype(np.uint8)
    # Twice the size, so that the outer sides of pixels fall on whole numbers.
    doubled = np.pad(np.repeat(np.repeat(crop, 2, axis=0), 2, axis=1), 1)
    grown = cv2.dilate(doubled, np.ones((2, 2), np.uint8), anchor=(1, 1))
    contours, _ = cv2.findContours(grown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = []
    for contour in contours:
        outline = cv2.approxPolyDP(contour, 2 * tolerance, closed=True).reshape(-1, 2)
        if len(outline) < 3:
            continue
        points = (outline - 1) / 2 + (x, y)
        polygons.append(points.reshape(-1).tolist())
    if not polygons:
        return [], -1.0
    drawn = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return polygons, float(iou([drawn], [rle])[0, 0])
