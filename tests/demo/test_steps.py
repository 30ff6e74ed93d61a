"""Steps are done once for what they are made from, and never at the cost of anybody's files."""

import contextlib
import signal
import subprocess
import sys
import time

import pytest

from projects.openimages.common.errors import UserError
from projects.openimages.demo.steps import MMEngineLines, Step, StepRunner, imported_files
from tests.helpers import REPOSITORY, assert_one_line_error

WRITE = 'import sys, pathlib; print("working"); pathlib.Path(sys.argv[1]).write_text("made")'
FILL = ('import sys, pathlib; folder = pathlib.Path(sys.argv[1]); folder.mkdir()\n'
        '(folder / "a").write_text("made")')


class Workshop:
    """Runs steps in a folder and keeps what was said; a new runner each time, as each demo has."""

    def __init__(self, folder):
        self.folder = folder
        self.said = []

    def run(self, *steps):
        """The names of the steps that were run."""
        reused = StepRunner(self.folder, self.folder, self.said.append).run(steps)
        return [step.name for step in steps if step.name not in reused]

    def step(self, name='first', code=WRITE, **options):
        output = self.folder / name
        command = [sys.executable, '-c', code, str(output)]
        return Step(**{'name': name, 'title': name, 'command': command, 'outputs': [output],
                       **options})

    def contents(self):
        """Text by name of all files but the runner's own."""
        return {path.relative_to(self.folder).as_posix(): path.read_text()
                for path in self.folder.rglob('*')
                if path.is_file() and '.demo' not in path.parts}


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path / 'out')


def test_a_step_is_run_once(workshop):
    assert workshop.run(workshop.step()) == ['first']
    assert workshop.run(workshop.step()) == []
    assert any('reused' in line for line in workshop.said)


def test_a_step_is_run_again_when_its_output_is_gone(workshop):
    workshop.run(workshop.step(code=FILL))
    (workshop.folder / 'first' / 'a').unlink()
    assert workshop.run(workshop.step(code=FILL)) == ['first']


@pytest.mark.parametrize('change', ['source', 'settings', 'command'])
def test_a_step_is_run_again_when_what_it_depends_on_has_changed(workshop, tmp_path, change):
    source = tmp_path / 'code.py'

    def step(value):
        source.write_text(value if change == 'source' else '')
        return workshop.step(sources=[source], settings=value if change == 'settings' else '',
                             code=WRITE + ('#' + value if change == 'command' else ''))

    assert workshop.run(step('1')) == ['first']
    assert workshop.run(step('1')) == []
    assert workshop.run(step('2')) == ['first']
    assert workshop.run(step('2')) == []


def test_a_step_is_run_again_when_one_before_it_was(workshop):
    def steps(code):
        return (workshop.step('first', code), workshop.step('second', after=['first']),
                workshop.step('third', after=['second']), workshop.step('alone'))

    assert workshop.run(*steps(WRITE)) == ['first', 'second', 'third', 'alone']
    assert workshop.run(*steps(WRITE + '#')) == ['first', 'second', 'third']
    (workshop.folder / 'first').unlink()  # and also where the same is made again
    assert workshop.run(*steps(WRITE + '#')) == ['first', 'second', 'third']


def test_a_step_without_outputs_is_run_again_even_if_another_failed_in_between(workshop):
    def steps(code, second=WRITE):
        return (workshop.step('first', code), workshop.step('second', second, after=['first']),
                workshop.step('check', 'pass', outputs=[], after=['first']))

    workshop.run(*steps(WRITE))
    with pytest.raises(UserError):
        workshop.run(*steps(WRITE + '#', second='raise SystemExit(1)'))
    assert workshop.run(*steps(WRITE + '#')) == ['second', 'check']


def test_an_output_inside_an_earlier_output_goes_with_it(workshop):
    def steps(code):
        inside = workshop.folder / 'first' / 'inside'
        return (workshop.step('first', code),
                workshop.step('second', outputs=[inside], after=['first'],
                              command=[sys.executable, '-c', FILL, str(inside)]))

    assert workshop.run(*steps(FILL)) == ['first', 'second']
    assert workshop.run(*steps(FILL)) == []
    assert workshop.run(*steps(FILL + '\n')) == ['first', 'second']
    assert workshop.contents() == {'first/a': 'made', 'first/inside/a': 'made'}


def test_what_an_earlier_run_left_is_gone_before_a_step_starts_afresh(workshop):
    extra = FILL + '\n(folder / "extra").touch()'
    workshop.run(workshop.step(code=extra))
    assert workshop.run(workshop.step(code=FILL)) == ['first']
    assert workshop.contents() == {'first/a': 'made'}


@pytest.mark.parametrize('name', ['notes.txt', 'first'])
def test_a_folder_of_other_files_is_refused_and_left_as_it_is(workshop, name):
    workshop.folder.mkdir()
    (workshop.folder / name).write_text('mine')
    with pytest.raises(UserError, match='did not make'):
        workshop.run(workshop.step())
    assert [path.name for path in workshop.folder.iterdir()] == [name]
    assert workshop.contents() == {name: 'mine'}


