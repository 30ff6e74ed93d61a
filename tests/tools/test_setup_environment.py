"""What the set-up says before it installs anything."""

import collections
import importlib.util
import shutil
import sys

import pytest

from tests.helpers import REPOSITORY

Usage = collections.namedtuple('Usage', 'total used free')


@pytest.fixture
def setup(monkeypatch, tmp_path):
    path = REPOSITORY / 'tools' / 'setup_environment.py'
    spec = importlib.util.spec_from_file_location('setup_environment', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'STAMP', tmp_path / 'no stamp')
    monkeypatch.setattr(module, 'CACHE', tmp_path / 'cache')
    monkeypatch.setattr(module, 'run', lambda *command: pytest.fail(f'ran {command}'))
    monkeypatch.setattr(module, 'has_pip', lambda: pytest.fail('went on past the checks'))
    return module


def refusal(setup):
    with pytest.raises(SystemExit) as stop:
        setup.main()
    assert '\n' not in stop.value.code
    return stop.value.code


def test_other_python_is_refused(setup, monkeypatch):
    monkeypatch.setattr(sys, 'version_info', (3, 12, 1))
    assert 'Python 3.11 is needed' in refusal(setup)


def test_full_disk_is_refused(setup, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: Usage(10**12, 10**12 - 10**9, 10**9))
    assert '5 GB of free disk are needed' in refusal(setup)


def test_missing_compiler_is_refused(setup, monkeypatch):
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    assert 'a C++ compiler is needed' in refusal(setup)


def test_missing_headers_are_refused(setup, monkeypatch, tmp_path):
    monkeypatch.setattr(setup.sysconfig, 'get_paths', lambda: {'include': tmp_path})
    assert 'Python headers are needed' in refusal(setup)


def test_kept_wheel_needs_no_compiler(setup, monkeypatch):
    folder = setup.CACHE / 'torch-any'
    folder.mkdir(parents=True)
    (folder / 'onedl_mmcv-1.whl').touch()
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    setup.check_machine()


def test_finished_environment_is_left_alone(setup, monkeypatch, tmp_path):
    setup.STAMP.write_text(setup.fingerprint())
    monkeypatch.setattr(setup, 'PYTHON', setup.STAMP)
    setup.main()


def test_changed_requirement_makes_another_fingerprint(setup, monkeypatch, tmp_path):
    before = setup.fingerprint()
    shutil.copytree(setup.REQUIREMENTS, tmp_path / 'requirements')
    (tmp_path / 'requirements' / 'tests.txt').write_text('pytest==1\n')
    monkeypatch.setattr(setup, 'REQUIREMENTS', tmp_path / 'requirements')
    assert setup.fingerprint() != before
