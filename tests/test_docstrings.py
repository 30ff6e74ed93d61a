"""The examples in docstrings do what they say."""

import doctest
import importlib
import pkgutil

import pytest

from projects import openimages

ROOMS = ('metric', 'challenge', 'labels', 'masks')
MODULES = [f'projects.openimages.{room}' for room in ROOMS]
for package in ('metric', 'challenge', 'analysis'):
    MODULES += [module.name for module in pkgutil.iter_modules(
        [f'{openimages.__path__[0]}/{package}'], f'projects.openimages.{package}.')]


@pytest.mark.parametrize('name', MODULES)
def test_examples_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize('name', ['metric', 'metric.results', 'masks', 'challenge.report',
                                  'analysis.html'])
def test_there_are_examples(name):
    module = importlib.import_module(f'projects.openimages.{name}')
    assert any(test.examples for test in doctest.DocTestFinder().find(module))