def test_an_empty_folder_is_taken(workshop):
    workshop.folder.mkdir()
    assert workshop.run(workshop.step()) == ['first']


def test_a_file_with_the_name_of_an_output_survives_and_nothing_is_run(workshop):
    workshop.run(workshop.step('first'))
    (workshop.folder / 'second').write_text('mine')
    with pytest.raises(UserError, match='out/second: is in the way'):
        workshop.run(workshop.step('first', WRITE + '#'), workshop.step('second'))
    assert workshop.contents() == {'first': 'made', 'second': 'mine'}


def test_an_output_that_was_changed_since_survives(workshop):
    workshop.run(workshop.step())
    (workshop.folder / 'first').write_text('mine')
    with pytest.raises(UserError, match='out/first: is in the way'):
        workshop.run(workshop.step())
    assert workshop.contents() == {'first': 'mine'}


def test_a_file_beside_those_of_a_step_survives(workshop):
    workshop.run(workshop.step(code=FILL))
    (workshop.folder / 'first' / 'notes').write_text('mine')
    assert workshop.run(workshop.step(code=FILL)) == []
    with pytest.raises(UserError, match='out/first/notes: is in the way'):
        workshop.run(workshop.step(code=FILL + '\n'))
    assert workshop.contents() == {'first/a': 'made', 'first/notes': 'mine'}


def test_a_linked_folder_in_an_outputs_place_keeps_its_files(workshop, tmp_path):
    workshop.run(workshop.step('first'))
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'elsewhere' / 'mine').touch()
    (workshop.folder / 'second').symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(UserError, match='out/second: is in the way'):
        workshop.run(workshop.step('second', FILL))
    assert (tmp_path / 'elsewhere' / 'mine').exists()


def test_a_failing_step_says_so_and_is_run_again_from_nothing(workshop):
    failing = FILL + '\nprint("a hint"); raise SystemExit(3)'
    for _ in range(2):
        with pytest.raises(UserError, match='exit code 3'):
            workshop.run(workshop.step(code=failing))
    assert any('a hint' in line for line in workshop.said)
    assert workshop.run(workshop.step(code=FILL)) == ['first']


def test_a_file_added_after_a_failed_step_survives(workshop):
    with pytest.raises(UserError, match='exit code'):
        workshop.run(workshop.step(code=FILL + '\nraise SystemExit(3)'))
    (workshop.folder / 'first' / 'notes').write_text('mine')
    with pytest.raises(UserError, match='in the way'):
        workshop.run(workshop.step(code=FILL))
    assert workshop.contents() == {'first/a': 'made', 'first/notes': 'mine'}


def test_a_step_without_its_output_is_an_error(workshop):
    with pytest.raises(UserError, match='without writing'):
        workshop.run(workshop.step(code='pass'))


GOES_ON = '''
import pathlib, sys
path, resumed = pathlib.Path(sys.argv[1]), '--go-on' in sys.argv
path.write_text((path.read_text() if path.exists() else '') + f'{resumed} ')
sys.exit(0 if resumed else 1)'''


def test_an_interrupted_step_goes_on_with_its_flags_and_keeps_what_it_has(workshop):
    step = workshop.step(code=GOES_ON, resume_flags=['--go-on'])
    with pytest.raises(UserError):
        workshop.run(step)
    assert workshop.run(step) == ['first']
    assert workshop.contents() == {'first': 'False True '}


def test_an_interrupted_step_does_not_go_on_from_what_was_made_before_a_change(workshop):
    def steps(settings):
        return (workshop.step('first', settings=settings),
                workshop.step('second', GOES_ON, resume_flags=['--go-on'], after=['first']))

    for settings in '12':
        with pytest.raises(UserError):
            workshop.run(*steps(settings))
        assert workshop.contents()['second'] == 'False '


def test_what_an_interrupted_step_left_elsewhere_is_removed(workshop):
    parts = workshop.folder / 'first.parts'
    leaving = f'import pathlib; pathlib.Path({str(parts)!r}).touch(); raise SystemExit(1)'
    with pytest.raises(UserError):
        workshop.run(workshop.step(code=leaving, leftovers=[parts]))
    workshop.run(workshop.step(leftovers=[parts]))
    assert workshop.contents() == {'first': 'made'}


def test_the_log_has_what_is_not_shown(workshop):
    workshop.run(workshop.step(show=lambda line: None))
    assert 'working' in (workshop.folder / '.demo' / 'first.log').read_text()
    assert '  working' not in workshop.said


@pytest.mark.parametrize('text', ['', '{"first": '])
def test_a_state_file_that_is_none_is_refused(workshop, text):
    workshop.run(workshop.step())
    (workshop.folder / '.demo' / 'state.json').write_text(text)
    with pytest.raises(UserError, match='not the state of a former run'):
        workshop.run(workshop.step())
    assert workshop.contents() == {'first': 'made'}


