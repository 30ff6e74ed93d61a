"""The dump writes every image once, in order, whatever happens on the way."""

import os
import random
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
import torch
from mmengine.config import Config

from projects.openimages.common.errors import UserError
from projects.openimages.masks import area, decode_text
from projects.openimages.mm.evaluation.submission_dump import (
    SubmissionDumpHook,
    add_submission_dump,
)
from projects.openimages.submissions.dump.parts import FinishedImages, parts_folder
from projects.openimages.submissions.formats import Submission
from tests.helpers import REPOSITORY, assert_one_line_error, run_tool
from tests.mm.evaluation import dump_run
from tests.mm.evaluation.dump_run import HEIGHT, MIDS, WIDTH, detections, make_config, run

NUM_IMAGES = 7


def dump(tmp_path, *, config=None, name='a.csv', **options):
    """The submission of a toy run."""
    out = tmp_path / name
    run(make_config(tmp_path / 'work', NUM_IMAGES, **(config or {})), out, **options)
    with Submission(out) as submission:
        return {image.image_id: image for image in submission}


def test_every_image_has_a_row_in_list_order_also_without_detections(tmp_path):
    images = dump(tmp_path, expand_hierarchy=False)
    assert list(images) == [f'{index:016x}' for index in range(NUM_IMAGES)]
    assert not images[f'{3:016x}'].detections
    assert not parts_folder(tmp_path / 'a.csv').exists()


def test_rows_hold_what_the_model_said_less_empty_masks(tmp_path):
    for index, image in enumerate(dump(tmp_path, expand_hierarchy=False).values()):
        expected = detections(index)
        full = np.flatnonzero(area(expected.masks)) if len(expected) else []
        assert [d.mid for d in image.detections] == [MIDS[expected.labels[n]] for n in full]
        assert [np.float32(d.score) for d in image.detections] == [expected.scores[n] for n in full]
        assert [decode_text(d.mask, HEIGHT, WIDTH) for d in image.detections] == [
            expected.masks[n] for n in full]


def test_pixel_masks_of_the_stock_head_give_the_same_file(tmp_path):
    dump(tmp_path, name='rle.csv')
    dump(tmp_path, name='pixels.csv', config={'tensor_masks': True})
    assert (tmp_path / 'rle.csv').read_bytes() == (tmp_path / 'pixels.csv').read_bytes()


def test_batch_size_does_not_change_the_file(tmp_path):
    dump(tmp_path, name='one.csv', config={'batch_size': 1})
    dump(tmp_path, name='three.csv', config={'batch_size': 3})
    assert (tmp_path / 'one.csv').read_bytes() == (tmp_path / 'three.csv').read_bytes()


def test_threshold_cap_and_expansion_apply(tmp_path):
    for index, image in enumerate(dump(tmp_path, score_thr=0.5, max_per_img=1).values()):
        scores = [float(d.score) for d in image.detections]
        assert all(score >= 0.5 for score in scores) and len(set(scores)) <= 1
        best = detections(index).scores.max().item() if len(detections(index)) else 0
        assert not scores or np.float32(scores[0]) == np.float32(best)
        leaves = {d.mask for d in image.detections if d.mid != MIDS[0]}
        assert leaves <= {d.mask for d in image.detections if d.mid == MIDS[0]}


def test_size_limit_holds(tmp_path):
    dump(tmp_path, name='full.csv')
    limit = (tmp_path / 'full.csv').stat().st_size - 100
    dump(tmp_path, name='small.csv', max_size=str(limit), submission_format='kaggle')
    assert limit - 500 < (tmp_path / 'small.csv').stat().st_size <= limit


def test_metric_gets_the_same_selection(tmp_path):
    cfg = make_config(tmp_path, 1)
    cfg.test_evaluator = [Config({'type': 'OpenImagesChallengeMetric'})._cfg_dict]
    add_submission_dump(cfg, tmp_path / 'a.csv', score_thr=0.25, max_per_img=9,
                        expand_hierarchy=False)
    assert cfg.test_evaluator[0] == {'type': 'OpenImagesChallengeMetric', 'score_thr': 0.25,
                                     'max_per_img': 9, 'expand_hierarchy': False}


