"""A split of two images, line by line as the files of V6 are, in the folders of Datumaro and CVAT.

Headers, flags of -1, a class list with a header, a BoxID that looks like a number, one mask, and an
image of which only a label is known.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tests.data.helpers import open_prepared, prepare

FILES = {
    'annotations/oidv6-class-descriptions.csv':
        'LabelName,DisplayName\n/m/0,Fruit\n/m/1,"Pear, ripe"\n/m/2_,Mug\n/m/3,Only in images\n',
    'annotations/classes-segmentation.txt': '/m/2_\n/m/0\n/m/1\n',
    'annotations/bbox_labels_600_hierarchy.json': json.dumps({
        'LabelName': '/m/0bl9f', 'Subcategory': [
            {'LabelName': '/m/0', 'Subcategory': [{'LabelName': '/m/1'}]},
            {'LabelName': '/m/2_', 'Part': [{'LabelName': '/m/3'}]}]}),
    'annotations/oidv6-train-annotations-bbox.csv':
        'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,'
        'IsDepiction,IsInside,XClick1X,XClick2X,XClick3X,XClick4X,XClick1Y,XClick2Y,XClick3Y,'
        'XClick4Y\n'
        'b000,xclick,/m/1,1,0.2,1,0.25,0.5,-1,-1,-1,-1,-1,0.2,0.3,1,0.4,0.3,0.25,0.4,0.5\n'
        'b000,activemil,/m/0,1,0,1,0,1,-1,-1,1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1\n'
        'b000,xclick,/m/3,1,0,0.5,0,0.5,0,0,0,0,0,-1,-1,-1,-1,-1,-1,-1,-1\n',
    'annotations/train-annotations-object-segmentation.csv':
        'MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks\n'
        'b000_m1_05580497.png,b000,/m/1,05580497,0.200000,1.000000,0.249000,0.500000,0.85,'
        '0.25 0.3 1;0.9 0.1 0\n',
    'annotations/oidv6-train-annotations-human-imagelabels.csv':
        'ImageID,Source,LabelName,Confidence\na000,verification,/m/0,1\n'
        'b000,verification,/m/1,1\nb000,crowdsource-verification,/m/2_,0\n'
        'b000,verification,/m/09x0r,1\n',
    'annotations/image_ids_and_rotation.csv':
        'ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,'
        'OriginalSize,OriginalMD5,Thumbnail300KURL,Rotation\n'
        'a000,train,,,,,"Somebody, else","A ""title"", long",1,,,0.0\n'
        'b000,train,,,,,Anon,,2,,,270.0\n',
}


@pytest.fixture
def root(tmp_path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding='utf-8')
    for folder in ('images/train', 'masks/train'):
        (tmp_path / folder).mkdir(parents=True)
    for image_id in ('a000', 'b000'):
        Image.new('RGB', (10, 8)).save(tmp_path / f'images/train/{image_id}.jpg')
    mask = np.zeros((8, 10), np.uint8)
    mask[2:4, 2:9] = 255
    Image.fromarray(mask).convert('1').save(tmp_path / 'masks/train/b000_m1_05580497.png')
    return tmp_path


def test_files_as_they_are_published_are_prepared(root):
    prepare(root, 'train')
    index = open_prepared(root, 'train')
    assert index.label_space.mids == ('/m/2_', '/m/0', '/m/1')
    assert index.label_space.ancestors(2) == (1,)
    assert list(index.image_ids) == ['b000']  # of the other only a label is known
    image = index.image(0)
    assert image.class_ids.tolist() == [2, 1] and image.is_group_of.tolist() == [False, True]
    assert image.boxes.tolist() == [[0.2, 1, 0.25, 0.5], [0, 1, 0, 1]]
    assert coco_mask.decode(image.masks[0]).sum() == image.mask_area[0] == 14
    assert image.masks[1] is None
    assert dict(zip(image.label_class_ids.tolist(), image.label_present.tolist(),
                    strict=True)) == {2: True, 0: False}


def test_its_report_says_what_was_left_out_and_what_is_rotated(root):
    folder = prepare(root, 'train').folder
    report = json.loads((folder / 'report.json').read_text('utf-8'))
    counts = report['counts']
    assert (counts['label_rows'], counts['rows_of_other_images']) == (4, 1)
    assert counts['rows_of_other_classes'] == 2  # a box of /m/3 and a label of /m/09x0r
    assert set(report['problems']) == {'rotated_original', 'extra_image', 'unverified_class'}
    rotated, = report['problems']['rotated_original']['rows']
    assert rotated['image_id'] == 'b000' and rotated['row'] == 3
    assert '270.0 degrees' in rotated['message']
