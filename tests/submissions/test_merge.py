"""Merging masks of several models."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projects.openimages.common.errors import UserError
from projects.openimages.data.index import PreparedIndex
from projects.openimages.masks import encode_text, rle_from_crop, rle_from_mask, rle_to_mask
from projects.openimages.submissions.formats import HEADERS, Submission
from projects.openimages.submissions.merge_masks import METHODS, MergeOptions, fuse, merge_class
from projects.openimages.submissions.merge_submissions import MergeOutput, merge_submissions
from tests.helpers import assert_one_line_error, run_tool
from tests.submissions.fake_dump import evaluate, fake_dump, reselect

HEIGHT, WIDTH = 10, 20


def bar(x0, x1):
    """A mask of the columns from x0 to x1, 2 pixels high."""
    return rle_from_crop(np.ones((2, x1 - x0), bool), x0, 3, HEIGHT, WIDTH)


def columns(rle):
    xs = np.flatnonzero(rle_to_mask(rle).any(0))
    return (xs.min(), xs.max() + 1)


def merge(method, items, weights=(1, 1), **options):
    """``items``: (x0, x1, score, model)."""
    merged = merge_class([bar(x0, x1) for x0, x1, _, _ in items],
                         np.array([item[2] for item in items]),
                         np.array([item[3] for item in items]),
                         MergeOptions(method, weights, **options))
    return [(*columns(mask), pytest.approx(score))
            for mask, score in zip(merged.masks, merged.scores, strict=True)]


def test_nms_keeps_the_best_of_overlapping_masks_and_all_others():
    assert merge('nms', [(0, 10, 0.6, 0), (0, 9, 0.8, 1), (12, 20, 0.1, 0)]) == [
        (0, 9, 0.8), (12, 20, 0.1)]


def test_nms_leaves_out_at_exactly_the_threshold():
    assert merge('nms', [(0, 10, 0.8, 0), (0, 5, 0.6, 1)], iou_thr=0.5) == [(0, 10, 0.8)]
    assert len(merge('nms', [(0, 10, 0.8, 0), (0, 5, 0.6, 1)], iou_thr=0.51)) == 2


def test_soft_nms_lowers_scores_by_the_overlap():
    assert merge('soft-nms', [(0, 10, 0.8, 0), (0, 5, 0.6, 1), (15, 20, 0.5, 1)], sigma=0.5) == [
        (0, 10, 0.8), (15, 20, 0.5), (0, 5, 0.6 * np.exp(-0.5))]


def test_wbf_averages_scores_over_all_models_and_masks_by_score():
    assert merge('wbf', [(0, 10, 0.9, 0), (0, 8, 0.3, 1), (15, 20, 0.4, 1)]) == [
        (0, 10, 0.6), (15, 20, 0.2)]


def test_wbf_takes_a_models_best_where_it_has_several():
    assert merge('wbf', [(0, 10, 0.8, 0), (0, 9, 0.6, 0), (0, 8, 0.5, 0)], weights=(1,)) == [
        (0, 9, 0.8)]


def test_vote_needs_half_of_the_weights():
    items = [(0, 10, 0.9, 0), (0, 9, 0.5, 1), (12, 20, 0.9, 2)]
    assert merge('vote', items, weights=(1, 1, 1)) == [(0, 10, 0.7)]
    assert merge('vote', items, weights=(1, 1, 2)) == [(12, 20, 0.9), (0, 10, 0.7)]


def test_vote_gives_a_model_one_vote_however_often_it_is_there():
    items = [(0, 10, 0.9, 0), (0, 10, 0.8, 0), (0, 10, 0.7, 0), (0, 6, 0.6, 1), (0, 6, 0.5, 2)]
    assert merge('vote', items, weights=(1, 1, 1)) == [(0, 6, pytest.approx(2 / 3))]


@pytest.mark.parametrize('method', METHODS)
def test_weights_decide_between_models(method):
    items = [(0, 10, 0.6, 0), (0, 8, 0.5, 1)]
    assert merge(method, items, weights=(1, 3))[0][:2] == (0, 8)
    assert merge(method, items, weights=(3, 1))[0][:2] == (0, 10)


@pytest.mark.parametrize('method', METHODS)
def test_one_model_without_overlaps_stays_as_it_is(method):
    assert merge(method, [(0, 5, 0.25, 0), (6, 9, 0.75, 0)], weights=(1,)) == [
        (6, 9, 0.75), (0, 5, 0.25)]


@given(st.integers(0, 2**20), st.integers(1, 5), st.booleans())
def test_fused_pixels_are_those_with_half_of_the_weights(seed, count, weighted):
    random = np.random.default_rng(seed)
    masks = random.random((count, 6, 5)) < random.choice([0, 0.2, 0.5, 0.8, 1], (count, 1, 1))
    weights = random.integers(0, 5, count) / 4 if weighted else np.ones(count)
    share = weights if weights.any() else np.ones(count)
    expected = np.tensordot(share, masks, 1) >= share.sum() / 2
    fused = fuse([rle_from_mask(mask) for mask in masks], weights)
    assert fused == rle_from_mask(expected) if count > 1 else (rle_to_mask(fused) == masks).all()


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
    ({'method': 'mean'}, "method 'mean', expected one of nms, soft-nms, wbf, vote"),
    ({'weights': (1, np.nan)}, 'weights 1 nan, expected finite numbers above 0'),
    ({'weights': (np.inf, 1)}, 'weights inf 1'),
    ({'weights': (2, -1)}, 'weights 2 -1'),
    ({'weights': (0, 0)}, 'weights 0 0'),
    ({'weights': (1e308, 1e308)}, 'weights 1e.308 1e.308'),
    ({'iou_thr': 0}, 'IoU threshold 0, expected above 0'),
    ({'iou_thr': 1.5}, 'IoU threshold 1.5'),
    ({'iou_thr': np.nan}, 'IoU threshold nan'),
    ({'sigma': 0}, 'sigma 0, expected a finite number above 0'),
    ({'sigma': np.nan}, 'sigma nan'),
    ({'sigma': np.inf}, 'sigma inf'),
])
def test_impossible_merge_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        MergeOptions(**{'method': 'nms', 'weights': (1, 1), **options})


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
                      '--expand-hierarchy', index, '--workers', 1, '--weights', 1, 1)
    assert result.returncode == 0, result.stderr
    monkeypatch.setattr('projects.openimages.submissions.merge_submissions._IMAGES_A_TASK', 3)
    merge_submissions(files, out2, MergeOptions('wbf', (1, 1)), MergeOutput(label_space=space),
                      workers=2)
    assert out.read_bytes() == out2.read_bytes()
    assert evaluate(prepared, out, tmp_path / 'm.csv') > max(alone)


def test_wrong_weights_and_broken_masks_are_one_line(tmp_path, files):
    common = ['tools/merge_submissions.py', *files, '--out', tmp_path / 'out.csv']
    assert_one_line_error(run_tool(*common, '--weights', 1, 2, 3), 'expected 2 numbers')
    assert_one_line_error(run_tool(*common, '--max-per-img', 0), 'at most 0 detections')
    files[0].write_text(files[0].read_text().replace(text(0, 10), 'AAAA'))
    assert_one_line_error(run_tool(*common), 'a.csv, row 2: image i1: mask is not zlib')
    assert not (tmp_path / 'out.csv').exists()
