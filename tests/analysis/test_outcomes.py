"""One pass over a dump: the metric's own numbers, and a place for every detection."""

from dataclasses import fields

import numpy as np
import pytest

from projects.openimages.analysis.causes import Cause
from projects.openimages.analysis.outcomes import IOU_THRESHOLDS, analyse, ranks_and_copies
from projects.openimages.challenge.evaluator_csv import as_pandas_reads
from projects.openimages.challenge.from_index import IndexGroundTruth
from projects.openimages.common.errors import UserError
from projects.openimages.data.index import PreparedIndex
from projects.openimages.masks import encode_text, rle_from_mask
from projects.openimages.metric import (
    DROPPED,
    FALSE,
    IGNORED,
    TRUE,
    Detections,
    Matches,
    count_positives,
    match_image,
    score,
)
from projects.openimages.submissions.formats import (
    Detection,
    ImageDetections,
    Submission,
    score_text,
    write_submission,
)
from tests.analysis.scenes import (
    ANIMAL,
    CAT,
    CUP,
    DOG,
    Found,
    Scene,
    Thing,
    label_space,
    outcomes_of,
    write_dump,
)
from tests.challenge import random_index

FALSE_CAUSES = (Cause.DUPLICATE, Cause.SIBLING, Cause.RELATIVE, Cause.OTHER_CLASS,
                Cause.POOR_MASK, Cause.BACKGROUND)


@pytest.fixture
def random_dump(tmp_path):
    """An index with every kind of instance, and the path of detections near its instances."""
    index = random_index.make_index(tmp_path / 'index.arrow', num_images=30, seed=5)
    images = []
    for row in range(index.num_images):
        labels, scores, masks = random_index.detect(index, row)
        images.append(ImageDetections(
            index.image_id(row), random_index.WIDTH, random_index.HEIGHT,
            [Detection(index.label_space.mids[c], score_text(s),
                       encode_text(rle_from_mask(mask)['counts']))
             for c, s, mask in zip(labels, scores, masks, strict=True)]))
    with open(tmp_path / 'dump.csv', 'wb') as file:
        write_submission(file, images, 'tf')
    return index, tmp_path / 'dump.csv'


def matched(index, path, threshold):
    """The matches of all images, straight from the metric, and the positives."""
    truths = IndexGroundTruth(index)
    parts, positives = [], 0
    with Submission(path) as submission:
        for row in range(index.num_images):
            truth = truths.image(row)
            positives = positives + count_positives(truth, 4)
            items = submission.image(index.image_id(row)).detections
            masks = [rle_from_mask(mask) for mask in random_index.detect(index, row)[2]]
            parts += match_image(truth, Detections(
                np.array([index.label_space.ids[item.mid] for item in items]),
                np.array([float(item.score) for item in items]), masks), [threshold], image=row)
    return Matches.concatenate(parts), positives


def test_matches_positives_and_scores_are_the_metrics(random_dump):
    index, path = random_dump
    with Submission(path) as submission:
        found, elsewhere = analyse(submission, index)
    assert elsewhere == 0
    for number, threshold in enumerate(IOU_THRESHOLDS):
        matches, positives = matched(index, path, threshold)
        assert found.positives(4).tolist() == positives.tolist()
        theirs = score(matches, positives)
        ours = score(found.at_threshold(number), positives)
        for name in ('true', 'false', 'ignored'):
            assert getattr(ours, name).tolist() == getattr(theirs, name).tolist()
        if number == 0:
            for field in fields(Matches):
                assert (getattr(found.matches, field.name) == getattr(matches, field.name)).all()
            assert ours.average_precisions.tolist() == theirs.average_precisions.tolist()
        else:  # ties may be in another order
            np.testing.assert_allclose(ours.average_precisions, theirs.average_precisions,
                                       atol=0.02)


def test_every_detection_has_one_cause_and_it_fits_its_outcome(random_dump):
    index, path = random_dump
    with Submission(path) as submission:
        found, _ = analyse(submission, index)
        in_file = sum(len(image.detections) for image in submission)
    assert len(found) == in_file == sum((found.cause == cause).sum() for cause in Cause)
    for outcome, causes in ((TRUE, (Cause.TRUE,)), (FALSE, FALSE_CAUSES),
                            (IGNORED, (Cause.BOX, Cause.GROUP, Cause.ABSORBED)),
                            (DROPPED, (Cause.UNVERIFIED, Cause.EMPTY, Cause.CUT))):
        assert (np.isin(found.cause, causes) == (found.matches.outcome == outcome)).all()
        assert outcome == DROPPED or len(set(found.cause[found.matches.outcome == outcome])) > 0
    assert len(set(found.cause.tolist())) >= 9  # the scenes have nearly all of them
    assert found.taken.sum() == (found.cause == Cause.TRUE).sum()


