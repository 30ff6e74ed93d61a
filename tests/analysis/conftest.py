"""A prepared demo split, two dumps of it, and their report."""

import pytest

from tests.analysis.noisy_dump import noisy_dump
from tests.helpers import run_tool
from tests.submissions.fake_dump import prepare_demo


@pytest.fixture(scope='session')
def demo(tmp_path_factory):
    """A folder with ``prepared/validation``, and dumps ``better.csv`` and ``worse.csv``."""
    folder = tmp_path_factory.mktemp('report-demo')
    prepared = prepare_demo(folder)
    for name, skill in (('better', 0.85), ('worse', 0.5)):
        noisy_dump(folder / f'{name}.csv', prepared / 'index.arrow', skill)
    return folder


@pytest.fixture(scope='session')
def reported(demo):
    """The folder of a report with all that there is: comparison, pictures, training counts.

    The training index is the split's own: any will do.
    """
    prepared = demo / 'prepared' / 'validation'
    result = run_tool(
        'tools/report.py', demo / 'better.csv', '--prepared', prepared, '--train-index',
        prepared / 'index.arrow', '--compare', demo / 'worse.csv', '--out', demo / 'report',
        '--pictures', 2)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith('mAP 0.') and 'index.html' in result.stdout
    return demo / 'report'
