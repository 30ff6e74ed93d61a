"""The compiler wrapper that MMCV is built with: one header read once, and never a worse result."""

import os
import shutil
import subprocess

import pytest

from tests.helpers import REPOSITORY

WRAPPER = REPOSITORY / 'tools' / 'precompiled_header_compiler.py'

pytestmark = pytest.mark.skipif(not shutil.which('g++'), reason='no g++ on this machine')


@pytest.fixture
def sources(tmp_path):
    (tmp_path / 'include').mkdir()
    (tmp_path / 'kept').mkdir()
    (tmp_path / 'include' / 'pytorch_cpp_helper.hpp').write_text(
        '#ifndef HELPER\n#define HELPER\n#include "heavy.hpp"\n#endif\n')
    (tmp_path / 'include' / 'heavy.hpp').write_text('inline int heavy() { return WEIGHT; }\n')
    return tmp_path


def compile_file(folder, name, text, *flags):
    """Compile as torch's extension builder does, ``-c`` twice and a dependency file included."""
    source = folder / f'{name}.cpp'
    source.write_text(text)
    return subprocess.run(
        [WRAPPER, '-MMD', '-MF', folder / f'{name}.d', '-O1', f'-I{folder / "include"}', '-c',
         '-c', source, '-o', folder / f'{name}.o', '-DWEIGHT=7', *flags],
        capture_output=True, text=True, check=False, cwd=folder,
        env={**os.environ, 'PRECOMPILED_HEADER_FOLDER': str(folder / 'kept'),
             'PRECOMPILED_HEADER_CXX': 'g++'})


USES_HEADER = '#include "pytorch_cpp_helper.hpp"\nint main() { return heavy(); }\n'


def test_header_is_read_once(sources):
    assert compile_file(sources, 'first', USES_HEADER).returncode == 0
    (sources / 'include' / 'heavy.hpp').write_text('this is not C++')
    assert compile_file(sources, 'second', USES_HEADER).returncode == 0


def test_compiled_file_is_the_plain_compilers(sources):
    compile_file(sources, 'main', USES_HEADER)
    linked = subprocess.run([WRAPPER, 'main.o', '-o', 'program'], cwd=sources, check=True, env={
        **os.environ, 'PRECOMPILED_HEADER_FOLDER': 'kept', 'PRECOMPILED_HEADER_CXX': 'g++'})
    assert linked.returncode == 0
    assert subprocess.run([sources / 'program'], check=False).returncode == 7


def test_other_flags_fall_back_to_the_headers_text(sources):
    compile_file(sources, 'first', USES_HEADER)
    (sources / 'include' / 'heavy.hpp').write_text('this is not C++')
    assert compile_file(sources, 'other', USES_HEADER, '-fPIC', '-UWEIGHT', '-DWEIGHT=8').returncode


def test_broken_header_does_not_stop_a_file_without_it(sources):
    (sources / 'include' / 'heavy.hpp').write_text('this is not C++')
    assert compile_file(sources, 'plain', 'int main() { return 0; }\n').returncode == 0
    assert 'not' in (sources / 'kept' / 'all.hpp.failed').read_text()


def test_compilers_error_is_passed_on(sources):
    result = compile_file(sources, 'wrong', 'int main() { return nothing; }\n')
    assert result.returncode
    assert 'nothing' in result.stderr
