"""Installing the package, and that pyproject.toml and requirements/ say the same."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings the same as a package
    import tomli as tomllib

from projects.openimages.data.index import INDEX_VERSION
from tests.helpers import REPOSITORY, imports_of

PROJECT = tomllib.loads((REPOSITORY / 'pyproject.toml').read_text(encoding='utf-8'))['project']
EXTRAS = PROJECT['optional-dependencies']
INSTALLED = importlib.metadata.packages_distributions()
WITHOUT_DEPENDENCIES = ('mm', 'tf_evaluator_nodeps')
# Run, not imported; and the official evaluator, imported by a name put together at run time.
NOT_IMPORTED = {'ipykernel', 'ninja', 'setuptools', 'wheel', 'ruff', 'mypy', 'pytest-xdist',
                'tf-models-research-object-detection'}


def pin_lines(name: str) -> list[str]:
    text = (REPOSITORY / 'requirements' / f'{name}.txt').read_text(encoding='utf-8')
    return [line for line in text.splitlines() if line and not line.startswith('#')]


def pins(*names: str) -> dict[str, str]:
    """Version by package on this Python; without names, of all files."""
    names = names or tuple(path.stem for path in (REPOSITORY / 'requirements').iterdir())
    found: dict[str, str] = {}
    for line in (line for name in names for line in pin_lines(name)):
        requirement = Requirement(line.split('#')[0])
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        package, version = requirement.name, str(requirement.specifier).removeprefix('==')
        assert found.setdefault(canonicalize_name(package), version) == version, line
    return found


def declared(*extras: str) -> dict[str, Requirement]:
    """The requirements of the package with some extras."""
    texts = [*PROJECT['dependencies'], *(text for extra in extras for text in EXTRAS[extra])]
    requirements = [Requirement(text) for text in texts]
    return {canonicalize_name(item.name): item for item in requirements
            if item.name != PROJECT['name']}


def distributions(modules: set[str]) -> set[str]:
    """The installed packages that modules are from; those of the standard library have none."""
    return {canonicalize_name(name) for module in modules
            for name in INSTALLED.get(module.partition('.')[0], ())}


def imported_in(*folders: str) -> set[str]:
    return distributions({name for folder in folders
                          for path in (REPOSITORY / folder).rglob('*.py')
                          for name in imports_of(path)})


def test_every_pin_gives_its_reason():
    for path in (REPOSITORY / 'requirements').iterdir():
        for line in pin_lines(path.stem):
            assert re.fullmatch(
                r'[\w-]+==[\w.]+( ; python_version [<>]=? "3\.\d+")? +# \S.+', line), line


def test_the_pinned_versions_are_within_what_the_package_asks_for():
    for name, requirement in declared(*EXTRAS).items():
        assert requirement.specifier.contains(pins()[name]), name


def test_the_package_asks_for_all_that_is_pinned_with_dependencies():
    assert set(declared('plots', 'download', 'mm')) == set(pins('runtime')) | {'torch', 'packaging'}
    assert set(EXTRAS) == {'plots', 'download', 'mm', 'evaluator', 'tests'}
    for extra, file in (('evaluator', 'tf_evaluator'), ('tests', 'tests')):
        assert {Requirement(text).name for text in EXTRAS[extra]} == set(pins(file))


def test_nothing_is_pinned_that_nobody_imports():
    theirs = set()
    for name in pins(*WITHOUT_DEPENDENCIES):
        for file in importlib.metadata.distribution(name).files:
            if file.suffix == '.py':
                text = Path(file.locate()).read_text(encoding='utf-8', errors='replace')
                theirs |= set(re.findall(r'^ *(?:import|from) +(\w+)', text, re.MULTILINE))
    ours = imported_in('projects', 'evaluation', 'tests', 'benchmarks')
    assert set(pins()) - NOT_IMPORTED <= ours | distributions(theirs)


@pytest.mark.parametrize(('folder', 'extras'), [
    *((f'projects/openimages/{name}', ['plots']) for name in (
        'common', 'metric', 'data', 'challenge', 'submissions', 'visualization', 'analysis',
        'demo')),
    ('projects/openimages/download', ['download']),
    ('projects', ['plots', 'download', 'mm']), ('tools', ['plots', 'mm']),
    ('evaluation', ['evaluator']),
])
def test_every_import_is_asked_for(folder, extras):
    beside = pins('mm') if 'mm' in extras else {}
    assert imported_in(folder) <= {*declared(*extras), *beside, PROJECT['name']}


def test_pre_commit_runs_the_pinned_linter():
    hooks = (REPOSITORY / '.pre-commit-config.yaml').read_text(encoding='utf-8')
    assert re.search(r'rev: v([\d.]+)', hooks)[1] == pins('tests')['ruff']


def test_the_changelog_and_the_citation_name_the_versions():
    changelog = (REPOSITORY / 'CHANGELOG.md').read_text(encoding='utf-8')
    newest = changelog.split('\n## ')[1]
    assert newest.startswith(PROJECT['version'])
    assert f'index version {INDEX_VERSION}.' in newest
    citation = (REPOSITORY / 'CITATION.cff').read_text(encoding='utf-8')
    assert f'\nversion: {PROJECT["version"]}\n' in citation


@pytest.fixture(scope='module', params=['editable', 'copied'])
def python(request, tmp_path_factory):
    """The Python of a new environment that has this one's packages, and this project installed."""
    folder = tmp_path_factory.mktemp(request.param)
    for name in ('projects', 'evaluation'):
        shutil.copytree(REPOSITORY / name, folder / 'clone' / name,
                        ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(REPOSITORY / name, folder / 'clone')
    venv.create(folder / 'env', with_pip=False)
    shared = sysconfig.get_path('purelib')
    target = sysconfig.get_path('purelib', vars={'base': str(folder / 'env')})
    Path(target, 'shared.pth').write_text(shared)
    python = folder / 'env' / 'bin' / 'python'
    subprocess.run([sys.executable, '-m', 'pip', '--python', python, 'install', '--quiet',
                    '--disable-pip-version-check', '--no-index', '--no-deps',
                    '--no-build-isolation', *(['-e'] * (request.param == 'editable')),
                    folder / 'clone'], check=True, cwd=folder)
    return python


def run_in(folder: Path, python: Path, code: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    return subprocess.run([python, '-c', code], cwd=folder, text=True, capture_output=True,
                          env={**environment, **variables}, check=False)


def test_every_module_is_installed(python, tmp_path):
    for package in ('projects.openimages', 'evaluation'):
        result = run_in(tmp_path, python, f'import {package}; print({package}.__path__[0])')
        installed, here = Path(result.stdout.strip()), REPOSITORY / package.replace('.', '/')
        assert not installed.is_relative_to(REPOSITORY)
        assert files_in(installed) == files_in(here)  # with the report's page and script


def files_in(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob('*')
            if path.is_file() and '__pycache__' not in path.parts}


def other_projects(folder: Path) -> Path:
    """A folder ``projects`` as MMDetection's repository has one."""
    (folder / 'projects' / 'other').mkdir(parents=True)
    (folder / 'projects' / 'other' / '__init__.py').write_text('name = "other"')
    return folder


BOTH = 'import projects.openimages.labels, projects.other; print(projects.other.name)'


def test_another_folder_named_projects_hides_nothing(python, tmp_path):
    result = run_in(other_projects(tmp_path), python, BOTH)
    assert result.stdout == 'other\n', result.stderr


def test_another_folder_named_projects_on_the_path_hides_nothing(python, tmp_path):
    other = other_projects(tmp_path / 'path')
    result = run_in(tmp_path, python, BOTH, PYTHONPATH=str(other))
    assert result.stdout == 'other\n', result.stderr


def test_only_a_package_named_projects_that_comes_first_hides_ours(python, tmp_path):
    other = other_projects(tmp_path / 'path')
    (other / 'projects' / '__init__.py').touch()
    first = run_in(other, python, 'import projects.openimages')
    assert "No module named 'projects.openimages'" in first.stderr
    last = run_in(tmp_path, python, f'import sys; sys.path.append({str(other)!r}); {BOTH}')
    assert last.stdout == 'other\n', last.stderr


def test_a_config_elsewhere_finds_the_package(python, tmp_path):
    (other_projects(tmp_path) / 'config.py').write_text(
        'custom_imports = dict(imports=["projects.openimages.labels"])')
    result = run_in(tmp_path, python, '''
import sys
from mmengine.config import Config
Config.fromfile('config.py')
print('projects.openimages.labels' in sys.modules)''')
    assert result.stdout.splitlines()[-1:] == ['True'], result.stderr
