"""COCO's metric takes run lengths for pixels."""

import json

import numpy as np
import pytest
import torch
from mmdet.registry import METRICS
from mmengine.registry import init_default_scope

from projects.openimages.mm.structures.rle_masks import RleMasks


def predictions(demo_root, kind: str) -> list[dict]:
    """For each image of the validation split, its objects a few pixels to the left."""
    truth = json.loads((demo_root / 'prepared/validation/coco.json').read_text())
    samples = []
    for image in truth['images']:
        objects = [item for item in truth['annotations']
                   if item['image_id'] == image['id'] and not item['iscrowd'] and item['area'] > 0]
        masks = RleMasks.from_rles([item['segmentation'] for item in objects], image['height'],
                                   image['width'])
        masks = masks.translate((image['height'], image['width']), -3)
        boxes = masks.get_bboxes().tensor
        masks = {'RleMasks': masks, 'RLE': masks.rles, 'pixels': masks.cpu()}[kind]
        samples.append({
            'img_id': image['id'], 'ori_shape': (image['height'], image['width']),
            'pred_instances': {
                'bboxes': boxes, 'scores': torch.linspace(1, 0.5, len(objects)), 'masks': masks,
                'labels': torch.tensor([item['category_id'] - 1 for item in objects],
                                       dtype=torch.long)}})
    return samples


def score(demo_root, metric: str, kind: str) -> dict[str, float]:
    init_default_scope('mmdet')
    truth = demo_root / 'prepared/validation/coco.json'
    names = [item['name'] for item in json.loads(truth.read_text())['categories']]
    evaluator = METRICS.build({'type': metric, 'ann_file': str(truth), 'metric': ['segm']})
    evaluator.dataset_meta = {'classes': names}
    samples = predictions(demo_root, kind)
    evaluator.process({}, samples)
    return evaluator.evaluate(len(samples))


@pytest.mark.parametrize('kind', ['RleMasks', 'RLE', 'pixels'])
def test_the_scores_are_those_of_pixels(demo_root, kind):
    expected = score(demo_root, 'CocoMetric', 'pixels')
    assert score(demo_root, 'RleCocoMetric', kind) == pytest.approx(expected, nan_ok=True)
    assert np.isfinite(expected['coco/segm_mAP']) and 0 < expected['coco/segm_mAP'] < 1
