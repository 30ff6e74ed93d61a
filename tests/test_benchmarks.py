"""The scripts behind the measured figures still run against the code that they measure."""

import re
import subprocess
import sys

import pytest

from tests.helpers import REPOSITORY

# Options that make each run short, and what it must print: a figure, not only a heading.
RUNS = {
    'dump_memory': ('--images 2 4 --detections 2', r'\n +4 +-?[\d.]+ MB'),
    'index_speed': ('--images 60 --items 5', r'together s +[\d.]+ +[\d.]+'),
    'loader_speed': ('--images 1 --rounds 1 --instances 3', r'bitmaps / run lengths +[\d.]+'),
    'mask_head_speed': ('--device cpu --regions 2 --steps 1', r'stock / ours +[\d.]+ +[\d.]+'),
    'mask_text_speed': ('--images 1 --rounds 1 --detections 3 --width 128 --height 96',
                        r'stock / box-only: [\d.]+'),
    'metric_speed': ('--images 0 --official-images 2 --our-images 3', r': -?\d+ times as fast'),
    'prepare_full_size': ('--images 30 --workers 1', r'\d s\b'),
    'prepare_speed': ('--masks 3 --rounds 1 --workers 1', r'usual way / ours +[\d.]+'),
    'report_speed': ('--images 20', r'\d s'),
    'rpn_speed': ('--device cpu --images 1 --steps 1', r'stock / ours +[\d.]+ +[\d.]+'),
    'submission_speed': ('--images 3 --sweep-images 3 --detections 2', r'[\d.]+ s'),
}
NOT_RUN_HERE = {
    'metric_peers',   # others' evaluators, for metric_speed.py --peers: they need not be installed
    'train_speed',    # trains: tests/mm/test_train_speed.py
    'recipe',         # trains: tests/test_recipe.py
    'recipe_arms',    # not a script: tests/test_recipe.py
    'recipe_pictures',  # needs a hard world: tests/test_recipe.py
    'test_time_gpu',  # needs a GPU
}


def test_every_script_is_run_or_has_a_reason():
    assert {path.stem for path in (REPOSITORY / 'benchmarks').glob('*.py')} == {
        *RUNS, *NOT_RUN_HERE}


@pytest.mark.parametrize('name', RUNS)
def test_script_prints_its_figure(name, tmp_path):
    options, figure = RUNS[name]
    result = subprocess.run(
        [sys.executable, REPOSITORY / 'benchmarks' / f'{name}.py', *options.split()],
        cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert re.search(figure, result.stdout), result.stdout
