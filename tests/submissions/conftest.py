"""Prepared demo data and a dump on it, for tests of whole submissions."""

import pytest

from tests.submissions.fake_dump import fake_dump, prepare_demo


@pytest.fixture(scope='session')
def prepared(tmp_path_factory):
    """The folder of a prepared validation split of 8 images."""
    return prepare_demo(tmp_path_factory.mktemp('demo'))


@pytest.fixture
def dump(tmp_path, prepared):
    """A submission for it, not expanded, with scores below 1."""
    return fake_dump(tmp_path / 'dump.csv', prepared / 'index.arrow', seed=4)
