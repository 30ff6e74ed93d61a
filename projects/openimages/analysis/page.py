"""The report as one HTML file that needs nothing else, and no network.

In: what ``report.json`` says, the plots as SVG, pictures as JPEG. Out: ``index.html``. The page's
own policy lets the browser run the one script that is in it and load nothing from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from projects.openimages.analysis import sections
from projects.openimages.analysis.html import Html, json_script, text
from projects.openimages.common.files import atomic_write


@dataclass
class Pictures:
    """Captioned JPEGs by kind."""

    by_kind: dict[str, list[tuple[str, Sequence[bytes]]]] = field(
        default_factory=lambda: defaultdict(list))

    def add(self, kind: str, caption: str, *pictures: bytes | None) -> None:
        """One caption and its pictures; those that are None could not be drawn."""
        self.by_kind[kind].append((caption, [data for data in pictures if data is not None]))

    def html(self, kind: str) -> Html:
        """The figures of a kind; nothing where there are none."""
        return sections.figures([
            (caption, [f'data:image/jpeg;base64,{base64.b64encode(data).decode()}'
                       for data in pictures]) for caption, pictures in self.by_kind.get(kind, [])])


def write_page(path: Path, report: Mapping[str, Any], plots: Mapping[str, str],
               pictures: Pictures) -> None:
    """Write the page.

    Args:
        path: the file.
        report: as in ``report.json``.
        plots: SVG by name.
        pictures: what was drawn.
    """
    folder = files('projects.openimages.analysis') / 'templates'
    script, style, page = ((folder / name).read_text(encoding='utf-8')
                           for name in ('page.js', 'page.css', 'page.html'))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    inputs = report['inputs']
    title = f'{Path(inputs["predictions"]).name} on {inputs["split"]}'
    body = sections.body(report, {name: Html(svg) for name, svg in plots.items()}, pictures.html)
    data = {str(one['class_id']): {key: one[key] for key in ('AP_interval', 'curve', 'errors')}
            for one in report['classes'] if one['AP'] is not None or one['true'] + one['false']}
    with atomic_write(path) as file:
        file.write(Template(page).substitute(
            title=text(title), script_digest=digest, style=style, script=script, body=body,
            data=json_script(data)))
