"""Whole files, one-line errors and exit codes."""

import errno

import pytest

from projects.openimages import support
from projects.openimages.common.errors import UserError, run_command
from projects.openimages.common.files import atomic_write
from projects.openimages.common.progress import progress


def exit_of(main, capsys):
    with pytest.raises(SystemExit) as stop:
        run_command(main)
    return stop.value.code, capsys.readouterr().err


def test_error_names_file_and_row():
    assert str(UserError('unknown class', path='a.csv', row=7)) == 'a.csv, row 7: unknown class'


def test_user_error_is_one_line_and_exit_code_2(capsys):
    def main():
        raise UserError('a\nb', path='a.csv')
    assert exit_of(main, capsys) == (2, 'error: a.csv: a b\n')


def test_full_disk_is_one_line_and_exit_code_2(capsys):
    def main():
        raise OSError(errno.ENOSPC, 'No space left on device', 'out.csv')
    assert exit_of(main, capsys) == (2, 'error: out.csv: No space left on device\n')


def test_interrupt_is_exit_code_130(capsys):
    def main():
        raise KeyboardInterrupt
    assert exit_of(main, capsys) == (130, 'interrupted\n')


def test_success_hands_on_the_return_value(capsys):
    assert exit_of(lambda: None, capsys)[0] == 0
    assert exit_of(lambda: 1, capsys)[0] == 1


def test_bug_keeps_its_traceback():
    def main():
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        run_command(main)


def test_file_appears_only_when_whole(tmp_path):
    path = tmp_path / 'new' / 'out.txt'
    with atomic_write(path) as file:
        file.write('é')
        assert not path.exists()
    assert path.read_bytes() == 'é'.encode()
    assert [p.name for p in path.parent.iterdir()] == ['out.txt']


def test_former_file_survives_an_error(tmp_path):
    path = tmp_path / 'out.txt'
    path.write_text('before')
    with pytest.raises(RuntimeError, match='stop'), atomic_write(path) as file:
        file.write('half')
        raise RuntimeError('stop')
    assert path.read_text() == 'before'
    assert [p.name for p in tmp_path.iterdir()] == ['out.txt']


def test_progress_in_a_log_is_whole_lines(capsys):
    with progress(total=2, desc='masks') as bar:
        bar.delay = 0
        bar.update(2)
        bar.refresh()
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith('masks: 100%') and '2/2' in line for line in lines)


def test_quick_work_leaves_no_line_in_a_log(capsys):
    assert sum(progress(range(4))) == 6
    assert capsys.readouterr().err == ''


def test_progress_on_a_terminal_redraws_its_line(capsys, monkeypatch):
    monkeypatch.setattr(support.sys.stderr, 'isatty', lambda: True, raising=False)
    list(progress(range(4), desc='masks'))
    assert '\r' in capsys.readouterr().err
