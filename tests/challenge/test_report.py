"""The report of a score: group means and the per-class table."""

import csv

import numpy as np
import pytest

from projects.openimages.challenge.report import ClassTable, class_groups, summarise
from projects.openimages.metric import ChallengeScore


@pytest.fixture
def result() -> ChallengeScore:
    """Animal 0.5, cat 0.25, dog without positives but with a false detection, the rest nothing."""
    nan = np.nan
    return ChallengeScore(np.array([0.5, 0.25, nan, nan, nan, 1.0]), np.array([4, 3, 0, 0, 0, 1]),
                          np.array([2, 1, 0, 0, 0, 1]), np.array([1, 0, 1, 0, 0, 0]),
                          np.zeros(6, int))


TRAIN_IMAGES = np.array([900, 80, 5, 0, 0, 30])


def test_means_over_groups(result, small_labels):
    groups = class_groups(small_labels, TRAIN_IMAGES, bounds=(50, 500))
    summary = summarise(result, groups)
    assert summary == pytest.approx({
        'mAP': (0.5 + 0.25 + 1) / 3, 'mAP_leaves': (0.25 + 1) / 2, 'mAP_parents': 0.5,
        'mAP_frequent': 0.5, 'mAP_common': 0.25, 'mAP_rare': 1.0})


def test_every_class_is_in_one_frequency_group(small_labels):
    groups = class_groups(small_labels, TRAIN_IMAGES, bounds=(50, 500))
    assert (groups['frequent'].astype(int) + groups['common'] + groups['rare'] == 1).all()


@pytest.mark.parametrize(('sort_by', 'names'), [
    ('ap', ['Cat, domestic', 'Animal', 'Cup', 'Dög']),
    ('frequency', ['Dög', 'Cup', 'Cat, domestic', 'Animal']),
    ('name', ['Animal', 'Cat, domestic', 'Cup', 'Dög']),
    ('class_id', ['Animal', 'Cat, domestic', 'Dög', 'Cup'])])
def test_table_can_be_sorted(result, small_labels, sort_by, names):
    table = ClassTable(result, small_labels, TRAIN_IMAGES)
    assert [row['name'] for row in table.rows(sort_by)] == names


def test_table_says_how_many_rows_it_leaves_out(result, small_labels):
    lines = ClassTable(result, small_labels).format(limit=1).splitlines()
    assert lines[0].split() == ['name', 'AP', 'positives', 'true', 'false', 'ignored']
    assert 'Cat, domestic' in lines[1] and '0.2500' in lines[1]
    assert lines[2] == '... and 3 more classes'


def test_table_as_csv(result, small_labels, tmp_path):
    ClassTable(result, small_labels, TRAIN_IMAGES).write(tmp_path / 'table.csv')
    with open(tmp_path / 'table.csv', encoding='utf-8', newline='') as file:
        first = next(csv.DictReader(file))
    assert first['name'] == 'Cat, domestic' and first['train images'] == '80'


def test_unknown_order_is_refused(result, small_labels):
    with pytest.raises(ValueError, match="'size', expected one of"):
        ClassTable(result, small_labels).rows('size')
