import json
import sys

import pytest

from projects.openimages.common.errors import UserError
from projects.openimages.demo.steps import MMEngineLines, Step, StepRunner

WRITE = 'import sys, pathlib; print("working"); pathlib.Path(sys.argv[1]).write_text("made")'


class Workshop:
    """Runs steps in a folder and keeps what was said; a new runner each time, as each demo has."""

    def __init__(self, folder):
        self.folder = folder
        self.said = []

    def run(self, *steps):
        runner = StepRunner(self.folder / 'state', self.folder, self.said.append)
        return [runner.run(step) for step in steps]

    def step(self, name='first', code=WRITE, **options):
        output = self.folder / name
        command = [sys.executable, '-c', code, str(output)]
        return Step(**{'name': name, 'title': name, 'command': command, 'outputs': [output],
                       **options})


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path)


def test_a_step_is_run_once(workshop):
    assert workshop.run(workshop.step()) == [True]
    assert workshop.run(workshop.step()) == [False]
    assert any('reused' in line for line in workshop.said)


def test_a_step_is_run_again_when_its_output_is_gone(workshop):
    workshop.run(workshop.step())
    (workshop.folder / 'first').unlink()
    assert workshop.run(workshop.step()) == [True]


def test_a_step_is_run_again_when_its_code_has_changed(workshop):
    source = workshop.folder / 'code'
    source.mkdir()
    (source / 'a.py').write_text('1')
    step = workshop.step(sources=[source])
    assert workshop.run(step) == [True]
    (source / 'a.py').write_text('2')
    assert workshop.run(step) == [True]
    assert workshop.run(step) == [False]


def test_a_step_is_run_again_when_one_before_it_has_changed(workshop):
    def steps(code):
        return (workshop.step('first', code), workshop.step('second', after=['first']),
                workshop.step('alone'))

    assert workshop.run(*steps(WRITE)) == [True, True, True]
    assert workshop.run(*steps(WRITE + '#')) == [True, True, False]


def test_old_outputs_are_gone_before_a_step_starts_afresh(workshop):
    (workshop.folder / 'first').mkdir()
    (workshop.folder / 'first' / 'stale').touch()
    assert workshop.run(workshop.step()) == [True]
    assert (workshop.folder / 'first').read_text() == 'made'


def test_a_failing_step_says_so_and_is_not_done(workshop):
    failing = workshop.step(code='print("a hint"); raise SystemExit(3)')
    for _ in range(2):
        with pytest.raises(UserError, match='exit code 3'):
            workshop.run(failing)
    assert any('a hint' in line for line in workshop.said)


def test_a_step_without_its_output_is_an_error(workshop):
    with pytest.raises(UserError, match='without writing'):
        workshop.run(workshop.step(code='pass'))


def test_an_interrupted_step_goes_on_with_its_flags_and_keeps_what_it_has(workshop):
    code = ('import sys, pathlib; path = pathlib.Path(sys.argv[1])\n'
            'resumed = "--go-on" in sys.argv\n'
            'path.write_text((path.read_text() if path.exists() else "") + f"{resumed} ")\n'
            'sys.exit(0 if resumed else 1)')
    step = workshop.step(code=code, resume_flags=['--go-on'])
    with pytest.raises(UserError):
        workshop.run(step)
    assert workshop.run(step) == [True]
    assert (workshop.folder / 'first').read_text() == 'False True '


def test_the_log_has_what_is_not_shown(workshop):
    workshop.run(workshop.step(show=lambda line: None))
    assert 'working' in (workshop.folder / 'state' / 'logs' / 'first.log').read_text()
    assert '  working' not in workshop.said
    stamp = workshop.folder / 'state' / 'stamps' / 'first.done'
    assert 'seconds' in json.loads(stamp.read_text())


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
