"""COCO JSON, as pycocotools and LVIS's readers take it."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from projects.openimages.common.errors import UserError
from projects.openimages.data.export import coco as coco_module
from projects.openimages.data.export.coco import coco_image_id, write_coco
from projects.openimages.data.index import IndexColumns, write_index
from projects.openimages.labels import LabelSpace
from projects.openimages.masks import rle_from_mask
from tests.data.helpers import open_prepared, outputs, prepare

WIDTH, HEIGHT = 10, 8


def rectangle(left: int, right: int, top: int, bottom: int) -> bytes:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top:bottom, left:right] = 1
    return rle_from_mask(mask)['counts']


@pytest.fixture
def index_path(tmp_path):
    """Image a: a mask, a box without one, a group; image b: labels only. Classes A to D."""
    mask = rectangle(0, 3, 0, 4)
    columns = IndexColumns(
        image_ids=['a', 'b'], widths=np.array([WIDTH, WIDTH]), heights=np.array([HEIGHT, HEIGHT]),
        instance_offsets=np.array([0, 4, 4]), class_ids=np.array([0, 1, 1, 2]),
        boxes=np.array([[0, .3, 0, .5], [.52, .78, .26, .74], [.5, .5, 1, 1], [0, 1, .5, 1]]),
        is_group_of=np.array([False, False, False, True]), mask_area=np.array([12, 0, 0, 0]),
        mask_box=np.array([[0, 0, 3, 4], [0] * 4, [0] * 4, [0] * 4]),
        mask_offsets=np.array([0, *[len(mask)] * 4]), mask_data=mask,
        label_offsets=np.array([0, 4, 6]), label_class_ids=np.array([0, 1, 2, 3, 3, 0]),
        label_present=np.array([True, True, True, False, True, False]))
    space = LabelSpace(tuple('/m/0' + c for c in 'abcd'), tuple('ABCD'), np.zeros((4, 4), bool))
    write_index(tmp_path / 'index.arrow', columns, split='train', label_space=space)
    return tmp_path / 'index.arrow'


@pytest.fixture
def written(index_path) -> dict:
    write_coco(index_path.with_name('coco.json'), index_path)
    return json.loads(index_path.with_name('coco.json').read_text('utf-8'))


def test_box_without_mask_is_a_crowd_over_all_its_pixels(written):
    _, box, flat, group = written['annotations']
    assert (box['iscrowd'], flat['iscrowd'], group['iscrowd']) == (1, 1, 1)
    assert box['bbox'] == pytest.approx([5.2, 2.08, 2.6, 3.84])
    pixels = coco_mask.decode(box['segmentation'])
    assert pixels.shape == (HEIGHT, WIDTH)
    assert np.argwhere(pixels).tolist() == [[y, x] for y in range(2, 6) for x in range(5, 8)]
    assert np.argwhere(coco_mask.decode(flat['segmentation'])).tolist() == [[7, 5]]  # at the edge
    assert coco_mask.decode(group['segmentation']).sum() == 40


def test_verified_labels_are_in_the_images_as_lvis_has_them(written):
    lists = [{name.removesuffix('_category_ids'): ids for name, ids in image.items()
              if name.endswith('_category_ids')} for image in written['images']]
    assert lists == [
        # B has a box without a mask and C is a group: further detections of them may be right
        {'neg': [4], 'pos': [1, 2, 3], 'not_exhaustive': [2, 3]},
        {'neg': [1], 'pos': [4], 'not_exhaustive': [4]}]  # D is there, but not a box of it


def test_ids_depend_on_the_image_alone(written, index_path):
    """Fixed numbers: who has stored results by id must find them again."""
    assert coco_image_id('0001eeaf4aed83f9') == 7088850023488201
    assert [image['id'] for image in written['images']] == [coco_image_id('a'), coco_image_id('b')]
    assert {annotation['image_id'] for annotation in written['annotations']} == {coco_image_id('a')}
    assert [annotation['id'] for annotation in written['annotations']] == [1, 2, 3, 4]
    for image_id in ('a', 'b', 'ffffffffffffffff', '0000000000000000'):
        number = coco_image_id(image_id)
        assert int(float(number)) == number < 2 ** 53


def test_images_of_the_same_id_are_refused(index_path, monkeypatch):
    monkeypatch.setattr(coco_module, '_ID_BITS', 0)
    with pytest.raises(UserError, match='images a and b would get the same id'):
        write_coco(index_path.with_name('coco.json'), index_path)


@pytest.mark.parametrize('kind', ['segm', 'bbox'])
def test_whoever_finds_every_object_has_an_ap_of_one(prepared_data, kind):
    """Also of those objects that have a box only: a detection there is neither right nor wrong."""
    path = prepared_data / 'prepared/validation/coco.json'
    index = open_prepared(prepared_data, 'validation')
    assert (~index.has_mask & ~index.is_group_of).any()
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        found = truth.loadRes([
            {'image_id': a['image_id'], 'category_id': a['category_id'], 'score': 0.9 + 0.1 * crowd,
             'segmentation': inner(a['segmentation']) if crowd else a['segmentation']}
            for a in truth.anns.values() for crowd in [a['iscrowd']]])
        evaluation = COCOeval(truth, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def inner(segmentation: dict) -> dict:
    """The left half of a filled box: an object in it."""
    mask = coco_mask.decode(segmentation)
    columns = np.flatnonzero(mask.any(axis=0))
    mask[:, columns[(len(columns) + 1) // 2:]] = 0
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {**rle, 'counts': rle['counts'].decode()}


def test_no_coco_writes_and_leaves_none(data_root, prepared_data):
    prepare(data_root, 'validation')
    prepare(data_root, 'validation', coco=False)
    expected = outputs(prepared_data, 'validation')
    del expected['coco.json']
    assert outputs(data_root, 'validation') == expected
    assert prepare(data_root, 'validation', coco=False).reused
    assert not prepare(data_root, 'validation').reused
    assert outputs(data_root, 'validation') == outputs(prepared_data, 'validation')
