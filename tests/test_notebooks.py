"""The notebooks run from their first cell to their last, and are kept without outputs."""

import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers import REPOSITORY

FOLDER = REPOSITORY / 'notebooks'
NOTEBOOKS = sorted(path.name for path in FOLDER.glob('*.ipynb'))


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_notebook_is_kept_without_outputs(name):
    notebook = nbformat.read(FOLDER / name, as_version=4)
    assert not any(cell.get('outputs') or cell.get('execution_count') for cell in notebook.cells)


def test_tour_scores_a_submission_and_opens_its_report(tmp_path, monkeypatch):
    monkeypatch.setenv('TOUR_FOLDER', str(tmp_path / 'tour'))
    monkeypatch.setenv('IPYTHONDIR', str(tmp_path / 'ipython'))
    notebook = nbformat.read(FOLDER / 'tour.ipynb', as_version=4)
    NotebookClient(notebook, timeout=60, kernel_name='python3',
                   resources={'metadata': {'path': str(FOLDER)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', ())]
    shown = {kind for output in outputs for kind in output.get('data', ())}
    printed = ''.join(output.get('text', '') for output in outputs)
    assert 'image/png' in shown  # the image with its masks
    assert 'challenge mAP 0.' in printed and 'Classes by frequency' in printed
    assert (tmp_path / 'tour' / 'report' / 'index.html').stat().st_size > 100_000
    assert not list(FOLDER.rglob('*.csv'))
