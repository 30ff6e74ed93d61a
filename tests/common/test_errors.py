"""One-line errors and exit codes, from a command's first import to its end."""

import errno
import os
import pickle
import signal
import subprocess
import sys
from contextlib import nullcontext

import pytest

from projects.openimages.common.errors import (
    ConfigError,
    UserError,
    check_number,
    run_command,
)
from projects.openimages.download.client import FetchError
from tests.helpers import REPOSITORY, run_tool


def exit_of(main, capsys):
    with pytest.raises(SystemExit) as stop:
        run_command(main)
    return stop.value.code, capsys.readouterr().err


@pytest.fixture
def _own_interrupts():
    """What a command does to Ctrl-C is undone."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_error_names_file_and_row():
    assert str(UserError('unknown class', path='a.csv', row=7)) == 'a.csv, row 7: unknown class'


def test_error_from_another_process_is_the_same():
    for kind in (UserError, ConfigError):
        error = pickle.loads(pickle.dumps(kind('unknown class', path='a.csv', row=7)))
        assert type(error) is kind and str(error) == 'a.csv, row 7: unknown class'
    refused = pickle.loads(pickle.dumps(FetchError('https://x/y', 'not there')))
    assert type(refused) is UserError and str(refused) == 'https://x/y: not there'


@pytest.mark.parametrize(('value', 'fits'), [
    (0, True), (1, True), (0.5, True), (-0.1, False), (1.5, False), (float('nan'), False),
    ('high', False), (None, False)])
def test_an_option_outside_its_range_or_no_number_is_a_value_error(value, fits):
    with nullcontext() if fits else pytest.raises(ValueError, match='share must be from 0 to 1'):
        check_number('share', value, 0, 1)


def test_an_option_without_a_most_says_its_least():
    with pytest.raises(ConfigError, match=r'^power must be 0 or more, got -1$'):
        check_number('power', -1, 0)


def test_user_error_is_one_line_and_exit_code_2(capsys):
    def main():
        raise UserError('a\nb', path='a.csv')
    assert exit_of(main, capsys) == (2, 'error: a.csv: a b\n')


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EEXIST, errno.ENOTDIR, errno.ELOOP,
                                    errno.EACCES, errno.EIO])
def test_what_the_file_system_refuses_is_one_line_and_exit_code_2(capsys, number):
    def main():
        raise OSError(number, os.strerror(number), 'out.csv')
    assert exit_of(main, capsys) == (2, f'error: out.csv: {os.strerror(number)}\n')


def test_success_hands_on_the_return_value(capsys):
    assert exit_of(lambda: None, capsys)[0] == 0
    assert exit_of(lambda: 1, capsys)[0] == 1


@pytest.mark.parametrize('bug', [ZeroDivisionError(), OSError(errno.EBADF, 'bad descriptor')])
def test_bug_keeps_its_traceback(bug):
    def main():
        raise bug
    with pytest.raises(type(bug)):
        run_command(main)


@pytest.mark.usefixtures('_own_interrupts')
def test_interrupt_is_exit_code_130(capsys):
    def main():
        raise KeyboardInterrupt
    assert exit_of(main, capsys) == (130, 'interrupted\n')


COMMAND = '''
import sys, time
from projects.openimages.common.errors import exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()
if 'import' in sys.argv:
    print('ready', flush=True)
    time.sleep(60)

def main():
    try:
        print('ready', flush=True)
        time.sleep(60)
    finally:
        print('cleaned up', flush=True)
        if 'again' in sys.argv:
            time.sleep(60)

run_command(main)
'''


def start(*argv, **options):
    """Start a command and wait until it is where it says ``ready``."""
    process = subprocess.Popen([sys.executable, '-c', COMMAND, *argv], cwd=REPOSITORY, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    assert process.stdout.readline() == 'ready\n'
    return process


@pytest.mark.parametrize(('place', 'output'), [('import', ''), ('main', 'cleaned up\n')])
def test_interrupt_is_one_line_in_imports_and_lets_main_clean_up(place, output):
    process = start(place)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == (output, 'interrupted\n')
    assert process.returncode == 130


def test_second_interrupt_ends_a_clean_up_that_takes_too_long():
    process = start('again')
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == 'cleaned up\n'
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1] == 'interrupted\n'
    assert process.returncode == 130


def test_interrupts_that_the_shell_ignores_stay_ignored():
    process = start('import', preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    process.kill()
    process.communicate()


PRINTING = ('from projects.openimages.common.errors import run_command\n'
            'run_command(lambda: print("line\\n" * 100_000))')


def test_output_that_nobody_reads_is_no_error():
    process = subprocess.Popen([sys.executable, '-c', PRINTING], cwd=REPOSITORY,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b''
    assert process.wait() == 128 + signal.SIGPIPE


def test_output_to_a_full_disk_is_one_line():
    with open('/dev/full', 'w') as full:
        result = subprocess.run([sys.executable, '-c', PRINTING], cwd=REPOSITORY, stdout=full,
                                stderr=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stderr) == (2, 'error: No space left on device\n')


@pytest.mark.parametrize('command', [
    ['tools/evaluate.py'], ['-m', 'evaluation.parity'], ['-m', 'evaluation.tf_challenge'],
    ['-m', 'tests.evaluation.parity_cases']], ids=lambda command: command[-1])
def test_interrupt_during_the_imports_of_a_command_is_one_line(tmp_path, command):
    (tmp_path / 'numpy.py').write_text('import time; print("ready", flush=True); time.sleep(60)')
    process = subprocess.Popen([sys.executable, *command], cwd=REPOSITORY, text=True,
                               env={**os.environ, 'PYTHONPATH': str(tmp_path)},
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == 'ready\n'
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ('', 'interrupted\n')
    assert process.returncode == 130


def test_importing_a_command_leaves_interrupts_alone():
    code = ('import signal; import evaluation.parity, evaluation.tf_challenge; '
            'print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)')
    assert run_tool('-c', code).stdout.strip() == 'True'
