"""Ctrl-C while a command is still importing."""

import os

import pytest

from tests.helpers import REPOSITORY, run_tool

# They import the standard library only.
WITHOUT_IMPORTS = ('setup_environment.py', 'precompiled_header_compiler.py')
TOOLS = sorted(path.name for path in (REPOSITORY / 'tools').glob('*.py')
               if path.name not in WITHOUT_IMPORTS)
IMPORTS_LATE = {  # not for --help
    'train.py': ('config.py',),
    'predict.py': ('config.py', 'in.pth', 'in.jpg', '--out', 'out'),
    'browse_pipeline.py': ('config.py', '--out', 'out'),
    'trim_checkpoint.py': ('in.pth', 'out.pth'),
    'publish_model.py': ('in.pth', 'out.pth'),
    'download.py': ('--release', 'v7', '--split', 'test', '--data-root', '.')}

# Python runs this at its start: Ctrl-C comes when numpy is asked for, which every command needs.
INTERRUPTED_AT_NUMPY = '''
import os, signal, sys
from importlib.abc import MetaPathFinder

class Interrupt(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == 'numpy':
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
'''


@pytest.mark.parametrize('tool', TOOLS)
def test_interrupt_during_imports_is_one_word(tool, tmp_path):
    (tmp_path / 'sitecustomize.py').write_text(INTERRUPTED_AT_NUMPY)
    arguments = IMPORTS_LATE.get(tool, ('--help',))
    result = run_tool(f'tools/{tool}', *arguments,
                      env={**os.environ, 'PYTHONPATH': str(tmp_path)})
    assert (result.returncode, result.stderr) == (130, 'interrupted\n')
