"""A model's predictions are read the same way whatever they come as."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from projects.openimages.masks import rle_from_mask, to_rles
from projects.openimages.mm.evaluation.predictions import (
    classes_of_labels,
    select_predictions,
    to_instances,
)
from tests.challenge.random_index import MIDS, label_space
from tests.helpers import REPOSITORY

PIXELS = np.zeros((2, 4, 5), bool)
PIXELS[0, 1:3, 2:] = PIXELS[1, 0, 0] = True
RLES = [rle_from_mask(mask) for mask in PIXELS]
MASKS = [RLES, PIXELS, torch.from_numpy(PIXELS), PIXELS.astype(np.uint8)]


@pytest.mark.parametrize('masks', MASKS, ids=['RLE', 'array', 'tensor', 'bytes'])
def test_masks_of_every_kind_become_the_same_rles(masks):
    assert to_rles(masks) == RLES
    assert to_rles(masks[:0]) == []


def test_reading_masks_needs_no_torch():
    code = 'import sys, projects.openimages.masks; sys.exit("torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], cwd=REPOSITORY, check=False).returncode == 0


def predictions(masks=RLES) -> InstanceData:
    return InstanceData(labels=torch.tensor([1, 0]), scores=torch.tensor([0.5, 0.25]).half(),
                        bboxes=torch.tensor([[2., 1, 5, 3], [0, 0, 1, 1]]), masks=masks)


def test_labels_of_some_of_the_classes_are_put_into_the_index_s():
    chosen = classes_of_labels(label_space(), {'mids': (MIDS[3], MIDS[1])})
    assert chosen.tolist() == [3, 1]
    assert classes_of_labels(label_space(), None).tolist() == [0, 1, 2, 3]
    assert to_instances(predictions(), chosen).labels.tolist() == [1, 3]
    assert to_instances(predictions()).labels.tolist() == [1, 0]


@pytest.mark.parametrize(('options', 'classes', 'scores'), [
    ({}, [1, 3], [0.5, 0.25]), ({'expand_hierarchy': True}, [1, 3, 0], [0.5, 0.25, 0.5]),
    ({'score_thr': 0.3}, [1], [0.5]), ({'max_per_img': 1}, [1], [0.5])])
def test_threshold_cap_and_expansion_apply(options, classes, scores):
    defaults = {'score_thr': 0., 'max_per_img': None, 'expand_hierarchy': False}
    chosen, masks = select_predictions(predictions(), np.array([3, 1]), label_space(),
                                       **{**defaults, **options})
    assert chosen.class_ids.tolist() == classes and chosen.scores.tolist() == scores
    assert chosen.scores.dtype == np.float32 and masks == RLES


def test_a_detector_of_boxes_only_can_be_drawn():
    boxes = predictions()
    del boxes.masks
    assert to_instances(boxes).masks is None
