"""A server of whatever is put into its folder, and one of the demo data."""

from pathlib import Path

import pytest

from projects.openimages.demo import make_demo_data
from tests.download.mirror import publish_challenge, publish_v7
from tests.download.server import serving


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / 'served'
    folder.mkdir()
    with serving(folder) as running:
        yield running


@pytest.fixture(scope='session')
def demo(tmp_path_factory) -> Path:
    """Demo data as it is made; not to be changed."""
    folder = tmp_path_factory.mktemp('demo') / 'data'
    make_demo_data(folder, num_images=32)
    return folder


@pytest.fixture
def challenge(demo, server):
    """A mirror of the challenge."""
    publish_challenge(demo, server.folder)
    return server


@pytest.fixture
def v7(demo, server):
    """A mirror of the full release."""
    publish_v7(demo, server.folder)
    return server


@pytest.fixture
def root(tmp_path) -> Path:
    """A data root that is not there yet."""
    return tmp_path / 'data'
