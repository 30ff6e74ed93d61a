"""The join of boxes and masks against pandas, whose order the official evaluator has."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from projects.openimages.metric import join_boxes_and_masks

KEYS = ['LabelName', 'ImageID', 'XMin', 'XMax', 'YMin', 'YMax', 'IsGroupOf']


def tables(max_rows=6):
    return st.integers(0, max_rows).flatmap(lambda rows: arrays.arrays(
        np.float64, (rows, len(KEYS)), elements=st.sampled_from((0.0, 0.5, 1.0))))


def join(boxes, masks):
    return [part.tolist() for part in join_boxes_and_masks(np.array(boxes, float).reshape(-1, 1),
                                                           np.array(masks, float).reshape(-1, 1))]


def test_equal_rows_are_joined_and_sorted():
    assert join([3, 1], [1, 2]) == [[1, -1, 0], [0, 1, -1]]


def test_every_box_is_paired_with_every_mask_of_its_key():
    assert join([5, 5], [5, 5]) == [[0, 0, 1, 1], [0, 1, 0, 1]]


def test_no_rows():
    assert join([], []) == [[], []]


@settings(deadline=None)
@given(tables(), tables())
def test_join_is_that_of_pandas(box_keys, mask_keys):
    boxes, masks = (pd.DataFrame(keys, columns=KEYS) for keys in (box_keys, mask_keys))
    boxes['box'], masks['mask'] = np.arange(len(boxes)), np.arange(len(masks))
    expected = pd.merge(boxes, masks, how='outer', on=KEYS)[['box', 'mask']].fillna(-1)
    result = np.stack(join_boxes_and_masks(box_keys, mask_keys), axis=1)
    assert result.tolist() == expected.astype(int).to_numpy().tolist()
