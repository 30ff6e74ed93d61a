"""Progress on a terminal and in a log."""

import sys

from projects.openimages.common.progress import progress


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
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True, raising=False)
    list(progress(range(4), desc='masks'))
    assert '\r' in capsys.readouterr().err