@pytest.mark.parametrize('options', [
    {'submission_format': 'coco'}, {'score_thr': 1.5}, {'max_per_img': 0}, {'max_size': 'much'}])
def test_impossible_option_is_refused_before_anything_runs(tmp_path, options):
    with pytest.raises(UserError):
        add_submission_dump(make_config(tmp_path, 1), tmp_path / 'a.csv', **options)


def test_unreadable_image_ends_the_run_with_its_name(tmp_path):
    result = run_tool('-m', 'tests.mm.evaluation.dump_run', tmp_path / 'a.csv',
                      '--images', 4, '--bad', 2)
    assert_one_line_error(result, f'images/{2:016x}.jpg', 'not a readable image', '--skip-bad')
    assert not (tmp_path / 'a.csv').exists()


def test_skip_bad_gives_an_empty_row_and_says_so(tmp_path):
    images = dump(tmp_path, config={'bad': (1,)}, skip_bad=True)
    assert not images[f'{1:016x}'].detections and images[f'{2:016x}'].detections
    log = ''.join(path.read_text() for path in (tmp_path / 'work').rglob('*.log'))
    assert f'images/{1:016x}.jpg: not a readable image: a row without detections' in log


def command(out, *options, processes=1):
    start = ([sys.executable] if processes == 1 else
             [sys.executable, '-m', 'torch.distributed.run', '--standalone',
              f'--nproc_per_node={processes}'])
    launcher = [] if processes == 1 else ['--launcher', 'pytorch']
    return [*start, '-m', 'tests.mm.evaluation.dump_run', str(out), '--images', '31',
            *launcher, *options]


def reference(tmp_path):
    run(make_config(tmp_path / 'work', 31), tmp_path / 'reference.csv')
    return (tmp_path / 'reference.csv').read_bytes()


def test_two_processes_write_each_image_once_in_list_order(tmp_path):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    result = subprocess.run(command(tmp_path / 'a.csv', processes=2), cwd=REPOSITORY,
                            env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / 'a.csv').read_bytes() == reference(tmp_path)


