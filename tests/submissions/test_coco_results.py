"""A submission as COCO results: read by pycocotools and by FiftyOne's rules, and back again."""

import contextlib
import io
import json
import re
import sys
import types

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from projects.openimages.common.errors import UserError
from projects.openimages.data.export.coco import coco_image_id, write_coco
from projects.openimages.masks import compress_counts, decode_text, encode_text, rle_from_mask
from projects.openimages.submissions.coco_results import read_coco_results, write_coco_results
from projects.openimages.submissions.formats import HEADERS, Submission
from tests.challenge.random_index import HEIGHT, MIDS, WIDTH, make_index
from tests.helpers import REPOSITORY, assert_one_line_error, run_tool


def rectangle(left, right, top, bottom):
    """The mask of some pixels, as RLE."""
    pixels = np.zeros((HEIGHT, WIDTH), bool)
    pixels[top:bottom, left:right] = True
    return rle_from_mask(pixels)


CAT, DOG = rectangle(2, 5, 1, 9), rectangle(0, 16, 3, 4)


@pytest.fixture
def index(tmp_path):
    index = make_index(tmp_path / 'index.arrow', num_images=6, seed=2)
    write_coco(tmp_path / 'coco.json', index.path)
    return index


@pytest.fixture
def kaggle(tmp_path, index):
    """A row for every image; the first has none, the second three and the last one."""
    cat, dog = (encode_text(mask['counts']) for mask in (CAT, DOG))
    rows = [f'{image_id},{WIDTH},{HEIGHT},' for image_id in index.image_ids]
    rows[1] += f'{MIDS[1]} 0.1 {cat} {MIDS[2]} 0.9 {dog} {MIDS[0]} 0.9 {dog}'
    rows[5] += f'{MIDS[1]} 1e-05 {cat}'
    (tmp_path / 'kaggle.csv').write_text('\n'.join([HEADERS['kaggle'], *rows]) + '\n')
    return tmp_path / 'kaggle.csv'


@pytest.fixture
def results(tmp_path, index, kaggle):
    assert write_coco_results(kaggle, tmp_path / 'results.json', index) == (6, 4, 4)
    return tmp_path / 'results.json'


def detections(path):
    """What a submission says: per image, class, score and mask of each detection in order."""
    with Submission(path) as submission:
        return {image.image_id: [(d.mid, float(d.score), decode_text(d.mask, HEIGHT, WIDTH))
                                 for d in image.detections] for image in submission}


def test_results_have_the_ids_of_coco_json_and_tight_boxes(results, index):
    first, *_, last = json.loads(results.read_text())
    assert first == {
        'image_id': coco_image_id(index.image_ids[1]), 'category_id': 2, 'bbox': [2, 1, 3, 8],
        'score': 0.1, 'segmentation': {'size': [HEIGHT, WIDTH], 'counts': CAT['counts'].decode()}}
    assert (last['image_id'], last['score']) == (coco_image_id(index.image_ids[5]), 1e-5)


@pytest.mark.parametrize('target', ['kaggle', 'tf'])
def test_there_and_back_are_the_same_detections_in_order(tmp_path, index, kaggle, results, target):
    assert read_coco_results(results, tmp_path / 'back.csv', target, index)[1:] == (4, 4)
    expected = detections(kaggle)
    if target == 'tf':
        expected = {image: found for image, found in expected.items() if found}
    assert detections(tmp_path / 'back.csv') == expected


def test_kaggle_there_and_back_has_a_row_for_every_image(tmp_path, index, kaggle, results):
    read_coco_results(results, tmp_path / 'back.csv', 'kaggle', index)
    assert (tmp_path / 'back.csv').read_text() == kaggle.read_text()


def test_detections_that_are_not_sorted_by_image_are_put_together(tmp_path, index, kaggle, results):
    mixed = json.loads(results.read_text())
    results.write_text(json.dumps([mixed[n] for n in (0, 3, 1, 2)]))
    read_coco_results(results, tmp_path / 'back.csv', 'kaggle', index)
    assert detections(tmp_path / 'back.csv') == detections(kaggle)


