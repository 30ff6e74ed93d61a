"""A W&B client that notes down what it is told, a call a line, in its ``dir``."""

from pathlib import Path

SOURCE = '''
import json, os

def note(*call):
    with open(os.path.join(folder, 'wandb.jsonl'), 'a') as file:
        file.write(json.dumps(call, default=str) + '\\n')

def init(**options):
    global folder
    folder = options['dir']

def define_metric(name, **options):
    note('define_metric', name, options)

def log(scalars, commit=None):
    note('log', scalars)

def join():
    pass

class config:
    update = staticmethod(lambda values, **options: note('config', sorted(values)))

class run:
    log_code = staticmethod(lambda name=None: None)
'''


def write_fake_wandb(folder: Path) -> Path:
    """The package, in a folder to put on the path."""
    package = folder / 'path' / 'wandb'
    package.mkdir(parents=True)
    (package / '__init__.py').write_text(SOURCE)
    return package.parent
