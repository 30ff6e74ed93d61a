"""A small demo data set, prepared, and a training on it, once for all tests here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from projects.openimages.demo import make_demo_data
from tests.helpers import run_tool
from tests.mm.fake_wandb import write_fake_wandb

if TYPE_CHECKING:
    from tests.mm.engine.training_run import TrainedRun


@pytest.fixture(scope='session')
def demo_root(tmp_path_factory) -> Path:
    """24 training images in the official layout, prepared; not to be written into."""
    root = tmp_path_factory.mktemp('demo') / 'data'
    make_demo_data(root, num_images=24)
    result = run_tool('tools/prepare_data.py', '--data-root', root, '--split', 'train',
                      'validation', 'test')
    assert result.returncode == 0, result.stderr
    return root


@pytest.fixture(scope='session')
def trained(demo_root, tmp_path_factory) -> TrainedRun:
    """Two processes have trained three updates of eight images, two batches of two from each.

    They wrote to TensorBoard, and to a W&B that notes down what it is told.
    """
    # Registers a hook, so not before a test asks for it: others look at what importing `mm` does.
    from tests.mm.engine.training_run import TrainedRun, torchrun, write_config

    folder = tmp_path_factory.mktemp('two')
    config = write_config(
        folder, 'train_cfg = dict(max_iters=3, val_interval=3, images_per_update=8)\n')
    result = torchrun(
        'tools/train.py', config, '--work-dir', folder / 'work', '--log-to', 'tensorboard', 'wandb',
        '--cfg-options', f'data_root={demo_root}', witness=folder / 'order',
        PYTHONPATH=str(write_fake_wandb(folder)))
    assert result.returncode == 0, result.stderr[-3000:]
    return TrainedRun(config, folder / 'work', folder / 'order', result.stdout + result.stderr)


@pytest.fixture(scope='session')
def published(trained, tmp_path_factory) -> Path:
    """The training's checkpoint, to hand on."""
    from projects.openimages.mm.engine.publishing import publish

    return publish(trained.checkpoint, tmp_path_factory.mktemp('published') / 'model.pth')