def test_uncompressed_run_lengths_are_read(tmp_path, index, kaggle, results):
    found = json.loads(results.read_text())
    found[0]['segmentation']['counts'] = [25, 8, 4, 8, 4, 8, HEIGHT * WIDTH - 57]
    assert coco_mask.frPyObjects(found[0]['segmentation'], HEIGHT, WIDTH)['counts'] == CAT['counts']
    results.write_text(json.dumps(found))
    read_coco_results(results, tmp_path / 'back.csv', 'kaggle', index)
    assert detections(tmp_path / 'back.csv') == detections(kaggle)


def test_mask_of_empty_runs_only_has_an_empty_box(tmp_path, index, kaggle):
    counts = compress_counts(np.array([HEIGHT * WIDTH - 2, 0, 2]))  # pycocotools' own: 4 billion
    kaggle.write_text(kaggle.read_text().replace(encode_text(CAT['counts']), encode_text(counts)))
    write_coco_results(kaggle, tmp_path / 'results.json', index)
    assert json.loads((tmp_path / 'results.json').read_text())[0]['bbox'] == [0, 0, 0, 0]


def test_pycocotools_loads_and_scores_the_instances_themselves(tmp_path, index):
    """A submission of what is to be found gets an AP of 1."""
    rows = [HEADERS['kaggle']]
    for row, image_id in enumerate(index.image_ids):
        found = [f'{MIDS[index.class_ids[n]]} 0.5 {encode_text(mask["counts"])}'
                 for n, mask in zip(range(*index.instance_offsets[row:row + 2]), index.masks(row),
                                    strict=True) if mask and not index.is_group_of[n]]
        rows.append(f'{image_id},{WIDTH},{HEIGHT},{" ".join(found)}')
    (tmp_path / 'right.csv').write_text('\n'.join(rows) + '\n')
    write_coco_results(tmp_path / 'right.csv', tmp_path / 'results.json', index)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / 'coco.json'))
        evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / 'results.json')), 'segm')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[1] == 1


@pytest.mark.parametrize(('change', 'message'), [
    (lambda r: r.update(image_id=7), 'result 2: image_id 7 is not in'),
    (lambda r: r.update(category_id=5), 'result 2: category_id 5, expected 1 to 4'),
    (lambda r: r.update(category_id='2'), "result 2: category_id '2', expected a whole number"),
    (lambda r: r.pop('score'), 'result 2: score None, expected a number'),
    (lambda r: r.update(score=1.5), "result 2: score '1.5', expected a number from 0 to 1"),
    (lambda r: r.update(segmentation=[[1, 2, 3, 4, 5, 6]]), 'result 2: segmentation .* an RLE of'),
    (lambda r: r['segmentation'].update(size=[3, 3]), 'result 2: segmentation .* an RLE of'),
    (lambda r: r['segmentation'].update(counts='11'), 'result 2: mask of 2 pixels'),
    (lambda r: r['segmentation'].update(counts=[-1, 193]), 'result 2: segmentation with a run')])
def test_broken_result_is_named_and_nothing_is_written(tmp_path, index, results, change, message):
    found = json.loads(results.read_text())
    change(found[1])
    results.write_text(json.dumps(found))
    with pytest.raises(UserError, match=message):
        read_coco_results(results, tmp_path / 'back.csv', 'kaggle', index)
    assert not (tmp_path / 'back.csv').exists()


@pytest.mark.parametrize(('old', 'new', 'message'), [
    ('0001c', '0009c', "row 3: image 0009c: .*no image '0009c' in this index"),
    (f'0001c,{WIDTH}', '0001c,17', 'row 3: image 0001c: 17x12, but 16x12 in'),
    (MIDS[2], '/m/0cow', "row 3: image 0001c: unknown class '/m/0cow'"),
    (encode_text(DOG['counts']), encode_text(b'11'), 'row 3: image 0001c: mask of 2 pixels')])
