"""Merging whole submissions."""

import numpy as np
import pytest

from projects.openimages.common.errors import UserError
from projects.openimages.data.index import PreparedIndex
from projects.openimages.masks import encode_text
from projects.openimages.submissions.formats import HEADERS, Submission
from projects.openimages.submissions.merge_masks import MergeOptions
from projects.openimages.submissions.merge_submissions import MergeOutput, merge_submissions
from tests.helpers import assert_one_line_error, run_tool
from tests.submissions.fake_dump import evaluate, fake_dump, reselect
from tests.submissions.test_merge_masks import bar


def text(x0, x1):
    return encode_text(bar(x0, x1)['counts'])


@pytest.fixture
def files(tmp_path):
    first, second = tmp_path / 'a.csv', tmp_path / 'b.csv'
    first.write_text(f'{HEADERS["kaggle"]}\ni1,20,10,/m/0cat 0.5 {text(0, 10)}\ni2,20,10,\n')
    second.write_text(f'{HEADERS["tf"]}\ni3,20,10,/m/0dog,0.25,{text(0, 5)}\n'
                      f'i1,20,10,/m/0cat,0.75,{text(0, 9)}\ni1,20,10,/m/0dog,0.5,{text(0, 9)}\n')
    return first, second


def test_files_of_both_formats_merge_over_all_their_images(tmp_path, files):
    out = tmp_path / 'out.csv'
    assert merge_submissions(files, out, MergeOptions('nms', (1, 1)), MergeOutput()) == (3, 3)
    with Submission(out) as merged:
        assert merged.format == 'kaggle'
        assert [(image.image_id, [tuple(d) for d in image.detections]) for image in merged] == [
            ('i1', [('/m/0cat', '0.75', text(0, 9)), ('/m/0dog', '0.5', text(0, 9))]),
            ('i2', []), ('i3', [('/m/0dog', '0.25', text(0, 5))])]


def test_two_sizes_of_an_image_are_refused(tmp_path, files):
    files[1].write_text(files[1].read_text().replace('i1,20,10', 'i1,10,20'))
    with pytest.raises(UserError, match=r'b\.csv, row 3: image i1 of 10x20, but 20x10 in .*a\.csv'):
        merge_submissions(files, tmp_path / 'out.csv', MergeOptions('nms', (1, 1)), MergeOutput())


@pytest.mark.parametrize(('options', 'message'), [
    ({'score_thr': -0.1}, 'score threshold -0.1, expected 0 to 1'),
    ({'score_thr': np.nan}, 'score threshold nan'),
    ({'score_thr': 1.1}, 'score threshold 1.1'),
    ({'max_per_img': 0}, 'at most 0 detections an image, expected at least 1'),
    ({'max_per_img': -3}, 'at most -3 detections'),
])
def test_impossible_selection_of_what_was_merged_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        MergeOutput(**options)


@pytest.mark.parametrize('score', ['nan', 'inf', '-0.5', '1.5'])
def test_score_that_is_none_is_refused(tmp_path, files, score):
    files[0].write_text(files[0].read_text().replace('0.5', score))
    with pytest.raises(UserError, match=rf"a\.csv, row 2: image i1: score '{score}'"):
        merge_submissions(files, tmp_path / 'out.csv', MergeOptions('nms', (1, 1)), MergeOutput())
    assert not (tmp_path / 'out.csv').exists()


def test_input_is_not_overwritten(tmp_path, files):
    before = files[1].read_bytes()
    with pytest.raises(UserError, match=r'this is the input .*b\.csv'):
        merge_submissions(files, files[1], MergeOptions('nms', (1, 1)), MergeOutput())
    assert files[1].read_bytes() == before


def test_submission_that_shares_no_image_with_the_others_is_refused(tmp_path, files):
    other = tmp_path / 'other.csv'
    other.write_text(f'{HEADERS["kaggle"]}\nj1,20,10,\nj2,20,10,\n')
    with pytest.raises(UserError, match=r'other\.csv: none of its 2 images is in .*a\.csv, .*b\.c'):
        merge_submissions([files[0], other, files[1]], tmp_path / 'out.csv',
                          MergeOptions('nms', (1, 1, 1)), MergeOutput())
    alone = merge_submissions([other], tmp_path / 'out.csv', MergeOptions('nms', (1,)),
                              MergeOutput())
    assert alone == (2, 0)


def test_more_detections_of_a_class_than_overlaps_fit_in_memory_are_named(tmp_path, files,
                                                                          monkeypatch):
    monkeypatch.setattr('projects.openimages.submissions.merge_submissions._MAX_A_CLASS', 1)
    with pytest.raises(UserError, match=r'a\.csv, row 2: image i1: 2 detections of /m/0cat'):
        merge_submissions(files, tmp_path / 'out.csv', MergeOptions('nms', (1, 1)), MergeOutput())


def test_merge_of_two_models_beats_both_and_processes_do_not_matter(tmp_path, prepared,
                                                                    monkeypatch):
    index = prepared / 'index.arrow'
    files = [fake_dump(tmp_path / f'{seed}.csv', index, seed, skill) for seed, skill in
             enumerate((0.6, 0.7))]
    space = PreparedIndex.open(index).label_space
    alone = [evaluate(prepared, reselect(path, tmp_path / 'one.csv', space, expand=True),
                      tmp_path / 'm.csv') for path in files]
    out, out2 = tmp_path / 'out.csv', tmp_path / 'out2.csv'
    result = run_tool('tools/merge_submissions.py', *files, '--out', out, '--method', 'wbf',
                      '--index', index, '--workers', 1, '--weights', 1, 1)
    assert result.returncode == 0, result.stderr
    monkeypatch.setattr('projects.openimages.submissions.merge_submissions._IMAGES_A_TASK', 3)
    merge_submissions(files, out2, MergeOptions('wbf', (1, 1)), MergeOutput(label_space=space),
                      workers=2)
    assert out.read_bytes() == out2.read_bytes()
    assert evaluate(prepared, out, tmp_path / 'm.csv') > max(alone)


def test_wrong_weights_and_broken_masks_are_one_line(tmp_path, files):
    common = ['tools/merge_submissions.py', *files, '--out', tmp_path / 'out.csv',
              '--no-expand-hierarchy']
    assert_one_line_error(run_tool(*common, '--weights', 1, 2, 3), 'expected 2 numbers')
    assert_one_line_error(run_tool(*common, '--max-per-img', 0), 'at most 0 detections')
    files[0].write_text(files[0].read_text().replace(text(0, 10), 'AAAA'))
    assert_one_line_error(run_tool(*common), 'a.csv, row 2: image i1: mask is not zlib')
    assert not (tmp_path / 'out.csv').exists()
