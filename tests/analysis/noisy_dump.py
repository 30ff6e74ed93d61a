"""A made-up dump of a prepared split that makes every kind of mistake, expanded."""

import numpy as np

from projects.openimages.analysis.causes import Cause, relations
from projects.openimages.data.index import PreparedIndex
from projects.openimages.masks import encode_text, rle_from_crop, rle_from_mask, rle_to_mask
from projects.openimages.submissions.formats import (
    Detection,
    ImageDetections,
    score_text,
    write_submission,
)
from projects.openimages.submissions.selection import select_detections


def noisy_dump(path, index_path, skill, seed=0):
    """Detections about the instances, the more of them right the higher the skill; Kaggle format.

    Wrong ones are moved, of a class that is in the image too or of a sibling, or on nothing.
    """
    random = np.random.default_rng(seed)
    index = PreparedIndex.open(index_path)
    space, related = index.label_space, relations(index.label_space)
    seen = np.unique(index.class_ids)
    images = []
    for row in range(index.num_images):
        height, width = int(index.heights[row]), int(index.widths[row])
        here = index.class_ids[index.instance_rows(row)].tolist()
        found = []

        def add(class_id, score, rle, found=found):
            found.append((int(class_id), np.float32(score), encode_text(rle['counts'])))

        for class_id, rle in zip(here, index.masks(row), strict=True):
            for _ in range(int(random.integers(0, 4)) if rle else 0):
                right, moved, named = random.random(3) < skill
                shift = 1 if moved else int(random.integers(1, width // 6))
                siblings = [c for c in seen if related[c, class_id] == Cause.SIBLING]
                if not named:
                    class_id = random.choice([*siblings, *here])
                add(class_id, random.beta(6, 2) if right else random.beta(2, 4),
                    rle_from_mask(np.roll(rle_to_mask(rle), shift, axis=1)))
        for _ in range(int(random.integers(1, 5))):
            x, y = random.integers(0, (width * 2 // 3, height * 2 // 3)).tolist()
            crop = np.ones((height // 4, width // 4), bool)
            add(random.choice([*here, *seen]), random.beta(1.5, 4),
                rle_from_crop(crop, x, y, height, width))
        kept = select_detections([c for c, _, _ in found], np.array([s for _, s, _ in found]),
                                 [mask for _, _, mask in found], label_space=space)
        images.append(ImageDetections(index.image_id(row), width, height, [
            Detection(space.mids[c], score_text(s), found[n][2])
            for n, c, s in zip(kept.rows, kept.class_ids, kept.scores, strict=True)]))
    with open(path, 'wb') as file:
        write_submission(file, images, 'kaggle')
    return path
