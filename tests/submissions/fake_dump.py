"""Prepared demo data and made-up detections on it, for tests of whole submissions."""

import numpy as np

from projects.openimages.challenge.evaluate import EvaluatorFiles, evaluate_files
from projects.openimages.data.index import PreparedIndex
from projects.openimages.demo import make_demo_data
from projects.openimages.masks import encode_text, rle_from_mask, rle_to_mask
from projects.openimages.submissions.formats import (
    Detection,
    ImageDetections,
    Submission,
    score_text,
    write_submission,
)
from projects.openimages.submissions.selection import select_detections
from tests.helpers import run_tool


def prepare_demo(folder, num_images=40):
    """Demo data with a prepared validation split; returns the split's prepared folder."""
    make_demo_data(folder, num_images=num_images, seed=3)
    result = run_tool('tools/prepare_data.py', '--data-root', folder, '--split', 'validation')
    assert result.returncode == 0, result.stderr
    return folder / 'prepared' / 'validation'


def fake_dump(path, index_path, seed=0, skill=0.6):
    """A submission, not expanded, of detections that are often right; more often with skill."""
    random = np.random.default_rng(seed)
    index = PreparedIndex.open(index_path)
    images = []
    for row in range(index.num_images):
        width, height = int(index.widths[row]), int(index.heights[row])
        detections = []
        for n, rle in zip(range(*index.instance_offsets[row:row + 2]), index.masks(row),
                          strict=True):
            for _ in range(int(random.integers(0, 4)) if rle else 0):
                right = random.random() < skill
                mask = np.roll(rle_to_mask(rle), random.integers(0, 3 if right else 40), axis=1)
                class_id = (index.class_ids[n] if random.random() < skill
                            else random.integers(index.label_space.num_classes))
                score = np.float32(random.random() * 0.5 + 0.5 * right).round(2)
                detections.append(Detection(index.label_space.mids[class_id], score_text(score),
                                            encode_text(rle_from_mask(mask)['counts'])))
        images.append(ImageDetections(index.image_id(row), width, height, detections))
    with open(path, 'wb') as file:
        write_submission(file, images, 'kaggle')
    return path


def reselect(source, out, label_space, *, expand, **options):
    """The submission that a dump with these options would have written."""
    with Submission(source) as submission, open(out, 'wb') as file:
        images = []
        for image in submission:
            class_ids = [label_space.ids[d.mid] for d in image.detections]
            scores = np.array([d.score for d in image.detections], np.float32)
            masks = [d.mask for d in image.detections]
            kept = select_detections(class_ids, scores, masks, **options,
                                     label_space=label_space if expand else None)
            images.append(image._replace(detections=[
                Detection(label_space.mids[c], score_text(s), masks[n])
                for n, c, s in zip(kept.rows, kept.class_ids, kept.scores, strict=True)]))
        write_submission(file, images, 'kaggle')
    return out


def evaluate(prepared, predictions, out):
    """Our evaluator's mAP of a submission."""
    return evaluate_files(EvaluatorFiles(
        str(prepared / 'tf_boxes.csv'), str(prepared / 'tf_labels.csv'),
        str(prepared / 'label_map.pbtxt'), str(predictions), str(out),
        str(prepared / 'tf_segmentations.csv')), workers=1).mean_average_precision