def test_killed_processes_leave_nobody_behind_and_their_run_continues(tmp_path):
    out = tmp_path / 'a.csv'
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    for victim in ('launcher', 'rank 0'):
        launcher = psutil.Popen(
            command(out, '--resume', '--delay', '1', processes=2), cwd=REPOSITORY,
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = finished(out)
        while finished(out) < before + 4:
            assert launcher.poll() is None
            time.sleep(0.02)
        ranks = launcher.children()
        assert len(ranks) == 2
        (launcher if victim == 'launcher' else rank_zero(ranks)).kill()
        gone, alive = psutil.wait_procs([launcher, *ranks], timeout=20)
        assert not alive and len(gone) == 3 and launcher.returncode != 0
        assert not out.exists() and finished(out) < 31
    result = run_tool(*command(out, '--resume', processes=2)[1:], env=environment)
    assert result.returncode == 0, result.stderr[-2000:]
    assert 'images were finished before' in result.stderr + result.stdout
    assert out.read_bytes() == reference(tmp_path)


def test_second_dump_to_the_file_is_refused_while_the_first_is_at_work(tmp_path):
    out = tmp_path / 'a.csv'
    first = subprocess.Popen(command(out, '--delay', '60'), cwd=REPOSITORY,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not parts_folder(out).exists():
            assert first.poll() is None
            time.sleep(0.02)
        for options in ((), ('--resume',)):
            assert_one_line_error(run_tool(*command(out, *options)[1:]), 'another run is writing')
    finally:
        first.kill()
        first.wait()


def rank_zero(processes):
    return next(process for process in processes if process.environ()['RANK'] == '0')


def test_killed_run_continues_to_the_same_bytes(tmp_path):
    out = tmp_path / 'a.csv'
    moments = random.Random(5)
    for _ in range(3):
        run_killed = subprocess.Popen(
            command(out, '--resume', '--delay', '0.05'), cwd=REPOSITORY,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = finished(out)
        while finished(out) == before and run_killed.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.2))
        run_killed.kill()
        run_killed.wait()
        assert not out.exists() and 0 < finished(out) < 31
    refused = run_tool(*command(out)[1:])
    assert_one_line_error(refused, '--resume-submission')
    result = run_tool(*command(out, '--resume')[1:])
    assert result.returncode == 0, result.stderr[-2000:]
    assert 'images were finished before' in result.stderr + result.stdout
    assert out.read_bytes() == reference(tmp_path)


def finished(out):
    """How many images the part files hold."""
    return sum(path.read_bytes().count(b'\n') - 1 for path in parts_folder(out).glob('part-*.csv')
               if b'\n' in path.read_bytes())


def test_kill_between_the_last_row_and_the_final_name_loses_nothing(tmp_path):
    config = make_config(tmp_path / 'work', NUM_IMAGES)
    run(config, tmp_path / 'whole.csv')
    out = tmp_path / 'a.csv'
    dump(tmp_path)  # leaves no parts: make those of a run that was killed at the very end
    keep_parts(tmp_path, out)
    assert FinishedImages(parts_folder(out), NUM_IMAGES).done.all()
    dump(tmp_path, resume=True)
    assert out.read_bytes() == (tmp_path / 'whole.csv').read_bytes()


def test_metric_of_some_of_the_images_is_not_reported(tmp_path):
    config = make_config(tmp_path / 'work', NUM_IMAGES)
    assert run(config, tmp_path / 'a.csv') == {'images': NUM_IMAGES}
    keep_parts(tmp_path, tmp_path / 'a.csv')
    config = make_config(tmp_path / 'work', NUM_IMAGES)
    assert run(config, tmp_path / 'a.csv', resume=True) == {}


def test_another_number_of_threads_is_not_mixed_in(tmp_path):
    dump(tmp_path)
    keep_parts(tmp_path, tmp_path / 'a.csv')
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.raises(UserError, match=fr'THREADS\) = {threads}, now it is {threads + 1}'):
            dump(tmp_path, resume=True)
    finally:
        torch.set_num_threads(threads)
    dump(tmp_path, resume=True)


def keep_parts(tmp_path, out):
    out.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('projects.openimages.mm.evaluation.submission_dump.finish_submission',
                      lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            dump(tmp_path)


def test_the_model_goes_on_while_rows_are_written(tmp_path, monkeypatch):
    """The first row waits until the model has seen the next batch; many wait at once no more."""
    second, seen, row_of = threading.Event(), [], SubmissionDumpHook._row
    most = []

    old = dump_run.ToyDetector.forward

    def forward(self, inputs, data_samples=None, mode='tensor'):
        seen.append(len(data_samples))
        if len(seen) > 1:
            second.set()
        return old(self, inputs, data_samples, mode)

    def row(self, sample):
        assert second.wait(30), 'the model waits for the row'
        most.append(len(self._at_work))
        return row_of(self, sample)

    monkeypatch.setattr(dump_run.ToyDetector, 'forward', forward)
    monkeypatch.setattr(SubmissionDumpHook, '_row', row)
    run(make_config(tmp_path / 'work', 60), tmp_path / 'out.csv')
    monkeypatch.undo()
    run(make_config(tmp_path / 'work', 60), tmp_path / 'again.csv')
    assert (tmp_path / 'out.csv').read_bytes() == (tmp_path / 'again.csv').read_bytes()
    assert max(most) <= 9


@pytest.mark.parametrize('images', [2, 60])  # noticed at the end, and before
def test_what_goes_wrong_in_writing_ends_the_run(tmp_path, monkeypatch, images):
    def row(self, sample):
        raise UserError('no space left')

    monkeypatch.setattr(SubmissionDumpHook, '_row', row)
    with pytest.raises(UserError, match='no space left'):
        run(make_config(tmp_path / 'work', images), tmp_path / 'out.csv')
    assert not (tmp_path / 'out.csv').exists()