def run_apart(folder, *flags, shell=()):
    """The two steps of steps_run.py in a process of their own."""
    return subprocess.Popen([*shell, sys.executable, '-m', 'tests.demo.steps_run', str(folder),
                             *flags], cwd=REPOSITORY, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


@contextlib.contextmanager
def started_in(folder, ignoring_ctrl_c=False):
    """A run whose second step has begun: (folder, process of the run, process id of the step)."""
    (folder / '.demo').mkdir(parents=True)
    (folder / 'slowly').touch()
    shell = ('sh', '-c', 'trap "" INT; exec "$@"', 'sh') if ignoring_ctrl_c else ()
    with run_apart(folder, '--go-on', shell=shell) as process:
        try:
            wait_for(lambda: (folder / 'slow' / 'pid').exists() or process.poll() is not None)
            yield folder, process, int((folder / 'slow' / 'pid').read_text())
        finally:
            process.kill()


@pytest.fixture
def started(tmp_path):
    with started_in(tmp_path / 'out') as run:
        yield run


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid):
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def finished(process):
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_a_second_run_in_the_same_folder_is_refused_in_one_line(started):
    folder, process, pid = started
    assert_one_line_error(finished(run_apart(folder)), 'another run is working in this folder')
    assert is_running(pid) and process.poll() is None


def test_ctrl_c_ends_the_step_and_the_next_run_goes_on(started):
    folder, process, pid = started
    process.send_signal(signal.SIGINT)
    ended = finished(process)
    assert (ended.returncode, ended.stderr) == (130, 'interrupted\n')
    assert not is_running(pid)
    again = finished(run_apart(folder, '--go-on'))
    assert again.returncode == 0, again.stderr
    assert 'going on' in again.stdout and "reused ['quick']" in again.stdout


def test_what_a_step_writes_after_ctrl_c_is_known_as_its_own(started):
    folder, process, _ = started
    process.send_signal(signal.SIGINT)
    assert finished(process).returncode == 130
    assert (folder / 'slow' / 'late').exists()
    (folder / 'slowly').unlink()
    again = finished(run_apart(folder))
    assert again.returncode == 0, again.stderr
    assert not (folder / 'slow' / 'late').exists()


def test_a_killed_run_takes_its_step_with_it_and_the_next_run_goes_on(started):
    folder, process, pid = started
    process.kill()
    wait_for(lambda: not is_running(pid))
    again = finished(run_apart(folder, '--go-on'))
    assert again.returncode == 0, again.stderr
    assert 'going on' in again.stdout and "reused ['quick']" in again.stdout


def test_a_killed_run_takes_its_step_with_it_where_ctrl_c_is_ignored(tmp_path):
    with started_in(tmp_path / 'out', ignoring_ctrl_c=True) as (_, process, pid):
        process.kill()
        wait_for(lambda: not is_running(pid))


def test_what_a_killed_step_left_is_removed_where_it_cannot_go_on(started):
    folder, process, pid = started
    process.kill()
    wait_for(lambda: not is_running(pid))
    (folder / 'slowly').unlink()
    (folder / 'slow' / 'half').rename(folder / 'slow' / 'other')
    again = finished(run_apart(folder))
    assert again.returncode == 0, again.stderr
    assert 'going on' not in again.stdout and "reused ['quick']" in again.stdout
    assert sorted(path.name for path in (folder / 'slow').iterdir()) == ['half', 'pid']


def test_the_files_a_script_imports_are_found_wherever_it_does_so(tmp_path):
    files = {'script.py': 'import json, numpy\nfrom package import one\n'
                          'def late():\n    import package.two',
             'package/__init__.py': '', 'package/one.py': 'from package.three import x',
             'package/two.py': '', 'package/three.py': 'x = 1', 'package/not_imported.py': ''}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    def names(**options):
        found = imported_files(tmp_path, tmp_path / 'script.py', **options)
        return {path.relative_to(tmp_path).as_posix() for path in found}

    plain = {'script.py', 'package/__init__.py', 'package/one.py', 'package/two.py',
             'package/three.py'}
    assert names() == plain
    assert names(without=['package.one']) == plain - {'package/one.py', 'package/three.py'}


def test_mmengines_log_is_reduced_to_progress_results_and_errors():
    stamp = '11/22 22:49:43 - mmengine - '
    lines = ['Could not import OneDL', f'{stamp}INFO - Config:', 'model = dict(',
             f'{stamp}WARNING - "FileClient" will be deprecated',
             f'{stamp}INFO - Iter(train) [ 10/400]  loss: 6.4528', f'{stamp}INFO - ',
             'name       AP  positives', 'Mug    1.0000         23',
             f'{stamp}INFO - Saving checkpoint at 400 iterations', 'Mug', 'error: no such file',
             f'{stamp}INFO - out.csv: 12 images, 696 detections, 0.17 MB']
    show = MMEngineLines()
    assert [shown for line in lines if (shown := show(line)) is not None] == [
        'Iter(train) [ 10/400]  loss: 6.4528', 'name       AP  positives',
        'Mug    1.0000         23', 'error: no such file',
        'out.csv: 12 images, 696 detections, 0.17 MB']
