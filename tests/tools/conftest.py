"""A prepared split of demo data and a dump of it, for tests of the command lines."""

from pathlib import Path

import pytest

from tests.submissions.fake_dump import fake_dump, prepare_demo


@pytest.fixture(scope='session')
def data_root(tmp_path_factory) -> Path:
    """Demo data with the validation split prepared; not to be changed."""
    root = tmp_path_factory.mktemp('tools') / 'data'
    prepare_demo(root)
    return root


@pytest.fixture(scope='session')
def prepared(data_root) -> Path:
    """The prepared split."""
    return data_root / 'prepared' / 'validation'


@pytest.fixture(scope='session')
def dump(tmp_path_factory, prepared) -> Path:
    """A Kaggle submission for it, not expanded; not to be changed."""
    return fake_dump(tmp_path_factory.mktemp('dump') / 'dump.csv', prepared / 'index.arrow')
