"""A small data set in the official layout, and it prepared."""

import shutil
from pathlib import Path

import pytest

from projects.openimages.demo import make_demo_data
from tests.data.helpers import prepare


@pytest.fixture(scope='session')
def official_data(tmp_path_factory) -> Path:
    """Demo data as it is made; not to be changed."""
    folder = tmp_path_factory.mktemp('official') / 'data'
    make_demo_data(folder, num_images=24)
    return folder


@pytest.fixture
def data_root(official_data, tmp_path) -> Path:
    """A copy of the demo data to break."""
    return Path(shutil.copytree(official_data, tmp_path / 'data'))


@pytest.fixture(scope='session')
def prepared_data(official_data, tmp_path_factory) -> Path:
    """Demo data with all three splits prepared; not to be changed."""
    root = Path(shutil.copytree(official_data, tmp_path_factory.mktemp('prepared') / 'data'))
    for split in ('train', 'validation', 'test'):
        prepare(root, split)
    return root
