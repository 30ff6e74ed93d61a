"""Importing the MMDetection parts says nothing."""

import subprocess
import sys

from tests.helpers import REPOSITORY


def test_import_prints_nothing():
    result = subprocess.run([sys.executable, '-c', 'import projects.openimages.mm'],
                            cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert 'OneDL' not in result.stdout
    assert 'faster_coco_eval' not in result.stderr
    assert (result.stdout, result.stderr) == ('', '')
