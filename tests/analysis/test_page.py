"""The page as text: what is not made by us is escaped. (How it looks: test_browser.)"""

import json
from html.parser import HTMLParser

import pytest

from projects.openimages.analysis.html import Html, element, join, json_script
from projects.openimages.analysis.plots import render, shortened
from tests.analysis.conftest import EVIL_IMAGES, EVIL_NAMES

KNOWN_TAGS = {'html', 'head', 'meta', 'title', 'link', 'style', 'body', 'header', 'h1', 'button',
              'main', 'nav', 'a', 'section', 'h2', 'h3', 'div', 'b', 'span', 'small', 'p',
              'details', 'summary', 'table', 'thead', 'tbody', 'tr', 'th', 'td', 'input', 'ul',
              'li', 'meter', 'figure', 'figcaption', 'script'}
SVG_TAGS = {'svg', 'g', 'path', 'defs', 'clippath', 'rect', 'use', 'text'}


class Elements(HTMLParser):
    """The tags of a page, the names of their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data):
        self.text.append(data)


def test_what_is_no_html_is_escaped():
    assert element('td', '<b>', Html('<i>x</i>'), 5, title='a"b') == (
        '<td title="a&quot;b">&lt;b&gt;<i>x</i>5</td>')
    assert element('img', src='a', alt=None) == '<img src="a">'
    assert join(['&', Html('&amp;')]) == '&amp;&amp;'
    assert element('p', element('b', '<')) == '<p><b>&lt;</b></p>'


@pytest.mark.parametrize('text', ['</script>', '<!--', ']]>', '\u2028', *EVIL_NAMES])
def test_json_in_a_script_cannot_end_it(text):
    told = json_script({'name': text})
    assert not {*'<>&\u2028'} & {*told}
    assert json.loads(told) == {'name': text}


def test_evil_names_make_no_elements(evil):
    page = (evil / 'index.html').read_text(encoding='utf-8')
    found = Elements(page)
    assert found.tags <= KNOWN_TAGS | SVG_TAGS
    assert not [name for name in found.attributes if name.startswith('on')]
    text = ''.join(found.text)
    for name in (*EVIL_NAMES, *EVIL_IMAGES, '<b>dump.csv'):
        assert name in text
    assert page.count('<script') == page.count('</script>') == 2


def test_a_plot_is_in_the_pages_ink_with_ids_of_its_own_and_text_as_text():
    def plot(ax):
        ax.set_title('<b> & $x$')
        ax.plot([0, 1], [0, 1], 'o')

    svg, png = render('mine', plot, (3, 2))
    assert svg.startswith('<svg') and 'currentColor' in svg and '#010203' not in svg
    assert '&lt;b&gt; &amp; $x$' in svg
    assert 'id="mine-' in svg and svg.count('id="') == svg.count('id="mine-')
    assert svg.count('href="#') == svg.count('href="#mine-') > 0
    assert 'width="' not in svg[:svg.index('>')] and 'viewBox' in svg[:svg.index('>')]
    assert png.startswith(b'\x89PNG')


def test_long_names_are_shortened():
    assert shortened('Cup') == 'Cup' and len(shortened('x' * 90)) == 28
