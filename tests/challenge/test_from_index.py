"""Ground truth from the index against the evaluator's CSVs that are written from it."""

import numpy as np
import pytest

from evaluation.tf_challenge import run_official
from projects.openimages.challenge.csv_tables import ChallengeTables
from projects.openimages.challenge.evaluate import EvaluatorFiles
from projects.openimages.challenge.from_index import (
    IndexGroundTruth,
    as_the_evaluator_reads,
    train_image_counts,
)
from projects.openimages.data.export.tf_ground_truth import write_tf_ground_truth
from projects.openimages.masks import encode_text, rle_from_mask
from projects.openimages.metric import (
    Detections,
    Matches,
    count_positives,
    match_image,
    score,
)
from tests.challenge.random_index import HEIGHT, MIDS, WIDTH, detect, make_index


def csv_files(index, folder) -> EvaluatorFiles:
    """The ground truth of an index and detections as CSVs."""
    write_tf_ground_truth(folder, index.path)
    rows = ['ImageID,ImageWidth,ImageHeight,LabelName,Score,Mask']
    for row in range(index.num_images):
        for label, value, mask in zip(*detect(index, row), strict=True):
            text = encode_text(rle_from_mask(mask)['counts'])
            rows.append(f'{index.image_id(row)},{WIDTH},{HEIGHT},{MIDS[label]},{value},{text}')
    (folder / 'found.csv').write_text('\n'.join(rows) + '\n')
    return EvaluatorFiles(*(str(folder / name) for name in (
        'tf_boxes.csv', 'tf_labels.csv', 'label_map.pbtxt', 'found.csv', 'metrics.csv',
        'tf_segmentations.csv')))


@pytest.mark.parametrize('seed', range(4))
def test_index_scores_as_the_csvs_written_from_it(tmp_path, seed):
    index = make_index(tmp_path / 'index.arrow', seed=seed)
    truth = IndexGroundTruth(index)
    parts, positives = [], np.zeros(len(MIDS), np.int64)
    for row in range(index.num_images):
        labels, scores, masks = detect(index, row)
        found = Detections(labels, scores.astype(float), [rle_from_mask(mask) for mask in masks])
        parts += match_image(truth.image(row), found, image=row)
        positives += count_positives(truth.image(row), len(MIDS))
    result = score(Matches.concatenate(parts), positives)
    official = run_official(csv_files(index, tmp_path))
    values = [result.mean_average_precision, *result.average_precisions.tolist()]
    np.testing.assert_array_equal(values, list(official.values()))
    assert 0 < result.mean_average_precision < 1


def test_instances_are_those_of_the_csvs_bit_for_bit(tmp_path):
    index = make_index(tmp_path / 'index.arrow', num_images=30, seed=9)
    truth = IndexGroundTruth(index)
    files = csv_files(index, tmp_path)
    tables: ChallengeTables = files.read()
    for place, image_id in enumerate(tables.images.ids):
        ours = truth.image(index.find(image_id))
        theirs = tables.truth.image(place)
        assert sorted(set(ours.verified.tolist())) == sorted(set(theirs.verified.tolist()))
        for name in ('class_ids', 'boxes', 'is_group_of'):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        assert list(ours.masks) == list(theirs.masks)


def test_numbers_are_read_as_pandas_reads_them():
    value = 0.13436424411240122  # pandas' parser gives the float next to it
    assert as_the_evaluator_reads(np.array([[value, 0.5]]))[0, 1] == 0.5
    assert abs(as_the_evaluator_reads(np.array([value]))[0] - value) <= np.spacing(value)
    assert as_the_evaluator_reads(np.zeros((0, 4))).shape == (0, 4)


def test_training_images_are_counted_once_a_class_and_for_ancestors(tmp_path):
    index = make_index(tmp_path / 'index.arrow', num_images=20, seed=3)
    expected = np.zeros(len(MIDS), int)
    for row in range(index.num_images):
        record = index.image(row)
        found = set()
        for class_id, mask in zip(record.class_ids.tolist(), record.masks, strict=True):
            if mask is not None:
                found |= {class_id, *index.label_space.ancestors(class_id)}
        expected[sorted(found)] += 1
    assert train_image_counts(index).tolist() == expected.tolist()
