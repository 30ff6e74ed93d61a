"""A small demo data set, prepared once for all tests here."""

from pathlib import Path

import pytest

from projects.openimages.demo import make_demo_data
from tests.helpers import run_tool


@pytest.fixture(scope='session')
def demo_root(tmp_path_factory) -> Path:
    """24 training images in the official layout, prepared; not to be written into."""
    root = tmp_path_factory.mktemp('demo') / 'data'
    make_demo_data(root, num_images=24)
    result = run_tool('tools/prepare_data.py', '--data-root', root, '--split', 'train',
                      'validation', 'test')
    assert result.returncode == 0, result.stderr
    return root
