"""Parts of models are looked up where MMDetection's are, whatever ran before."""

import pytest
from mmengine.registry import init_default_scope


@pytest.fixture(autouse=True)
def mmdet_scope() -> None:
    """A training elsewhere may have left MMEngine's own scope behind."""
    init_default_scope('mmdet')