def test_submission_of_something_else_is_named(tmp_path, index, kaggle, old, new, message):
    kaggle.write_text(kaggle.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        write_coco_results(kaggle, tmp_path / 'results.json', index)
    assert not (tmp_path / 'results.json').exists()


def test_command_goes_there_and_back(tmp_path, index, kaggle):
    tool = 'tools/convert_submission.py'
    there = run_tool(tool, kaggle, tmp_path / 'out.json', '--to', 'coco', '--prepared', tmp_path)
    assert there.returncode == 0, there.stderr
    assert '6 images, 4 detections' in there.stdout
    back = run_tool(tool, tmp_path / 'out.json', tmp_path / 'back.csv', '--prepared', tmp_path)
    assert back.returncode == 0, back.stderr
    assert (tmp_path / 'back.csv').read_text() == kaggle.read_text()
    assert_one_line_error(run_tool(tool, kaggle, tmp_path / 'x.json', '--to', 'coco'),
                          'with --prepared DIR')


class FakeFiftyOne:
    """The parts of FiftyOne that the documented lines use, by the rules of its COCO importer:
    ground truth and predictions have the label of their category and all further keys."""

    types = types.SimpleNamespace(COCODetectionDataset='COCO')

    def __init__(self):
        self.samples = {}
        self.Dataset = types.SimpleNamespace(from_dir=self.from_dir)

    def Classification(self, label):  # noqa: N802
        return label

    def Classifications(self, classifications):  # noqa: N802
        return classifications

    def from_dir(self, dataset_type, data_path, labels_path, label_types, label_field, include_id):
        assert (dataset_type, label_types, include_id) == ('COCO', 'segmentations', True)
        with open(labels_path) as file:
            coco = json.load(file)
        names = {category['id']: category['name'] for category in coco['categories']}
        for image in coco['images']:
            labels = [self._label(item, names) for item in coco['annotations']
                      if item['image_id'] == image['id']]
            self.samples[image['id']] = {
                'filepath': f'{data_path}/{image["file_name"]}',
                label_field['coco_id']: image['id'], label_field['segmentations']: labels}
        return self

    def add_coco_labels(self, dataset, field, path, classes, label_type, coco_id_field):
        assert (label_type, coco_id_field) == ('segmentations', 'coco_id') and dataset is self
        with open(path) as file:
            for item in json.load(file):
                sample = self.samples[item['image_id']]
                sample.setdefault(field, []).append(self._label(item, classes))

    def set_values(self, field, values, key_field):
        for key, value in values.items():
            sample, = (s for s in self.samples.values() if s[key_field] == key)
            sample[field] = value

    @staticmethod
    def _label(item, names):
        own = ('id', 'image_id', 'category_id', 'bbox', 'segmentation', 'score')
        mask = coco_mask.decode(item['segmentation'])
        return {'label': names[item['category_id']], 'confidence': item.get('score'),
                'pixels': int(mask.sum()), **{k: v for k, v in item.items() if k not in own}}


def test_documented_lines_give_fiftyone_predictions_labels_and_groups(tmp_path, index, results,
                                                                      monkeypatch):
    page = (REPOSITORY / 'docs' / 'submissions.md').read_text('utf-8')
    lines, = re.findall(r'```python\n(import json, fiftyone.*?)```', page, re.DOTALL)
    fake = FakeFiftyOne()
    monkeypatch.setitem(sys.modules, 'fiftyone', fake)
    monkeypatch.setitem(sys.modules, 'fiftyone.utils', fake)
    monkeypatch.setitem(sys.modules, 'fiftyone.utils.coco', fake)
    fake.utils = types.SimpleNamespace(coco=fake)
    monkeypatch.chdir(tmp_path)
    exec(lines.replace('data/openimages/prepared/validation/', ''), {})
    samples = [fake.samples[coco_image_id(image_id)] for image_id in index.image_ids]
    assert [len(sample.get('predictions', [])) for sample in samples] == [0, 3, 0, 0, 0, 1]
    assert samples[1]['predictions'][1] == {'label': 'Dog', 'confidence': 0.9, 'pixels': 16}
    for row, sample in enumerate(samples):
        instances, labels = index.instance_rows(row), index.label_rows(row)
        assert [bool(item.get('IsGroupOf')) for item in sample['ground_truth']] == \
            index.is_group_of[instances].tolist()
        names = np.array(index.label_space.names)[index.label_class_ids[labels]]
        present = index.label_present[labels]
        assert set(sample['positive_labels']) == set(names[present].tolist())
        assert set(sample['negative_labels']) == set(names[~present].tolist())
