"""Rule 7, average precision, on curves that one can draw by hand."""

import numpy as np
import pytest

from projects.openimages.metric import (
    FALSE,
    IGNORED,
    TRUE,
    Matches,
    average_precision,
    mean_over,
    precision_recall,
    score,
)


def matches(*rows):
    """Rows ``(class, score, outcome)`` in scoring order."""
    class_ids, scores, outcomes = np.array(rows, float).reshape(-1, 3).T
    zeros = np.zeros(len(rows), int)
    return Matches(zeros, zeros, class_ids.astype(int), scores, outcomes.astype(np.int8),
                   zeros - 1, zeros.astype(float))


def test_precision_and_recall_after_each_detection():
    precision, recall = precision_recall(np.array([0.2, 0.9, 0.5]), np.array([True, True, False]),
                                         positives=4)
    assert precision.tolist() == [1, 1 / 2, 2 / 3]
    assert recall.tolist() == [0.25, 0.25, 0.5]


def test_average_precision_takes_the_best_precision_to_the_right():
    # Up to recall 0.5 precision is 1, from there to 1.0 it is 2/3.
    assert average_precision(np.array([1, 1 / 2, 2 / 3]), np.array([0.5, 0.5, 1.0])) \
        == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_class_without_detections_has_average_precision_zero():
    assert score(matches(), np.array([3])).average_precisions.tolist() == [0.0]


def test_class_without_positives_is_left_out_of_the_mean():
    result = score(matches((0, 0.9, TRUE), (1, 0.8, FALSE)), np.array([1, 0]))
    assert result.average_precisions[0] == 1 and np.isnan(result.average_precisions[1])
    assert result.mean_average_precision == 1


def test_mean_over_no_class_is_nan_without_a_warning(recwarn):
    assert np.isnan(score(matches(), np.zeros(2, int)).mean_average_precision)
    assert np.isnan(mean_over(np.array([np.nan, 1.0]), np.array([True, False])))
    assert not recwarn


def test_ignored_detections_do_not_count():
    with_ignored = matches((0, 0.9, IGNORED), (0, 0.8, TRUE), (0, 0.7, FALSE))
    result = score(with_ignored, np.array([1]))
    assert result.average_precisions.tolist() == [1.0]
    assert (result.true.tolist(), result.false.tolist(), result.ignored.tolist()) \
        == ([1], [1], [1])
