"""The plan of ``make demo``: where its steps write, and that each knows all the code it runs."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY, assert_one_line_error

STEPS = ('data', 'prepare', 'pictures', 'train', 'test', 'submission', 'score', 'parity', 'check',
         'report')
SCORING = 'projects.openimages.mm.evaluation'  # validation at the end of training
# Imports a script and modules, with an empty package in another's place.
IMPORT = '''
import importlib, json, runpy, sys, unittest.mock
script, replaced, *modules = sys.argv[1:]
if replaced:
    sys.modules[replaced] = unittest.mock.MagicMock()
sys.path.insert(0, '.')
runpy.run_path(script)
for name in modules:
    importlib.import_module(name)
print(json.dumps([m.__file__ for m in sys.modules.values()
                  if isinstance(getattr(m, '__file__', None), str)]))'''


@pytest.fixture(scope='module')
def plan():
    path = REPOSITORY / 'tools' / 'demo.py'
    spec = importlib.util.spec_from_file_location('demo', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {step.name: step for step in module.plan(Path('/somewhere/demo'))}


def imported(step, without='') -> set[Path]:
    """The repository's files that are loaded when the step's script and config are imported."""
    _, script, *arguments = step.command
    if script == '-m':
        script = arguments[0].replace('.', '/') + '.py'
    uses_config = arguments[0].endswith('_demo.py')
    modules = ['projects.openimages.mm'] if uses_config else []
    result = subprocess.run(
        [sys.executable, '-c', IMPORT, script, without, *modules],
        cwd=REPOSITORY, capture_output=True, text=True, check=True)
    files = map(Path, json.loads(result.stdout.splitlines()[-1]))
    return {REPOSITORY / script} | {
        path for path in files if path.is_relative_to(REPOSITORY)
        and not path.is_relative_to(REPOSITORY / '.venv')}


def test_the_steps_are_these(plan):
    assert tuple(plan) == STEPS


@pytest.mark.parametrize('name', [name for name in STEPS if name != 'submission'])
def test_a_step_depends_on_all_code_that_it_imports(plan, name):
    assert imported(plan[name], SCORING if name == 'train' else '') <= set(plan[name].sources)


def test_code_that_a_script_imports_late_counts_as_well(plan):
    for name in ('train', 'test', 'submission'):
        assert REPOSITORY / 'projects/openimages/mm/engine/config.py' in plan[name].sources


def test_a_change_in_scoring_or_documents_does_not_train_again(plan):
    scoring = {REPOSITORY / 'projects/openimages/metric/scoring.py',
               REPOSITORY / 'projects/openimages/challenge/evaluate.py'}
    assert scoring <= set(plan['score'].sources) & set(plan['parity'].sources)
    assert not scoring & set(plan['train'].sources)
    assert not any(path.suffix == '.md' for step in plan.values() for path in step.sources)
    assert not any('tests' in path.parts[len(REPOSITORY.parts):] or path.name == 'tests.txt'
                   for step in plan.values() for path in step.sources)


def test_a_change_of_the_page_makes_the_report_again_and_nothing_else(plan):
    page = REPOSITORY / 'projects/openimages/analysis/templates/page.js'
    assert [name for name, step in plan.items() if page in step.sources] == ['report']
    assert list(plan)[-1] == 'report' and plan['report'].outputs == [Path('/somewhere/demo/report')]


def test_a_change_of_the_config_or_of_a_pinned_version_trains_again(plan):
    assert json.loads(plan['train'].settings)['train_cfg']['max_iters'] == 300
    assert 'rpn_head' in json.loads(plan['train'].settings)['model']  # of the bases as well
    assert plan['test'].settings == plan['train'].settings
    assert all(REPOSITORY / 'requirements' / 'build.txt' in step.sources for step in plan.values())


def test_every_step_writes_in_the_folder_and_no_two_in_the_same_place(plan):
    outputs = [path for step in plan.values() for path in (*step.outputs, *step.leftovers)]
    assert all(path.is_relative_to('/somewhere/demo') for path in outputs)
    assert len(set(outputs)) == len(outputs)
    within = {(inner.name, outer.name) for inner in outputs for outer in outputs
              if outer in inner.parents}
    assert within == {('prepared', 'data'), ('iter_300.pth', 'train')}
    for step in plan.values():  # the commands run in the repository, the folder may be anywhere
        assert not [part for part in step.command if part.startswith(('work_dirs', 'demo/'))]
        assert [part for part in step.command if '/somewhere/demo' in part]


def test_a_folder_with_files_of_ones_own_is_refused_from_anywhere(tmp_path):
    files = {'notes.txt': 'mine', 'submission.csv': 'mine', 'data/images/train/a.jpg': 'mine'}
    for name, text in files.items():
        (tmp_path / 'own' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'own' / name).write_text(text)
    result = subprocess.run([sys.executable, REPOSITORY / 'tools' / 'demo.py', '--out', 'own'],
                            cwd=tmp_path, capture_output=True, text=True, check=False)
    assert_one_line_error(result, str(tmp_path / 'own'), 'did not make')
    assert {path.relative_to(tmp_path / 'own').as_posix(): path.read_text()
            for path in (tmp_path / 'own').rglob('*') if path.is_file()} == files
    assert [path.name for path in tmp_path.iterdir()] == ['own']
