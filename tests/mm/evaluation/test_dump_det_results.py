"""The pickle of a test is the same for masks of pixels and of run lengths."""

import numpy as np
import torch

from projects.openimages.masks import rle_from_mask
from projects.openimages.mm.evaluation.dump_det_results import DumpPredictions

PIXELS = torch.zeros(2, 4, 5, dtype=torch.bool)
PIXELS[0, 1:3, 2:] = True


def results(tmp_path, masks):
    dump = DumpPredictions(out_file_path=str(tmp_path / 'out.pkl'))
    dump.process({}, [{'img_id': 7, 'gt_instances': {'labels': torch.zeros(1)}, 'pred_instances': {
        'scores': torch.tensor([0.5, 0.25]), 'masks': masks}}])
    return dump.results


def test_masks_of_both_kinds_are_kept_as_rles(tmp_path):
    [of_pixels] = results(tmp_path, PIXELS)
    [of_rles] = results(tmp_path, [rle_from_mask(np.asarray(mask)) for mask in PIXELS])
    assert of_pixels['pred_instances']['masks'] == of_rles['pred_instances']['masks']
    assert of_pixels['pred_instances']['scores'].tolist() == [0.5, 0.25]
    assert of_pixels['img_id'] == 7 and 'gt_instances' not in of_pixels
