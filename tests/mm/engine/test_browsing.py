"""What is drawn of a training is what its loader gives, ignored instances marked."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from PIL import Image

from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine.browsing import as_picture, describe, instances_of
from projects.openimages.mm.structures.rle_masks import RleMasks
from tests.helpers import REPOSITORY, run_main

PIXELS = np.zeros((3, 4, 6), bool)
PIXELS[0, 1:3, 2:5] = True
BOXES = [[2., 1, 5, 3], [0, 0, 4, 4], [1, 1, 3, 3]]


def sample(masks):
    """One instance with a mask to learn from; a group and a box without mask to ignore."""
    def part(rows, **more):
        return InstanceData(labels=torch.tensor(rows), bboxes=torch.tensor(BOXES)[rows],
                            masks=masks[np.array(rows)], **more)

    meta = {'image_id': 'abc', 'img_shape': (4, 6), 'flip': True}
    return DetDataSample(metainfo=meta, gt_instances=part([0]), ignored_instances=part(
        [1, 2], group_of=torch.tensor([True, False])))


@pytest.mark.parametrize('masks', [BitmapMasks(PIXELS.astype(np.uint8), 4, 6),
                                   RleMasks(PIXELS, 4, 6)], ids=['bitmaps', 'run lengths'])
def test_ignored_instances_are_marked_and_lack_masks(masks):
    found = instances_of(sample(masks))
    assert list(found.labels) == [0, 1, 2] and found.boxes == BOXES
    assert [mask is not None for mask in found.masks] == [True, False, False]
    assert list(found.group_of) == [False, True, False]
    assert list(found.marked) == [1, 2]
    assert describe(sample(masks)) == 'abc  6×4, flipped: 1 learnt, 2 ignored (!), 1 group-of'


def test_packed_images_are_turned_to_rgb():
    image = torch.zeros(3, 2, 5, dtype=torch.uint8)
    image[0] = 7  # blue
    assert as_picture(image).shape == (2, 5, 3) and as_picture(image)[0, 0].tolist() == [0, 0, 7]


def test_the_command_draws_the_loaders_images_and_a_seed_gives_the_same(demo_root, tmp_path,
                                                                       monkeypatch, capsys):
    config = REPOSITORY / 'configs' / 'oi_mask_rcnn_r50_demo.py'
    names = []
    for name, seed, num in (('a', 0, 2), ('b', 0, 2), ('c', 1, 13)):
        names.append(tmp_path / f'{name}.jpg')
        run_main(monkeypatch, 'tools/browse_pipeline.py', config, '--out', names[-1], '--num', num,
                 '--seed', seed, '--cfg-options', f'data_root={demo_root}')
    first, second, third = (np.asarray(Image.open(path)) for path in names)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third[:len(first), :first.shape[1]])
    assert str(tmp_path / 'c-2.jpg') in capsys.readouterr().out  # two pages
    with pytest.raises(UserError, match='--num 0'):
        run_main(monkeypatch, 'tools/browse_pipeline.py', config, '--out', names[0], '--num', 0)
