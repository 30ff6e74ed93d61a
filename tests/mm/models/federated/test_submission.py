"""A submission of a model that scores ancestor classes itself, through the command line."""

import torch

from projects.openimages.mm.datasets.openimages import OpenImagesInstanceDataset
from projects.openimages.mm.engine.config import build_model, load_config
from projects.openimages.mm.engine.hooks import training_classes
from projects.openimages.submissions.formats import Submission
from tests.helpers import REPOSITORY, run_tool

CONFIG = 'configs/oi_mask_rcnn_r50_federated_demo.py'


def test_asking_for_expansion_changes_nothing_and_says_so(demo_root, tmp_path):
    torch.manual_seed(0)
    model = build_model(load_config(REPOSITORY / CONFIG))
    model.init_weights()
    data = OpenImagesInstanceDataset(
        data_root=str(demo_root), ann_file='prepared/train/index.arrow',
        data_prefix={'img': 'images/train/'})
    loss = model.roi_head.bbox_head.loss_cls
    loss.set_training_classes(*map(torch.from_numpy, training_classes(data)))
    space = data.label_space
    leaf = next(c for c in range(space.num_classes) if space.ancestors(c))
    with torch.no_grad():
        model.roi_head.bbox_head.fc_cls.bias[leaf] = 20.0  # everything looks like one leaf
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'model.pth')
    texts = []
    for name, flag in (('a', '--expand-hierarchy'), ('b', '--no-expand-hierarchy')):
        out = tmp_path / f'{name}.csv'
        result = run_tool(
            'tools/test.py', CONFIG, tmp_path / 'model.pth', '--work-dir', tmp_path / name,
            '--submission', out, flag, '--cfg-options', f'data_root={demo_root}/',
            'model.test_cfg.rcnn.score_thr=0.5', 'model.test_cfg.rcnn.max_per_img=20')
        assert result.returncode == 0, result.stderr[-2000:]
        assert ('scores ancestor classes itself' in result.stdout + result.stderr) == (name == 'a')
        texts.append(out.read_bytes())
    assert texts[0] == texts[1]
    with Submission(tmp_path / 'a.csv') as submission:
        mids = {detection.mid for image in submission for detection in image.detections}
    assert mids == {space.mids[c] for c in (leaf, *space.ancestors(leaf))}
