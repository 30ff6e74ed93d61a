"""Processes that a launcher started do not outlive it; those that nobody launched may.

That a killed torchrun leaves no rank behind is tested with the dump, in test_submission_dump.py.
"""

import subprocess
import sys
import time

import psutil

from tests.helpers import REPOSITORY, assert_one_line_error, run_tool

CHILD = '''
import sys, time
from mmengine.config import Config
from projects.openimages.mm.engine.processes import start_processes
start_processes(Config(), sys.argv[1])
print('ready', flush=True)
time.sleep(60)
'''
PARENT = '''
import subprocess, sys
for launcher in ('slurm', 'none'):
    print(subprocess.Popen([sys.executable, '-c', sys.argv[1], launcher]).pid, flush=True)
sys.stdin.read()
'''


def test_only_a_launched_process_ends_with_the_one_that_started_it():
    parent = subprocess.Popen([sys.executable, '-c', PARENT, CHILD], cwd=REPOSITORY, text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)
    said = []
    while said.count('ready') < 2:
        line = parent.stdout.readline()
        assert line
        said.append(line.strip())
    launched, alone = (psutil.Process(int(line)) for line in said if line.isdigit())
    parent.kill()
    parent.wait()
    try:
        launched.wait(timeout=20)
        time.sleep(2)  # more than one look at the parent
        assert alone.is_running()
    finally:
        alone.kill()
    assert 'error: the launcher has died' in parent.stderr.read()


def test_a_launcher_that_is_not_there_is_one_line(tmp_path):
    result = run_tool('-m', 'tests.mm.evaluation.dump_run', tmp_path / 'a.csv', '--launcher',
                      'pytorch')
    assert_one_line_error(result, 'needs torchrun')