def test_processes_do_not_change_anything(random_dump, monkeypatch):
    index, path = random_dump
    with Submission(path) as submission:
        one, _ = analyse(submission, index)
        monkeypatch.setattr('projects.openimages.analysis.outcomes._IMAGES_A_TASK', 4)
        two, _ = analyse(submission, index, workers=2)
    for field in fields(one)[1:]:
        assert (getattr(one, field.name) == getattr(two, field.name)).all(), field.name


def test_a_target_is_an_instance_of_the_detections_image(random_dump):
    index, path = random_dump
    with Submission(path) as submission:
        found, _ = analyse(submission, index)
    rows = np.flatnonzero(found.target >= 0)
    assert len(rows) > 50
    assert (found.instance_image[found.target[rows]] == found.matches.image[rows]).all()
    same = np.isin(found.cause[rows], (Cause.TRUE, Cause.DUPLICATE, Cause.POOR_MASK))
    assert ((found.instance_class[found.target[rows]] == found.matches.class_id[rows])
            == same).all()


def test_detections_of_images_that_the_split_does_not_have_are_counted_apart(tmp_path):
    scenes = [Scene((Thing(CAT, 0, 10),), (Found(CAT, 0.9, 0, 10),))]
    outcomes_of(tmp_path, *scenes)
    more = [*scenes, Scene(found=(Found(CAT, 0.9, 0, 10), Found(CUP, 0.9, 0, 10)))]
    with Submission(write_dump(tmp_path / 'more.csv', more)) as submission:
        found, elsewhere = analyse(submission, PreparedIndex.open(tmp_path / 'index.arrow'))
    assert (len(found), elsewhere) == (1, 2)


def test_instances_are_repeated_for_ancestors_and_know_their_source(tmp_path):
    found = outcomes_of(tmp_path, Scene((Thing(CUP, 0, 10), Thing(CAT, 20, 30),
                                         Thing(DOG, 30, 40, mask=False))))
    told = sorted(zip(found.instance_class.tolist(), found.instance_source.tolist(),
                      found.instance_own.tolist(), found.instance_area.tolist(), strict=True))
    assert told == [(ANIMAL, 1, False, 100), (ANIMAL, 2, False, 0), (CAT, 1, True, 100),
                    (DOG, 2, True, 0), (CUP, 0, True, 100)]


def test_expansion_is_undone_for_ranks():
    def detection(class_id, score, mask):
        return Detection(str(class_id), score, mask), class_id, float(score)

    items = [detection(CAT, '0.5', 'one'), detection(DOG, '0.9', 'two'),
             detection(ANIMAL, '0.9', 'two'), detection(ANIMAL, '0.5', 'one'),
             detection(ANIMAL, '0.7', 'three'),   # the model's own
             detection(CUP, '0.5', 'one'),        # the same mask, another class of the model's
             detection(ANIMAL, '0.4', 'one')]     # the same mask, another score
    image = ImageDetections('a', 4, 4, [item for item, _, _ in items])
    rank, copy = ranks_and_copies(image, np.array([s for _, _, s in items]),
                                  np.array([c for _, c, _ in items]), label_space())
    assert copy.tolist() == [False, False, True, True, False, False, False]
    assert rank.tolist() == [2, 0, 0, 2, 1, 3, 4]


def test_scores_are_read_as_the_evaluator_reads_them(tmp_path):
    # pandas' parser is one unit off in the last place; the evaluator's ties depend on it.
    text = '0.30000000000000004'
    scene = Scene((Thing(CAT, 0, 10),), (Found(CAT, text, 0, 10),))
    assert outcomes_of(tmp_path, scene).matches.score[0] == as_pandas_reads([text])[0]


@pytest.mark.parametrize(('score', 'message'), [('1.5', "score '1.5'"), ('x', "score 'x'")])
def test_a_broken_score_is_named(tmp_path, score, message):
    scene = Scene((Thing(CAT, 0, 10),), (Found(CAT, score, 0, 10),))
    with pytest.raises(UserError, match=rf'dump\.csv, row 2: image image00: {message}'):
        outcomes_of(tmp_path, scene)


def test_an_unknown_class_and_a_broken_mask_are_named(tmp_path):
    scene = Scene((Thing(CAT, 0, 10),), (Found(CAT, 0.5, 0, 10),))
    outcomes_of(tmp_path, scene)
    text = (tmp_path / 'dump.csv').read_text()
    index = PreparedIndex.open(tmp_path / 'index.arrow')
    for old, new, message in (('/m/0cat', '/m/0cow', "unknown class '/m/0cow'"),
                              (text.split()[-1], 'AAAA', 'mask is not zlib data')):
        (tmp_path / 'dump.csv').write_text(text.replace(old, new))
        with Submission(tmp_path / 'dump.csv') as submission, \
                pytest.raises(UserError, match=rf'dump\.csv, row 2: .*{message}'):
            analyse(submission, index)
