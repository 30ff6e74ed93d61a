import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY, assert_one_line_error, run_tool
from tests.mm.engine.training_run import NO_VALIDATION, environment, torchrun, write_config


def train(config: Path, root: Path, work_dir: Path, witness: Path, *flags: str):
    return run_tool('tools/train.py', config, '--work-dir', work_dir, '--cfg-options',
                    f'data_root={root}', *flags, env=environment(witness))


def seen(witness: Path, rank: int = 0) -> dict[int, str]:
    lines = Path(f'{witness}.{rank}').read_text().splitlines()
    return {int(number): ids for number, ids in (line.split(' ', 1) for line in lines)}


def test_resume_after_a_kill_goes_on_in_the_uninterrupted_order(demo_root, tmp_path):
    # The seed is drawn, not set: the resumed run has to take it from the checkpoint.
    config = write_config(tmp_path, NO_VALIDATION + 'randomness = dict(seed=None)\n')
    work_dir, witness = tmp_path / 'work', tmp_path / 'killed'
    kill_after(9, config, demo_root, work_dir, witness)
    last = int(re.search(r'iter_(\d+)', (work_dir / 'last_checkpoint').read_text())[1])
    killed = seen(witness)
    resumed = train(config, demo_root, work_dir, tmp_path / 'resumed', '--resume')
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    after = seen(tmp_path / 'resumed')
    assert list(after) == list(range(last, 12))
    seed = re.search(r'seed: (\d+)', ''.join(
        path.read_text() for path in sorted(work_dir.glob('*/*.log'))[:1]))[1]
    whole = train(config, demo_root, tmp_path / 'whole', tmp_path / 'order',
                  f'randomness.seed={seed}')
    assert whole.returncode == 0, whole.stderr[-2000:]
    expected = seen(tmp_path / 'order')
    assert list(expected) == list(range(12)) and len(set(expected.values())) > 6
    assert killed == {number: expected[number] for number in killed}
    assert after == {number: expected[number] for number in after}


def kill_after(iteration: int, config: Path, root: Path, work_dir: Path, witness: Path) -> None:
    """Train and send SIGKILL once the given iteration has begun."""
    command = [sys.executable, 'tools/train.py', config, '--work-dir', work_dir,
               '--cfg-options', f'data_root={root}']
    with subprocess.Popen(list(map(str, command)), cwd=REPOSITORY, env=environment(witness),
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          start_new_session=True) as process:
        deadline = time.monotonic() + 300
        try:
            while not (Path(f'{witness}.0').exists() and iteration in seen(witness)):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def mean_average_precision(output: str) -> str:
    return re.findall(r'openimages/mAP: (\S+)', output)[-1]


def test_two_processes_train_on_different_images(trained):
    assert trained.checkpoint.exists()
    first, second = seen(trained.order, 0), seen(trained.order, 1)
    assert list(first) == list(second) == [0, 1, 2]
    assert first != second


def test_two_processes_test_to_the_same_metric_and_file_as_one(trained, demo_root, tmp_path):
    config, checkpoint = trained.config, trained.checkpoint
    options = ['--cfg-options', f'data_root={demo_root}']
    outputs, files = [], []
    for name, start in (('one', run_tool), ('two', torchrun)):
        files.append(tmp_path / f'{name}.csv')
        extra = {'env': environment(tmp_path)} if start is run_tool else {'witness': tmp_path}
        result = start('tools/test.py', config, checkpoint, '--work-dir', tmp_path / name,
                       '--submission', files[-1], '--submission-format', 'tf', *options, **extra)
        assert result.returncode == 0, result.stderr[-3000:]
        outputs.append(result.stdout + result.stderr)
    assert mean_average_precision(outputs[0]) == mean_average_precision(outputs[1])
    assert mean_average_precision(trained.output) == mean_average_precision(outputs[0])
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].stat().st_size > 10_000


def test_pictures_and_pickle_of_a_test(trained, demo_root, tmp_path):
    config, checkpoint = trained.config, trained.checkpoint
    result = run_tool('tools/test.py', config, checkpoint, '--work-dir', tmp_path / 'work',
                      '--show-dir', tmp_path / 'pictures', '--out', tmp_path / 'out.pkl',
                      '--json', tmp_path / 'figures.json',
                      '--cfg-options', f'data_root={demo_root}', env=environment(tmp_path))
    assert result.returncode == 0, result.stderr[-3000:]
    images = {path.stem for path in (demo_root / 'images' / 'validation').glob('*.jpg')}
    assert {path.stem for path in (tmp_path / 'pictures').glob('*.jpg')} \
        == {*images, 'contact_sheet'}
    assert (tmp_path / 'out.pkl').stat().st_size > 1000
    told = json.loads((tmp_path / 'figures.json').read_text())['openimages/mAP']
    printed = mean_average_precision(result.stdout + result.stderr)
    assert told == pytest.approx(float(printed), abs=1e-4)


def test_split_without_annotations_has_a_row_for_every_image_and_no_score(trained, demo_root,
                                                                         tmp_path):
    config, checkpoint = trained.config, trained.checkpoint
    result = run_tool('tools/test.py', config, checkpoint, '--work-dir', tmp_path / 'work',
                      '--split', 'test', '--submission', tmp_path / 'kaggle.csv',
                      '--cfg-options', f'data_root={demo_root}', env=environment(tmp_path))
    assert result.returncode == 0, result.stderr[-3000:]
    assert 'openimages/mAP:' not in result.stdout + result.stderr
    rows = (tmp_path / 'kaggle.csv').read_text().splitlines()[1:]
    images = {path.stem for path in (demo_root / 'images' / 'test').glob('*.jpg')}
    assert {row.split(',')[0] for row in rows} == images and len(rows) == len(images)


DEMO = 'configs/oi_mask_rcnn_r50_demo.py'


@pytest.mark.parametrize(('arguments', 'parts'), [
    (['tools/train.py', DEMO, '--cfg-options', 'data_root=nowhere/'], ['nowhere']),
    (['tools/test.py', DEMO, 'none.pth'], ['none.pth'])])
def test_mistakes_are_one_line(arguments, parts):
    assert_one_line_error(run_tool(*arguments), *parts)


def test_the_full_model_runs_iterations_on_a_cpu(demo_root, tmp_path):
    result = run_tool(
        'tools/train.py', 'configs/oi_mask_rcnn_r50.py', '--work-dir', tmp_path, '--cfg-options',
        f'data_root={demo_root}', 'load_from=None', 'model.backbone.init_cfg=None',
        'train_dataloader.dataset.pipeline.2.scale=(128,96)',
        'train_cfg.max_iters=2', 'val_cfg=None', 'val_dataloader=None', 'val_evaluator=None',
        'default_hooks.checkpoint.save_best=None', 'default_hooks.logger.interval=1')
    assert result.returncode == 0, result.stderr[-3000:]
    assert 'Iter(train) [2/2]' in result.stdout + result.stderr
    assert (tmp_path / 'iter_2.pth').exists()
