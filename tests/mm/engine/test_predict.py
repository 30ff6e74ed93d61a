"""Inference for people: overlays and JSON from a checkpoint."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from PIL import Image

from projects.openimages.common.errors import UserError
from projects.openimages.masks import area
from projects.openimages.mm.engine.config import use_tta
from projects.openimages.mm.engine.predict import Predictor, find_images
from projects.openimages.mm.engine.predict import predict as predict_images
from projects.openimages.visualization.drawing import MOST_DRAWN, PADDING, TEXT_SIZE
from tests.helpers import REPOSITORY, assert_one_line_error, run_tool

CONFIG = 'configs/oi_mask_rcnn_r50_demo_tta.py'
NAMES = ('Teddy bear', 'Café, noir', 'Cat')
CLASSES = '--cfg-options', 'num_classes=3'


@pytest.fixture(scope='module')
def workplace(tmp_path_factory):
    """Random weights with class names as a checkpoint, and two images of one name."""
    folder = tmp_path_factory.mktemp('predict')
    register_all_modules(init_default_scope=True)
    config = Config.fromfile(REPOSITORY / CONFIG)
    config.model.roi_head.bbox_head.num_classes = config.model.roi_head.mask_head.num_classes = 3
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    meta = {'dataset_meta': {'classes': NAMES, 'mids': ('/m/0a', '/m/0b', '/m/0c')}}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, folder / 'model.pth')
    for name in ('photos/one.jpg', 'photos/two.jpg', 'more/one.jpg'):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        Image.effect_mandelbrot((64, 48), (-2, -1, 1, 1), 50).convert('RGB').save(path)
    return folder


def predict(workplace, *images, out, options=CLASSES, checkpoint='model.pth'):
    return run_tool('tools/predict.py', CONFIG, workplace / checkpoint, *images, '--out', out,
                    '--score-thr', 0.05, '--device', 'cpu', *options)


def test_folder_and_glob_give_overlays_and_json(workplace, tmp_path):
    result = predict(workplace, workplace / 'photos', workplace / 'mor*' / '*.jpg', out=tmp_path)
    assert result.returncode == 0, result.stderr
    entries = json.loads((tmp_path / 'detections.json').read_text(encoding='utf-8'))
    assert [entry['overlay'] for entry in entries] == ['one.jpg', 'two.jpg', 'one_2.jpg']
    for entry in entries:
        assert (entry['width'], entry['height']) == (64, 48)
        assert len(entry['detections']) > MOST_DRAWN  # the others are a line below the picture
        assert Image.open(tmp_path / entry['overlay']).size == (128, 96 + TEXT_SIZE + 2 * PADDING)
        for found in entry['detections']:
            assert found['class'] in NAMES and found['mid'].startswith('/m/0')
            assert found['score'] >= 0.05 and found['mask']['size'] == [48, 64]
            found['mask']['counts'] = found['mask']['counts'].encode()
            assert area([found['mask']])[0] <= 64 * 48


@pytest.fixture
def config():
    config = Config.fromfile(REPOSITORY / CONFIG)
    config.model.roi_head.bbox_head.num_classes = config.model.roi_head.mask_head.num_classes = 3
    return config


def test_views_are_averaged_on_request(workplace, config):
    use_tta(config)
    found = Predictor(config, workplace / 'model.pth')(workplace / 'photos' / 'one.jpg')
    assert len(found.labels) == len(found.masks) > 0


@pytest.fixture
def spoilt(workplace, tmp_path):
    """One image cut short, one that is text, one whole."""
    whole = (workplace / 'photos' / 'one.jpg').read_bytes()
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images' / 'cut.jpg').write_bytes(whole[:len(whole) // 2])
    (tmp_path / 'images' / 'text.jpg').write_text('not an image')
    (tmp_path / 'images' / 'whole.jpg').write_bytes(whole)
    return tmp_path / 'images'


def test_unreadable_image_is_named_and_nothing_is_half_written(workplace, tmp_path, spoilt):
    result = predict(workplace, spoilt, out=tmp_path / 'out')
    assert_one_line_error(result, 'cut.jpg: not a readable image (the file is cut short)',
                          '--skip-bad')
    assert not (tmp_path / 'out' / 'detections.json').exists()


def test_unreadable_images_are_skipped_on_request(workplace, config, tmp_path, spoilt):
    predictor = Predictor(config, workplace / 'model.pth')
    said = list(predict_images(predictor, find_images([str(spoilt)]), tmp_path / 'out',
                               score_thr=0.05, skip_bad=True))
    assert [line.endswith('skipped') for line in said] == [True, True]
    entries = json.loads((tmp_path / 'out' / 'detections.json').read_text())
    assert [bool(entry['detections']) for entry in entries] == [False, False, True]


def test_checkpoint_of_another_class_count_is_one_line(workplace, tmp_path):
    result = predict(workplace, workplace / 'photos', out=tmp_path, options=())
    assert_one_line_error(result, 'trained for 3 classes, the config is for 300', 'num_classes=3')


def test_checkpoints_that_are_none_are_named(workplace, config, tmp_path):
    (tmp_path / 'text.pth').write_text('nothing')
    stored = torch.load(workplace / 'model.pth')
    torch.save({**stored, 'meta': {}}, tmp_path / 'nameless.pth')
    stored['state_dict'].pop('backbone.conv1.weight')
    torch.save(stored, tmp_path / 'other.pth')
    for name, message in (('no', 'no such file'), ('text', '.*'),
                          ('nameless', 'no class names'),
                          ('other', r'does not fit the config: .*backbone\.conv1\.weight is miss')):
        with pytest.raises(UserError, match=rf'{name}\.pth: {message}'):
            Predictor(config, tmp_path / f'{name}.pth')


ELSEWHERE = '''
import sys
from mmdet.apis import DetInferencer, inference_detector, init_detector

config, checkpoint, image = sys.argv[1:]
found = DetInferencer(config, checkpoint, device='cpu', show_progress=False)(
    image, out_dir='out', no_save_pred=False, pred_score_thr=0.05)['predictions'][0]
model = init_detector(config, checkpoint, device='cpu')
sample = inference_detector(model, image)
assert found['scores'] == sample.pred_instances.scores.tolist() != []
print(model.dataset_meta['classes'], len(found['masks']))
'''


def test_mmdetection_s_own_inference_needs_no_data_and_draws_from_any_folder(workplace, tmp_path):
    text = f"_base_ = '{REPOSITORY / CONFIG}'\nmodel = dict(roi_head=dict(" \
           'bbox_head=dict(num_classes=3), mask_head=dict(num_classes=3)))'
    (tmp_path / 'three.py').write_text(text)
    result = subprocess.run(
        [sys.executable, '-c', ELSEWHERE, 'three.py', workplace / 'model.pth',
         workplace / 'photos' / 'one.jpg'], cwd=tmp_path, text=True, capture_output=True,
        check=False, env={**os.environ, 'PYTHONPATH': str(REPOSITORY)})
    assert result.returncode == 0, result.stderr[-2000:]
    assert str(NAMES) in result.stdout
    drawn, photo = (np.asarray(Image.open(path)) for path in (
        tmp_path / 'out' / 'vis' / 'one.jpg', workplace / 'photos' / 'one.jpg'))
    assert drawn.shape == photo.shape
    assert (np.abs(drawn.astype(int) - photo) > 60).mean() > 0.05


def test_no_images_is_one_line(tmp_path):
    (tmp_path / 'empty').mkdir()
    for source in (tmp_path / 'empty', tmp_path / '*.jpg', tmp_path / 'no.jpg'):
        with pytest.raises(UserError, match='no images'):
            find_images([str(source)])


def test_images_named_twice_are_taken_once(workplace):
    folder = workplace / 'photos'
    assert find_images([str(folder), str(folder / 'two.jpg')]) == [folder / 'one.jpg',
                                                                   folder / 'two.jpg']
