"""The pickle of a test is scored as the test was, and never runs what a stranger put into it."""

import json
import os
import pickle
import re

import pytest
import torch
from mmengine.fileio import dump, load

from projects.openimages.common.errors import UserError
from projects.openimages.data.index import PreparedIndex
from projects.openimages.masks import inflate_text
from projects.openimages.mm.engine.results import read_results
from projects.openimages.submissions.formats import Submission
from tests.helpers import run_main, run_tool
from tests.submissions.fake_dump import fake_dump


@pytest.fixture(scope='module')
def tested(trained, published, demo_root, tmp_path_factory):
    """The pickle of a test in mixed precision, and what the command printed."""
    folder = tmp_path_factory.mktemp('tested')
    result = run_tool('tools/test.py', trained.config, published, '--amp', '--work-dir',
                      folder, '--out', folder / 'out.pkl', '--cfg-options',
                      f'data_root={demo_root}')
    assert result.returncode == 0, result.stderr[-2000:]
    return folder / 'out.pkl', result.stdout + result.stderr


def score_of(output):
    return re.findall(r'openimages/mAP: (\d\.\d{4})', output)[-1]


def test_the_score_is_the_tests(tested, trained, demo_root, monkeypatch, capsys):
    path, output = tested
    arguments = (trained.config, path, '--cfg-options', f'data_root={demo_root}')
    figures = path.with_name('figures.json')
    run_main(monkeypatch, 'tools/eval_metric.py', *arguments, '--json', figures)
    printed = capsys.readouterr().out
    assert score_of(printed) == score_of(output)
    told = json.loads(figures.read_text())['openimages/mAP']
    assert f'{told:.4f}' == score_of(output)
    run_main(monkeypatch, 'tools/eval_metric.py', *arguments, '--score-thr', 1)
    assert score_of(capsys.readouterr().out) == '0.0000'


def test_a_pickle_scores_as_the_submission_of_the_same_detections(trained, demo_root, tmp_path,
                                                                  monkeypatch):
    """Of detections that are nearly right: the trained model of the other tests finds nothing."""
    prepared = demo_root / 'prepared' / 'validation'
    index = PreparedIndex.open(prepared / 'index.arrow')
    submission = fake_dump(tmp_path / 'dump.csv', prepared / 'index.arrow')
    results = []
    with Submission(submission) as images:
        for image in images:
            labels, scores, masks = [], [], []
            for item in image.detections:
                labels.append(index.label_space.class_id(item.mid))
                scores.append(float(item.score))
                masks.append({'size': [image.height, image.width],
                              'counts': inflate_text(item.mask, image.height, image.width)})
            results.append({'image_id': image.image_id, 'pred_instances': {
                'labels': torch.tensor(labels, dtype=torch.long),
                'scores': torch.tensor(scores, dtype=torch.float64), 'masks': masks}})
    dump(results, tmp_path / 'results.pkl')

    def score(*flags):
        run_main(monkeypatch, 'tools/eval_metric.py', trained.config, tmp_path / 'results.pkl',
                 '--no-expand-hierarchy', '--json', tmp_path / 'a.json', *flags,
                 '--cfg-options', f'data_root={demo_root}')
        return json.loads((tmp_path / 'a.json').read_text())['openimages/mAP']

    result = run_tool('tools/evaluate.py', submission, '--prepared', prepared, '--json',
                      tmp_path / 'b.json')
    assert result.returncode == 0, result.stderr
    expected = json.loads((tmp_path / 'b.json').read_text())['mAP']
    assert score() == pytest.approx(expected, abs=1e-9) and expected > 0.1
    assert score('--max-per-img', '1') < expected


def test_nothing_but_tensors_and_plain_values_is_unpickled(tested, tmp_path, monkeypatch):
    results = read_results(tested[0])
    expected = load(tested[0])
    for mine, theirs in zip(results, expected, strict=True):
        assert mine['image_id'] == theirs['image_id']
        assert torch.equal(mine['pred_instances']['scores'], theirs['pred_instances']['scores'])
        assert mine['pred_instances']['masks'] == theirs['pred_instances']['masks']

    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'harm'),)

    evil = tmp_path / 'evil.pkl'
    for item in (Harm(), [{**expected[0], 'more': Harm()}]):
        evil.write_bytes(pickle.dumps(item))
        with pytest.raises(UserError, match=r'posix\.mkdir.*TRUSTED_CHECKPOINTS='):
            read_results(evil)
    inner = torch.zeros(1)
    torch.save([Harm()], tmp_path / 'inner.pth')  # what a tensor's storage is stored as
    stored = (tmp_path / 'inner.pth').read_bytes()

    class Storage:
        def __reduce__(self):
            return torch.storage._load_from_bytes, (stored,)

    evil.write_bytes(pickle.dumps([inner, Storage()]))
    with pytest.raises(UserError):
        read_results(evil)
    assert not (tmp_path / 'harm').exists()
    evil.write_bytes(pickle.dumps([{**expected[0], 'more': Harm()}]))
    monkeypatch.setenv('TRUSTED_CHECKPOINTS', str(evil))
    assert len(read_results(evil)) == 1 and (tmp_path / 'harm').exists()


@pytest.mark.parametrize(('content', 'said'), [
    ({'a': 1}, 'expected a list'), ([], 'expected a list'),
    ([{'img_id': 3, 'pred_instances': {}}], 'item 0 has no image_id'),
    ([{'image_id': 'a', 'pred_instances': {'labels': 1, 'scores': 1}}], 'item 0 has no masks'),
    ([{'image_id': 'a'}], 'item 0 has no labels')])
def test_other_contents_are_named(tmp_path, content, said):
    dump(content, tmp_path / 'out.pkl')
    with pytest.raises(UserError, match=said):
        read_results(tmp_path / 'out.pkl')


def test_half_a_file_and_none_are_named(tested, tmp_path):
    data = tested[0].read_bytes()
    for size in (0, 10, len(data) // 2):
        (tmp_path / 'half.pkl').write_bytes(data[:size])
        with pytest.raises(UserError, match=r'half\.pkl: not a'):
            read_results(tmp_path / 'half.pkl')
    with pytest.raises(UserError, match='no such file'):
        read_results(tmp_path / 'none.pkl')
