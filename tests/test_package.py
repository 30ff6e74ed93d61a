"""How the package is put together: one direction of imports, and torch for ``mm`` only."""

import csv
import graphlib
import os
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY, imports_of, run_tool

PACKAGE = REPOSITORY / 'projects' / 'openimages'
LAYERS = ('common', 'labels', 'masks', 'metric', 'data', 'challenge', 'submissions',
          'visualization', 'analysis', 'mm')
# Nobody imports these, and each may import so much.
BESIDE = {'download': LAYERS[:LAYERS.index('challenge')], 'demo': LAYERS[:-1],
          'evaluation': LAYERS[:-1], 'projects': LAYERS[:-1]}
FRAMEWORKS = ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'tensorflow',
              'object_detection')
CODE = ('projects', 'evaluation', 'tools', 'tests', 'benchmarks', 'configs')


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob('*.py'))


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {module_name(path): path for path in python_files('projects', 'evaluation')}


def modules_imported_by(path: Path) -> set[str]:
    """The modules of this repository that a file names: ``a.b``, where ``b`` is in ``a``, is a."""
    return {name if name in MODULES else name.rpartition('.')[0] for name in imports_of(path)
            if name in MODULES or name.rpartition('.')[0] in MODULES}


def layer(module: str) -> str:
    """``labels`` of ``projects.openimages.labels``; the first name of any other module."""
    parts = module.split('.')
    return parts[2] if parts[:2] == ['projects', 'openimages'] and len(parts) > 2 else parts[0]


def test_every_part_of_the_package_has_its_place():
    parts = {path.stem for path in PACKAGE.iterdir()
             if path.suffix == '.py' or any(path.glob('*.py'))} - {'__init__'}
    assert parts == {*LAYERS, 'demo', 'download'}


@pytest.mark.parametrize('name', MODULES)
def test_imports_point_one_way(name):
    own = layer(name)
    imported = {layer(module) for module in modules_imported_by(MODULES[name])} - {own, 'projects'}
    assert imported <= set(LAYERS[:LAYERS.index(own)] if own in LAYERS else BESIDE[own])


def test_imports_have_no_circle():
    order = graphlib.TopologicalSorter(
        {name: modules_imported_by(path) - {name} for name, path in MODULES.items()})
    assert set(order.static_order()) == set(MODULES)


def test_every_folder_of_python_files_is_a_package():
    for path in MODULES.values():
        for folder in path.relative_to(REPOSITORY).parents[:-1]:
            assert (REPOSITORY / folder / '__init__.py').exists(), folder


def test_files_have_at_most_400_lines():
    lengths = {path.relative_to(REPOSITORY).as_posix(): len(path.read_bytes().splitlines())
               for path in python_files(*CODE)}
    assert not {name: length for name, length in lengths.items() if length > 400}


@pytest.mark.parametrize('name', [name for name in MODULES if layer(name) != 'mm'])
def test_only_mm_imports_a_framework(name):
    assert not {module.partition('.')[0] for module in imports_of(MODULES[name])} & {*FRAMEWORKS}


@pytest.fixture(scope='module')
def without(tmp_path_factory):
    """An environment whose Python processes cannot import certain packages."""

    def environment(*packages: str) -> dict[str, str]:
        folder = tmp_path_factory.mktemp('without')
        (folder / 'sitecustomize.py').write_text(f'''
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {packages!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)

sys.meta_path.insert(0, Missing())''')
        return {**os.environ, 'PYTHONPATH': str(folder)}

    return environment


IMPORT = 'import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)'


def test_all_but_mm_is_imported_without_any_framework(without):
    names = [name for name in MODULES if layer(name) != 'mm']
    result = run_tool('-c', IMPORT, *names, env=without(*FRAMEWORKS))
    assert result.returncode == 0, result.stderr
    refused = run_tool('-c', IMPORT, 'projects.openimages.mm', env=without(*FRAMEWORKS))
    assert 'ModuleNotFoundError' in refused.stderr


def test_all_but_pictures_is_imported_without_matplotlib(without):
    names = [name for name in MODULES if layer(name) not in ('mm', 'visualization', 'analysis')]
    result = run_tool('-c', IMPORT, *names, env=without(*FRAMEWORKS, 'matplotlib'))
    assert result.returncode == 0, result.stderr


def test_data_is_prepared_and_a_submission_scored_without_any_framework(without, tmp_path):
    environment = without(*FRAMEWORKS, 'matplotlib')

    def run(*arguments: str | Path) -> str:
        result = run_tool(*arguments, env=environment)
        assert result.returncode == 0, result.stderr
        return result.stdout

    run('tools/make_demo_data.py', '--out', tmp_path, '--images', '16')
    run('tools/prepare_data.py', '--data-root', tmp_path, '--split', 'validation')
    prepared = tmp_path / 'prepared' / 'validation'
    predictions = tmp_path / 'predictions.csv'
    with open(prepared / 'tf_segmentations.csv', newline='') as truth, \
            open(predictions, 'w', newline='') as file:
        names = ('ImageID', 'ImageWidth', 'ImageHeight', 'LabelName', 'Score', 'Mask')
        writer = csv.DictWriter(file, names, extrasaction='ignore')
        writer.writeheader()
        writer.writerows({**row, 'Score': '0.9'} for row in csv.DictReader(truth))
    scored = run('tools/evaluate.py', f'--input_annotations_boxes={prepared / "tf_boxes.csv"}',
                 f'--input_annotations_labels={prepared / "tf_labels.csv"}',
                 f'--input_annotations_segm={prepared / "tf_segmentations.csv"}',
                 f'--input_class_labelmap={prepared / "label_map.pbtxt"}',
                 f'--input_predictions={predictions}',
                 f'--output_metrics={tmp_path / "metrics.csv"}')
    assert 'mAP 1.000000' in scored
    run('tools/convert_submission.py', predictions, tmp_path / 'kaggle.csv',
        '--images', tmp_path / 'images' / 'validation')
    run('tools/check_submission.py', tmp_path / 'kaggle.csv', '--images', prepared / 'index.arrow')
