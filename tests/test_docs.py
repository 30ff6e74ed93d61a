"""What the documents point at is there."""

import re

import pytest

from tests.helpers import REPOSITORY

PAGES = [REPOSITORY / 'README.md', REPOSITORY / 'CHANGELOG.md',
         *sorted((REPOSITORY / 'docs').glob('*.md'))]
FOLDERS = ('benchmarks', 'configs', 'docs', 'evaluation', 'projects', 'requirements', 'tests',
           'tools')
FILE = re.compile(rf'(?<![\w/.])((?:{"|".join(FOLDERS)})/[\w./-]+\.(?:py|sh|md|txt|jpg))(?![\w*])')


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    links = re.findall(r'\]\((?!https?:)([^)#]+)', page.read_text(encoding='utf-8'))
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page):
    names = set(FILE.findall(page.read_text(encoding='utf-8')))
    assert not {name for name in names if not (REPOSITORY / name).exists()}


def test_every_page_is_reached_from_the_readme():
    readme = (REPOSITORY / 'README.md').read_text(encoding='utf-8')
    assert not [page.name for page in PAGES[2:] if f'docs/{page.name}' not in readme]
