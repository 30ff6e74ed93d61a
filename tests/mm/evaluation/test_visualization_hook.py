"""Pictures of a test: one for each image that can be read, the first of them on one sheet."""

from types import SimpleNamespace

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from PIL import Image

from projects.openimages.masks import rle_from_mask
from projects.openimages.mm.evaluation.visualization_hook import ComparisonPicturesHook
from projects.openimages.visualization.drawing import montage
from tests.challenge.random_index import HEIGHT, WIDTH, make_index


def run(index, folder, unreadable=(), **options):
    """The hook over all images of the index, each with one prediction of the whole image."""
    dataset = SimpleNamespace(index=index, label_space=index.label_space, metainfo={})
    runner = SimpleNamespace(test_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset)))
    hook = ComparisonPicturesHook(str(folder), **options)
    hook.before_test(runner)
    whole = rle_from_mask(np.ones((HEIGHT, WIDTH), bool))
    for row in range(index.num_images):
        path = folder.parent / f'{row}.jpg'
        meta = {'image_id': index.image_id(row), 'img_path': str(path)}
        if row in unreadable:
            path.write_text('no image')
            meta['unreadable'] = 'not a readable image'
        else:
            Image.new('RGB', (WIDTH, HEIGHT)).save(path)
        found = InstanceData(labels=torch.tensor([1]), scores=torch.tensor([0.9]), masks=[whole],
                             bboxes=torch.tensor([[0., 0, WIDTH, HEIGHT]]))
        hook.after_test_iter(runner, row, outputs=[DetDataSample(metainfo=meta,
                                                                 pred_instances=found)])
    hook.after_test(runner)
    return {path.stem for path in folder.iterdir()}


def test_every_image_that_can_be_read_has_a_picture(tmp_path):
    index = make_index(tmp_path / 'index.arrow', num_images=4)
    ids = [index.image_id(row) for row in range(4)]
    names = run(index, tmp_path / 'out', unreadable=(2,))
    assert names == {ids[0], ids[1], ids[3], 'contact_sheet'}


def test_the_sheet_holds_the_first_pictures(tmp_path):
    index = make_index(tmp_path / 'index.arrow', num_images=5)
    run(index, tmp_path / 'out', sheet_images=3)
    first = [tmp_path / 'out' / f'{index.image_id(row)}.jpg' for row in range(3)]
    with Image.open(tmp_path / 'out' / 'contact_sheet.jpg') as sheet:
        assert sheet.size == montage([Image.open(path) for path in first]).size
