"""What the set-up says before it installs anything."""

import collections
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY

Usage = collections.namedtuple('Usage', 'total used free')


@pytest.fixture
def setup_module():
    path = REPOSITORY / 'tools' / 'setup_environment.py'
    spec = importlib.util.spec_from_file_location('setup_environment', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def setup(setup_module, monkeypatch, tmp_path):
    module = setup_module
    monkeypatch.setattr(module, 'STAMP', tmp_path / 'no stamp')
    monkeypatch.setattr(module, 'CACHE', tmp_path / 'cache')
    monkeypatch.setattr(module, 'run', lambda *command: pytest.fail(f'ran {command}'))
    monkeypatch.setattr(module, 'is_usable', lambda: pytest.fail('went on past the checks'))
    return module


def refusal(setup):
    with pytest.raises(SystemExit) as stop:
        setup.main()
    assert '\n' not in stop.value.code
    return stop.value.code


@pytest.mark.parametrize('version', [(3, 9, 18), (3, 14, 0)])
def test_other_python_is_refused(setup, monkeypatch, version):
    monkeypatch.setattr(sys, 'version_info', version)
    assert 'Python 3.10 to 3.13 is needed' in refusal(setup)


@pytest.mark.parametrize(('program', 'usable'), [
    (f'echo {platform.python_version()}', True), ('echo 3.10.1', False), ('exit 1', False)])
def test_environment_of_another_python_or_without_pip_is_made_again(
        setup_module, monkeypatch, tmp_path, program, usable):
    python = tmp_path / 'python'
    python.write_text(f'#!/bin/sh\n{program}\n')
    python.chmod(0o755)
    monkeypatch.setattr(setup_module, 'PYTHON', python)
    assert setup_module.is_usable() is usable


def test_of_two_set_ups_at_once_the_second_waits_and_has_nothing_left_to_do(
        setup_module, monkeypatch, tmp_path, capsys):
    for name in ('VENV', 'STAMP'):
        monkeypatch.setattr(setup_module, name, tmp_path / name)
    monkeypatch.setattr(setup_module, 'PYTHON', Path(sys.executable))
    monkeypatch.setattr(setup_module, 'REQUIREMENTS', tmp_path)
    monkeypatch.setattr(setup_module, 'check_machine', lambda: None)
    inside, made = threading.Barrier(2), []

    def make():
        made.append(True)
        inside.wait(20)
        time.sleep(0.5)  # the other one is at the lock by now, or makes it a second time
        setup_module.STAMP.write_text(setup_module.fingerprint())

    monkeypatch.setattr(setup_module, 'make_environment', make)
    first = threading.Thread(target=setup_module.main)
    first.start()
    inside.wait(20)
    setup_module.main()
    first.join()
    assert made == [True]
    assert 'waiting' in capsys.readouterr().out


def test_make_keeps_the_python_of_an_environment_that_is_there(tmp_path):
    def chosen():
        return subprocess.run(
            ['make', '-s', '-C', tmp_path, '-f', REPOSITORY / 'Makefile', 'chosen',
             '--eval', 'chosen: ; @echo $(PYTHON)'], check=True, capture_output=True, text=True,
            env={name: value for name, value in os.environ.items() if name != 'PYTHON'}
        ).stdout.strip()

    usual = chosen()
    other = tmp_path / 'other'
    other.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    other.chmod(0o755)
    (tmp_path / '.venv' / 'bin').mkdir(parents=True)
    (tmp_path / '.venv' / 'bin' / 'python').symlink_to(other)
    assert chosen() == str(other) != usual
    other.unlink()
    assert chosen() == usual


def key(module, monkeypatch, tmp_path, printed, **variables):
    python = tmp_path / 'python'
    python.write_text(f'#!/bin/sh\necho {printed}\n')
    python.chmod(0o755)
    monkeypatch.setattr(module, 'PYTHON', python)
    for name in ('FORCE_CUDA', 'TORCH_CUDA_ARCH_LIST'):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return module.wheel_key()


def test_wheel_made_without_a_gpu_is_not_used_with_one(setup_module, monkeypatch, tmp_path):
    keys = [key(setup_module, monkeypatch, tmp_path, *parts, **variables) for parts, variables in (
        (['2.13.0+cu130 cpu'], {}), (['2.13.0+cu130 sm90'], {}), (['2.13.0+cu128 sm90'], {}),
        (['2.13.0+cu130 sm80-sm90'], {}), (['2.13.0+cpu cpu'], {}),
        (['2.13.0+cu130 cpu'], {'FORCE_CUDA': '1'}),
        (['2.13.0+cu130 cpu'], {'FORCE_CUDA': '1', 'TORCH_CUDA_ARCH_LIST': '8.0;9.0'}))]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r'[\w.+-]+', name) for name in keys)


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
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    assert 'a C++ compiler is needed' in refusal(setup)
    (folder / 'onedl_mmcv-1.whl').touch()
    assert setup.check_machine() is None


def test_finished_environment_is_left_alone(setup, monkeypatch, tmp_path):
    setup.STAMP.write_text(setup.fingerprint())
    monkeypatch.setattr(setup, 'PYTHON', setup.STAMP)
    made = []
    monkeypatch.setattr(setup, 'check_machine', lambda: None)
    monkeypatch.setattr(setup, 'make_environment', lambda: made.append(True))
    setup.main()
    assert made == []
    setup.STAMP.unlink()
    setup.main()
    assert made == [True]


def test_changed_requirement_makes_another_fingerprint(setup, monkeypatch, tmp_path):
    before = setup.fingerprint()
    shutil.copytree(setup.REQUIREMENTS, tmp_path / 'requirements')
    (tmp_path / 'requirements' / 'tests.txt').write_text('pytest==1\n')
    monkeypatch.setattr(setup, 'REQUIREMENTS', tmp_path / 'requirements')
    assert setup.fingerprint() != before


def test_what_is_installed_beside_the_compilation_is_there_after_it(setup_module, monkeypatch,
                                                                    tmp_path):
    program = 'import pathlib, sys, time; time.sleep(0.2); pathlib.Path(sys.argv[1]).touch()'
    monkeypatch.setattr(setup_module, 'PIP_INSTALL', (sys.executable, '-c', program))
    with setup_module.installed_meanwhile(tmp_path / 'made'):
        assert not (tmp_path / 'made').exists()
    assert (tmp_path / 'made').exists()


def test_a_failed_installation_beside_the_compilation_ends_the_set_up(setup_module, monkeypatch):
    monkeypatch.setattr(setup_module, 'PIP_INSTALL', (sys.executable, '-c', 'raise SystemExit(3)'))
    with (pytest.raises(SystemExit, match='failed with exit code 3'),
          setup_module.installed_meanwhile()):
        pass


def test_a_failed_compilation_ends_the_installation_beside_it(setup_module, monkeypatch, tmp_path):
    program = 'import pathlib, sys, time; time.sleep(1); pathlib.Path(sys.argv[1]).touch()'
    monkeypatch.setattr(setup_module, 'PIP_INSTALL', (sys.executable, '-c', program))
    with pytest.raises(SystemExit), setup_module.installed_meanwhile(tmp_path / 'made'):
        raise SystemExit('compiling failed')
    time.sleep(1.2)
    assert not (tmp_path / 'made').exists()
