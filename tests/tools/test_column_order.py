"""Whatever order the columns of a CSV stand in, every command that reads it does the same."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from projects.openimages.challenge.evaluate import EvaluatorFiles
from tests.data.releases import as_release, without_challenge
from tests.helpers import run_here, turned_round

TF_TRUTH = ('tf_boxes.csv', 'tf_labels.csv', 'tf_segmentations.csv')


def run(*arguments) -> str:
    result = run_here(*arguments, '--workers', 1)
    assert result.returncode == 0, result.stderr
    return result.stdout


def figures(out: Path, *arguments) -> dict:
    run(*arguments, '--json', out)
    return json.loads(out.read_text(encoding='utf-8'))


@pytest.fixture(params=['kaggle', 'tf'])
def submission(request, dump, tmp_path) -> Path:
    path = tmp_path / 'submission.csv'
    if request.param == 'kaggle':
        shutil.copy(dump, path)
    else:
        assert run_here('tools/convert_submission.py', dump, path).returncode == 0
    return path


@pytest.fixture
def turned(submission, tmp_path) -> Path:
    path = turned_round(submission, tmp_path / 'turned.csv')
    assert path.read_text().splitlines()[0].endswith('ImageHeight,ImageWidth,ImageID')
    return path


def test_evaluate(submission, turned, prepared, tmp_path):
    truth = tmp_path / 'truth'
    truth.mkdir()
    shutil.copy(prepared / 'label_map.pbtxt', truth)
    for name in TF_TRUTH:
        turned_round(prepared / name, truth / name)
    metrics = []
    for folder, predictions in ((prepared, submission), (truth, turned)):
        files = EvaluatorFiles.of_prepared(folder, str(predictions), str(tmp_path / 'metrics.csv'))
        run('tools/evaluate.py', *files.as_flags())
        metrics.append((tmp_path / 'metrics.csv').read_bytes())
    assert metrics[0] == metrics[1]
    assert b'nan' in metrics[0] and b',0.' in metrics[0]


def test_check(submission, turned, data_root, prepared, tmp_path):
    """Of the submission and of the list of images."""
    sizes = tmp_path / 'sizes.csv'
    sizes.write_text('ImageID,ImageWidth,ImageHeight\n' + ''.join(
        ','.join(row.split(',')[:3]) + '\n' for row in sorted({
            ','.join(row[:3]) for row in csv.reader(submission.read_text().splitlines()[1:])})))
    turned_round(sizes, tmp_path / 'sizes_turned.csv')
    classes = ('--classes', data_root / 'challenge-2019-classes-description-segmentable.csv')
    found = [figures(tmp_path / 'check.json', 'tools/check_submission.py', path, '--images', images,
                     *classes)
             for path, images in ((submission, sizes), (turned, tmp_path / 'sizes_turned.csv'))]
    for each in found:
        assert each.pop('ok') and each.pop('path') and each['detections'] > 20
    assert found[0] == found[1]


def test_convert(submission, turned, tmp_path):
    outs = []
    for source in (submission, turned):
        outs.append(tmp_path / f'{source.stem}-converted.csv')
        assert run_here('tools/convert_submission.py', source, outs[-1]).returncode == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_merge(submission, turned, prepared, tmp_path):
    outs = [tmp_path / 'one.csv', tmp_path / 'two.csv']
    for source, out in zip((submission, turned), outs, strict=True):
        run('tools/merge_submissions.py', submission, source, '--out', out, '--index',
            prepared / 'index.arrow')
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_sweep(submission, turned, prepared, tmp_path):
    found = [figures(tmp_path / 'sweep.json', 'tools/sweep.py', source, '--index',
                     prepared / 'index.arrow', '--out', tmp_path / 'sweep', '--max-per-img', 3, 0)
             for source in (submission, turned)]
    assert found[0] == found[1] and found[0]['best']['mean_ap'] > 0.1


@pytest.mark.parametrize('submission', ['kaggle'], indirect=True)
def test_report(submission, turned, prepared, tmp_path):
    found = [figures(tmp_path / 'report.json', 'tools/report.py', source, '--prepared', prepared,
                     '--out', tmp_path / 'report', '--pictures', 0, '--compare', source)
             for source in (submission, turned)]
    assert found[0]['headline'] == found[1]['headline'] and found[0]['headline']['mAP'] > 0.1
    assert found[0]['classes'] == found[1]['classes']


@pytest.mark.parametrize('release', ['challenge', 'v7'])
def test_prepare(data_root, tmp_path, release):
    """With image sizes from a CSV, so that the images are not needed."""
    root, sizes = tmp_path / 'data', tmp_path / 'sizes.csv'
    shutil.copytree(data_root, root, ignore=shutil.ignore_patterns(
        '*train*', 'prepared', 'test', 'images'))
    records = json.loads((data_root / 'prepared/validation/coco.json').read_text())['images']
    sizes.write_text('ImageID,ImageWidth,ImageHeight\n' + ''.join(
        f'{Path(image["file_name"]).stem},{image["width"]},{image["height"]}\n'
        for image in records))
    if release == 'v7':
        as_release(root, 'v7', ('validation',))
        without_challenge(root)
        (root / 'validation-images-with-rotation.csv').write_text(
            f'ImageID,Subset,Rotation\n{Path(records[0]["file_name"]).stem},validation,90.0\n')

    def prepare_once(out: str) -> dict[str, bytes]:
        run('tools/prepare_data.py', '--data-root', root, '--split', 'validation', '--sizes',
            sizes, '--out', tmp_path / out)
        folder = tmp_path / out / 'validation'
        return {path.name: path.read_bytes() for path in folder.iterdir()
                if path.name != '.inputs.json'}

    before = prepare_once('before')
    assert (b'rotated_original' in before['report.json']) == (release == 'v7')
    tables = [path for path in root.glob('*.csv') if 'classes-description' not in path.name]
    assert len(tables) == (3 if release == 'challenge' else 5)
    for path in (*tables, sizes):
        turned_round(path, path)
    assert prepare_once('after') == before
