"""HTML that is escaped unless it was made here.

>>> element('td', 'a < b', title='"quoted"', class_='name')
'<td title="&quot;quoted&quot;" class="name">a &lt; b</td>'
>>> element('tr', element('td', 1), element('td', 'x'))
'<tr><td>1</td><td>x</td></tr>'
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any

_WITHOUT_END = {'img', 'input', 'meta'}


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: object) -> Html:
    """HTML as it is, anything else escaped."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def join(parts: Iterable[object]) -> Html:
    """Several pieces one after the other."""
    return Html(''.join(map(text, parts)))


def element(tag: str, *children: object, **attributes: object) -> Html:
    """An element.

    Args:
        tag: its name.
        children: what is in it.
        attributes: a last ``_`` is dropped, others become ``-``; None leaves one out.
    """
    told = ''.join(f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
                   for name, value in attributes.items() if value is not None)
    if tag in _WITHOUT_END:
        return Html(f'<{tag}{told}>')
    return Html(f'<{tag}{told}>{join(children)}</{tag}>')


def json_script(value: Any) -> Html:
    """JSON for the inside of a ``<script>``; no text in it can end that."""
    told = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(',', ':'))
    return Html(told.replace('<', '\\u003c').replace('>', '\\u003e').replace('&', '\\u0026'))
