"""The MMEngine metric against the CSV of the same detections."""

import csv
import json
import threading

import numpy as np
import pytest
import torch

from projects.openimages.challenge.evaluate import EvaluatorFiles, evaluate_files
from projects.openimages.common.errors import UserError
from projects.openimages.data.export.tf_ground_truth import write_tf_ground_truth
from projects.openimages.masks import MaskError, encode_text, rle_from_mask
from projects.openimages.metric import match_image
from projects.openimages.mm.evaluation.challenge_metric import OpenImagesChallengeMetric
from projects.openimages.submissions.formats import score_text
from projects.openimages.submissions.selection import select_detections
from tests.challenge.random_index import HEIGHT, MIDS, WIDTH, detect, make_index
from tests.helpers import run_tool
from tests.mm.evaluation.metric_run import evaluate, samples

SIZE = 13


@pytest.fixture
def index(tmp_path):
    return make_index(tmp_path / 'index.arrow', num_images=SIZE, seed=5)


def score_csv(index, folder, **selection) -> float:
    """mAP of the submission of the same detections."""
    write_tf_ground_truth(folder, index.path)
    rows = ['ImageID,ImageWidth,ImageHeight,LabelName,Score,Mask']
    for row in range(SIZE):
        labels, scores, masks = detect(index, row)
        counts = [rle_from_mask(mask)['counts'] for mask in masks]
        chosen = select_detections(labels, scores, counts, **selection)
        for place, class_id, value in zip(chosen.rows, chosen.class_ids, chosen.scores,
                                          strict=True):
            rows.append(f'{index.image_id(row)},{WIDTH},{HEIGHT},{MIDS[class_id]},'
                        f'{score_text(value)},{encode_text(counts[place])}')
    (folder / 'found.csv').write_text('\n'.join(rows) + '\n')
    return evaluate_files(EvaluatorFiles(*(str(folder / name) for name in (
        'tf_boxes.csv', 'tf_labels.csv', 'label_map.pbtxt', 'found.csv', 'metrics.csv',
        'tf_segmentations.csv')))).mean_average_precision


def test_metric_is_the_number_of_the_csv(index, tmp_path):
    metrics = evaluate(index.path, range(SIZE), SIZE)
    assert metrics['openimages/mAP'] == score_csv(index, tmp_path, label_space=index.label_space)


def test_metric_is_the_number_of_the_csv_with_threshold_and_cap(index, tmp_path):
    metrics = evaluate(index.path, range(SIZE), SIZE, expand_hierarchy=False, score_thr=0.3,
                       max_per_img=5)
    assert metrics['openimages/mAP'] == score_csv(index, tmp_path, score_thr=0.3, max_per_img=5)


def test_padded_images_count_once(index):
    assert evaluate(index.path, [*range(SIZE), 0, 1], SIZE + 2) == \
        evaluate(index.path, range(SIZE), SIZE)


def test_order_of_the_images_does_not_matter(index):
    assert evaluate(index.path, range(SIZE)[::-1], SIZE) == \
        evaluate(index.path, range(SIZE), SIZE)


def test_two_processes_give_the_number_of_one(index, tmp_path):
    out = tmp_path / 'metrics.json'
    result = run_tool('-m', 'tests.mm.evaluation.metric_run', index.path, out, 2, SIZE)
    assert result.returncode == 0, result.stderr
    expected = evaluate(index.path, range(SIZE), SIZE, coco_thresholds=True)
    np.testing.assert_equal(json.loads(out.read_text()), expected)


def test_groups_and_thresholds_are_reported(index):
    metrics = evaluate(index.path, range(SIZE), SIZE, train_index=index.path,
                       frequency_bounds=(6, 8), coco_thresholds=True)
    assert list(metrics) == [f'openimages/{name}' for name in (
        'mAP', 'mAP_leaves', 'mAP_parents', 'mAP_frequent', 'mAP_common', 'mAP_rare',
        'mAP_50_95')]
    assert 0 < metrics['openimages/mAP_50_95'] < metrics['openimages/mAP']


@pytest.fixture
def held_up(monkeypatch):
    """Matching waits until this event is set."""
    event = threading.Event()

    def match(*args, **options):
        assert event.wait(60)
        return match_image(*args, **options)

    monkeypatch.setattr('projects.openimages.mm.evaluation.challenge_metric.match_image', match)
    yield event
    event.set()


