"""Fixtures that several test modules share."""

import signal
from pathlib import Path

import pytest
from hypothesis import settings

from projects.openimages.labels import LabelSpace
from tests.helpers import REPOSITORY, write_classes

REAL_DATA = REPOSITORY.parent / 'shared' / 'data'


@pytest.fixture(scope='session')
def real_data() -> Path:
    """The folder with the real class list, hierarchy and image sizes; skipped where absent."""
    if not (REAL_DATA / 'challenge-2019-classes-description-segmentable.csv').exists():
        pytest.skip('the real Open Images lists are not beside this checkout (../shared/data)')
    return REAL_DATA


@pytest.fixture
def small_labels(tmp_path) -> LabelSpace:
    """Six classes: animal > (cat, dog), toy > (bear), animal > bear; and a lone cup."""
    return LabelSpace.read(*write_classes(tmp_path))


# Where a shell started the tests in the background Ctrl-C is ignored, and every process that the
# tests start and interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A loaded machine is no failure: hypothesis's time limit an example is switched off for all tests.
settings.register_profile('no deadline', deadline=None)
settings.load_profile('no deadline')
