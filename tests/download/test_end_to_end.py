"""From an empty folder to a training iteration: one command each, for either release."""

import os

import pytest
from PIL import Image

from tests.helpers import run_tool
from tests.mm.engine.training_run import NO_VALIDATION, write_config


def run(*arguments, **options) -> str:
    result = run_tool(*arguments, **options)
    assert result.returncode == 0, result.stderr[-3000:]
    for chatter in ('OneDL', 'faster_coco_eval', 'Traceback'):
        assert chatter not in result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.mark.parametrize('release', ['challenge', 'v7'])
def test_download_prepare_browse_and_train(request, release, root, tmp_path):
    mirror = request.getfixturevalue(release)
    run('tools/download.py', '--release', release, '--split', 'train', 'validation',
        '--data-root', root, '--base-url', mirror.url)
    said = run('tools/prepare_data.py', '--data-root', root, '--split', 'train', 'validation')
    assert 'NOT FOUND' not in said and 'No problems.' in said
    sheet = tmp_path / 'sheet.png'
    run('tools/browse_dataset.py', '--data-root', root, '--split', 'train', '--out', sheet)
    assert Image.open(sheet).size > (1000, 500)
    said = run('tools/train.py', write_config(tmp_path, NO_VALIDATION), '--work-dir',
               tmp_path / 'work', '--cfg-options', f'data_root={root}/', 'train_cfg.max_iters=1',
               env={**os.environ, 'WITNESS': str(tmp_path / 'witness')})
    assert 'Iter(train) [1/1]' in said
    seen = (tmp_path / 'witness.0').read_text().split()[1:]
    assert len(seen) == 2 and all((root / 'images' / 'train' / f'{each}.jpg').exists()
                                  for each in seen)
    assert (tmp_path / 'work' / 'iter_1.pth').stat().st_size > 1_000_000
