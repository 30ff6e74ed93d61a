"""``RleMasks`` where MMDetection takes masks: training without pixels, drawing, inference."""

import tracemalloc

import mmcv
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmdet.models.utils import mask2ndarray
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from projects.openimages.mm.structures.column_runs import ColumnRuns
from projects.openimages.mm.structures.rle_masks import RleMasks
from tests.helpers import REPOSITORY
from tests.mm.structures.random_masks import random_masks


@pytest.fixture
def no_pixels(monkeypatch):
    """Runs may not become pixels, nor pixels runs."""
    def refuse(*_):
        raise AssertionError('image-sized bitmaps')
    for name in ('to_pixels', 'from_pixels'):
        monkeypatch.setattr(ColumnRuns, name, refuse)


def training(demo_root, load: str):
    """The demo's model with random weights, and a batch of its data loaded one way or the other."""
    register_all_modules(init_default_scope=True)
    config = Config.fromfile(f'{REPOSITORY}/configs/oi_mask_rcnn_r50_demo.py')
    config.model.data_preprocessor.pad_mask = True
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    pipeline = [{'type': 'LoadImageFromFile'}, {'type': load, 'with_bbox': True, 'with_mask': True},
                {'type': 'Resize', 'scale': (128, 96), 'keep_ratio': True},
                {'type': 'RandomFlip', 'prob': 1.0}, {'type': 'PackInstances'}]
    dataset = DATASETS.build({**config.train_dataloader.dataset, 'data_root': str(demo_root),
                              'pipeline': pipeline})
    return model, pseudo_collate([dataset[number] for number in range(2)])


def losses(model, batch) -> dict[str, float]:
    torch.manual_seed(0)
    found = model(**model.data_preprocessor(batch, training=True), mode='loss')
    return {name: float(sum(value) if isinstance(value, list) else value)
            for name, value in found.items()}


def test_training_has_the_losses_it_has_with_bitmaps(demo_root):
    expected = losses(*training(demo_root, 'LoadAnnotations'))
    assert losses(*training(demo_root, 'LoadRleAnnotations')) == pytest.approx(expected, rel=1e-4)
    assert expected['loss_mask'] > 0.1


@pytest.mark.usefixtures('no_pixels')
def test_training_makes_no_bitmaps_from_the_index_to_the_loss(demo_root):
    model, batch = training(demo_root, 'LoadRleAnnotations')
    assert all(type(sample.gt_instances.masks) is RleMasks for sample in batch['data_samples'])
    assert losses(model, batch)['loss_mask'] > 0


def test_the_way_of_a_mask_to_a_loader_s_packed_item_takes_less_memory_than_a_bitmap():
    height, width = 768, 1024
    y, x = np.mgrid[:height, :width]
    discs = [coco_mask.encode(np.asfortranarray(np.hypot(y - 300, x - n) < 120).astype(np.uint8))
             for n in range(200, 800, 200)]
    tracemalloc.start()
    masks = RleMasks.from_rles(discs, height, width, boxes=np.zeros((3, 4)))
    masks = masks.rescale((1333, 800)).flip().crop(np.array([0, 0, 1000, 800])).pad((1024, 1024))
    masks = masks.translate((1024, 1024), 20)[np.array([2, 0])].without(masks[1:2])
    assert masks.get_bboxes().tensor.any() and len(masks.rles) == 2
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < height * width / 2


def sample_of(masks, scores) -> DetDataSample:
    boxes = torch.tensor([[2., 3., 20., 30.], [5., 5., 50., 35.], [0., 0., 9., 9.]])[:len(scores)]
    labels = torch.arange(len(scores))
    return DetDataSample(
        pred_instances=InstanceData(bboxes=boxes, labels=labels, scores=scores, masks=masks),
        gt_instances=InstanceData(bboxes=boxes, labels=labels, masks=masks))


def predictions(count: int) -> tuple[DetDataSample, DetDataSample]:
    """The same results with a tensor of masks, as MMDetection's heads give them, and with RLE."""
    pixels = random_masks(4, count, 40, 60)
    scores = torch.tensor([0.9, 0.1, 0.8])[:count]
    rles = [coco_mask.encode(np.asfortranarray(mask)) for mask in pixels]
    return (sample_of(torch.from_numpy(pixels) > 0, scores),
            sample_of(RleMasks.from_rles(rles, 40, 60), scores))


def test_the_visualizer_draws_the_same(tmp_path):
    image = np.full((40, 60, 3), 120, np.uint8)
    pictures = []
    for name, sample in zip(('stock.png', 'ours.png'), predictions(3), strict=True):
        visualizer = DetLocalVisualizer()
        visualizer.dataset_meta = {'classes': ('a', 'b', 'c'), 'palette': [(255, 0, 0)] * 3}
        np.random.seed(0)  # noqa: NPY002
        visualizer.add_datasample(name, image, sample, out_file=str(tmp_path / name),
                                  pred_score_thr=0.5)
        pictures.append(mmcv.imread(str(tmp_path / name)))
    assert np.array_equal(*pictures)
    assert (pictures[1] != 120).any()


@pytest.mark.parametrize('count', [3, 0])
def test_the_inferencer_gives_the_same(count):
    stock, ours = (DetInferencer.pred2dict(None, sample) for sample in predictions(count))
    assert ours == stock
    assert len(ours['masks']) == count


def test_helpers_of_mmdetection_take_it_for_bitmaps():
    pixels = random_masks(4, 3, 40, 60)
    assert np.array_equal(mask2ndarray(RleMasks(pixels, 40, 60)), pixels)
    assert type(BitmapMasks.cat([RleMasks(pixels, 40, 60)])) is BitmapMasks
