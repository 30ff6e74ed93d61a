"""Small things that several test modules build or run."""

import ast
import contextlib
import csv
import io
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

SMALL_CLASSES = (('/m/0animal', 'Animal'), ('/m/0cat', 'Cat, domestic'), ('/m/0dog', 'Dög'),
                 ('/m/0toy', 'Toy'), ('/m/0bear', 'Teddy bear'), ('/m/0cup', 'Cup'))
SMALL_TREE = {'/m/0animal': ('/m/0cat', '/m/0dog', '/m/0bear'), '/m/0toy': ('/m/0bear',),
              '/m/0cup': ()}


def write_classes(folder: Path) -> tuple[Path, Path]:
    """The small class list and its hierarchy as files; returns both paths."""
    classes, hierarchy = folder / 'classes.csv', folder / 'hierarchy.json'
    classes.write_text(''.join(f'{mid},"{name}"\n' if ',' in name else f'{mid},{name}\n'
                               for mid, name in SMALL_CLASSES), encoding='utf-8')
    tree = {'LabelName': '/m/0bl9f', 'Subcategory': [
        {'LabelName': mid, 'Subcategory': [{'LabelName': child} for child in children]}
        if children else {'LabelName': mid} for mid, children in SMALL_TREE.items()]}
    hierarchy.write_text(json.dumps(tree), encoding='utf-8')
    return classes, hierarchy


def run_tool(*arguments, timeout=600, **options) -> subprocess.CompletedProcess:
    """Run ``python ARGUMENTS`` from the repository root and return its output as text."""
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=REPOSITORY, text=True,
                          capture_output=True, timeout=timeout, check=False, **options)


def run_here(*arguments) -> subprocess.CompletedProcess:
    """The same of a script that needs no fresh process: in this one, whose imports are done."""
    words, out, err = [*map(str, arguments)], io.StringIO(), io.StringIO()
    with (pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out),
          contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end):
        patch.setattr(sys, 'argv', words)
        patch.setattr(sys, 'path', list(sys.path))
        runpy.run_path(str(REPOSITORY / words[0]), run_name='__main__')
    return subprocess.CompletedProcess(words, end.value.code, out.getvalue(), err.getvalue())


def run_main(monkeypatch, tool: str, *arguments) -> None:
    """Run a tool's ``main`` in this process, which saves the seconds that its imports take."""
    monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
    runpy.run_path(str(REPOSITORY / tool))['main']()


def assert_one_line_error(result: subprocess.CompletedProcess, *parts: str) -> None:
    """The run ended with exit code 2 and one ``error:`` line that holds every one of ``parts``."""
    assert result.returncode == 2, (result.returncode, result.stderr)
    assert 'Traceback' not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1, result.stderr
    for part in parts:
        assert part in lines[0], lines[0]


def turned_round(source: Path, out: Path) -> Path:
    """The same CSV, its last column first."""
    csv.field_size_limit(sys.maxsize)
    with open(source, encoding='utf-8', newline='') as file:
        rows = [row[::-1] for row in csv.reader(file)]
    with open(out, 'w', encoding='utf-8', newline='') as file:
        csv.writer(file, lineterminator='\n').writerows(rows)
    return out


def imports_of(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it; ``from a import b`` gives ``a.b``."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: a relative import'
            names |= {f'{node.module}.{alias.name}' for alias in node.names}
    return names