def test_model_goes_on_while_images_are_matched(index, held_up):
    metric = OpenImagesChallengeMetric(index.path)
    for sample in samples(metric, range(SIZE)):
        metric.process(None, [sample])
    assert metric.results == []
    held_up.set()
    assert metric.evaluate(SIZE) == evaluate(index.path, range(SIZE), SIZE)


def test_only_so_many_images_wait(index, held_up, monkeypatch):
    monkeypatch.setattr('projects.openimages.mm.evaluation.challenge_metric._WAITING', 2)
    metric = OpenImagesChallengeMetric(index.path)
    handed_in = []

    def model():
        for sample in samples(metric, range(SIZE)):
            metric.process(None, [sample])
            handed_in.append(sample)

    thread = threading.Thread(target=model)
    thread.start()
    thread.join(1)
    assert thread.is_alive() and len(handed_in) == 3  # one is being matched
    held_up.set()
    thread.join(60)
    assert metric.evaluate(SIZE) == evaluate(index.path, range(SIZE), SIZE)


@pytest.mark.parametrize('position', [0, SIZE - 1])
def test_error_of_the_matching_thread_surfaces(index, position):
    metric = OpenImagesChallengeMetric(index.path)
    batch = list(samples(metric, range(SIZE)))
    batch[position]['pred_instances']['masks'] = torch.ones((1, 3, 3), dtype=torch.bool)
    batch[position]['pred_instances']['labels'] = torch.tensor([0])
    batch[position]['pred_instances']['scores'] = torch.tensor([0.5])
    with pytest.raises(MaskError, match='masks of different sizes'):
        for sample in batch:
            metric.process(None, [sample])
        metric.evaluate(SIZE)


def test_memory_holds_no_masks(index):
    metric = OpenImagesChallengeMetric(index.path)
    metric.process(None, list(samples(metric, [0])))
    metric.finish()
    result, = metric.results
    parts = [result.positives, *vars(result.matches[0]).values()]
    assert all(isinstance(part, np.ndarray) and part.ndim == 1 for part in parts)


def test_masks_may_be_rles(index):
    metric = OpenImagesChallengeMetric(index.path)
    for sample in samples(metric, range(SIZE)):
        masks = sample['pred_instances']['masks'].numpy()
        sample['pred_instances']['masks'] = [rle_from_mask(mask) for mask in masks]
        metric.process(None, [sample])
    assert metric.evaluate(SIZE) == evaluate(index.path, range(SIZE), SIZE)


def test_labels_may_be_some_of_the_classes(index):
    metric = OpenImagesChallengeMetric(index.path, expand_hierarchy=False)
    metric.dataset_meta = {'mids': (MIDS[3], MIDS[1])}
    masks = torch.ones((1, HEIGHT, WIDTH), dtype=torch.bool)
    metric.process(None, [{'image_id': index.image_id(row), 'pred_instances': {
        'labels': torch.tensor([1]), 'scores': torch.tensor([0.5]), 'masks': masks}}
        for row in range(SIZE)])
    metric.finish()
    found = np.concatenate([result.matches[0].class_id for result in metric.results])
    assert set(found.tolist()) == {1}


def test_unreadable_image_has_no_detections(index):
    metric = OpenImagesChallengeMetric(index.path)
    sample, = samples(metric, [0])
    metric.process(None, [{**sample, 'unreadable': 'truncated'}])
    metric.finish()
    assert len(metric.results[0].matches[0]) == 0


def test_table_is_written_worst_first(index, tmp_path):
    evaluate(index.path, range(SIZE), SIZE, train_index=index.path,
             table_file=str(tmp_path / 'classes.csv'))
    with open(tmp_path / 'classes.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    values = [float(row['AP']) for row in rows]
    assert values == sorted(values) and len(rows) == len(MIDS)
    assert {'train images', 'positives', 'name'} <= set(rows[0])


def test_wrong_options_fail_at_once(index, tmp_path):
    with pytest.raises(ValueError, match='expected one of ap, frequency'):
        OpenImagesChallengeMetric(index.path, sort_by='AP')
    with pytest.raises(UserError, match='no such prepared index'):
        OpenImagesChallengeMetric(str(tmp_path / 'nothing.arrow'))
