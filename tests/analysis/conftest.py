"""A prepared demo split, two dumps of it, and their report."""

import pytest

from projects.openimages.analysis.report import ReportOptions, make_report
from tests.analysis import scenes
from tests.analysis.noisy_dump import noisy_dump
from tests.helpers import run_tool
from tests.submissions.fake_dump import prepare_demo


@pytest.fixture(scope='session')
def demo(tmp_path_factory):
    """A folder with ``prepared/validation``, and dumps ``better.csv`` and ``worse.csv``."""
    folder = tmp_path_factory.mktemp('report-demo')
    prepared = prepare_demo(folder)
    for name, skill in (('better', 0.85), ('worse', 0.5)):
        noisy_dump(folder / f'{name}.csv', prepared / 'index.arrow', skill)
    return folder


@pytest.fixture(scope='session')
def reported(demo):
    """The folder of a report with all that there is: comparison, pictures, training counts.

    The training index is the split's own: any will do.
    """
    prepared = demo / 'prepared' / 'validation'
    result = run_tool(
        'tools/report.py', demo / 'better.csv', '--prepared', prepared, '--train-index',
        prepared / 'index.arrow', '--compare', demo / 'worse.csv', '--out', demo / 'report',
        '--pictures', 2)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith('mAP 0.') and 'index.html' in result.stdout
    return demo / 'report'


EVIL_NAMES = ('Animal"><img src=x onerror=alert(1)>', '<script>document.title = "owned"</script>',
              "O'Dog & \"friends\" </script><b>$x^2$ ${1}", 'Cup\u2028<!--')
EVIL_IMAGES = tuple(f'<img src=x onerror=e({n})>' for n in range(2))


@pytest.fixture(scope='session')
def evil(tmp_path_factory):
    """The folder of a report on classes, images and a file whose names would do harm as HTML."""
    folder = tmp_path_factory.mktemp('evil')
    scene = scenes.Scene(
        (scenes.Thing(scenes.CAT, 0, 10), scenes.Thing(scenes.DOG, 20, 30),
         scenes.Thing(scenes.CUP, 30, 40)),
        (scenes.Found(scenes.CAT, 0.9, 0, 10), scenes.Found(scenes.CAT, 0.8, 20, 30),
         scenes.Found(scenes.ANIMAL, 0.7, 0, 10), scenes.Found(scenes.DOG, 0.6, 0, 10)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, 'image_id', EVIL_IMAGES.__getitem__)
        scenes.make_index(folder / 'index.arrow', [scene] * 2, EVIL_NAMES)
        dump = scenes.write_dump(folder / '<b>dump.csv', [scene] * 2)
    make_report(ReportOptions(dump, folder / 'index.arrow', compare=dump), folder / 'report')
    return folder / 'report'
