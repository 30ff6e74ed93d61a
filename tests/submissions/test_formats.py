"""Reading and writing the two submission formats."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projects.openimages.common.errors import UserError
from projects.openimages.submissions.formats import (
    FORMATS,
    HEADERS,
    Detection,
    ImageDetections,
    Submission,
    score_text,
    write_submission,
)

CAT, DOG = Detection('/m/0cat', '0.9', 'eJw='), Detection('/m/0dog', '0.25', 'eJz+/A==')
IMAGES = [ImageDetections('b1', 4, 3, [CAT, DOG]), ImageDetections('a2', 5, 6, [DOG])]


def write(path, images, submission_format):
    with open(path, 'wb') as file:
        write_submission(file, images, submission_format)
    return path


@pytest.mark.parametrize('submission_format', FORMATS)
def test_what_is_written_is_read_back_in_file_order(tmp_path, submission_format):
    with Submission(write(tmp_path / 'a.csv', IMAGES, submission_format)) as submission:
        assert submission.format == submission_format
        assert [image._replace(row=0) for image in submission] == IMAGES


def test_kaggle_rows_are_as_the_challenge_shows_them(tmp_path):
    path = write(tmp_path / 'a.csv', [*IMAGES, ImageDetections('c3', 7, 8, [])], 'kaggle')
    assert path.read_text().splitlines()[1:] == [
        'b1,4,3,/m/0cat 0.9 eJw= /m/0dog 0.25 eJz+/A==', 'a2,5,6,/m/0dog 0.25 eJz+/A==', 'c3,7,8,']


def test_tf_rows_are_one_a_detection_and_none_for_an_empty_image(tmp_path):
    path = write(tmp_path / 'a.csv', [*IMAGES, ImageDetections('c3', 7, 8, [])], 'tf')
    assert path.read_text().splitlines()[1:] == [
        'b1,4,3,/m/0cat,0.9,eJw=', 'b1,4,3,/m/0dog,0.25,eJz+/A==', 'a2,5,6,/m/0dog,0.25,eJz+/A==']


def test_tf_rows_of_an_image_need_not_stand_together(tmp_path):
    path = tmp_path / 'a.csv'
    path.write_text(HEADERS['tf'] + '\nb,4,3,/m/0cat,0.9,eJw=\na,5,6,/m/0dog,0.25,eJz=\n'
                    'b,4,3,/m/0dog,0.5,eJx=\n')
    with Submission(path) as submission:
        assert [(image.image_id, len(image.detections), image.row) for image in submission] == [
            ('b', 2, 2), ('a', 1, 3)]
        assert submission.image('nowhere') is None


@pytest.mark.parametrize('text', [
    '\ufeff' + HEADERS['kaggle'] + '\r\nb,4,3,/m/0cat 0.9 eJw=\r\n',
    HEADERS['kaggle'] + '\n"b","4","3","/m/0cat 0.9 eJw="\n',
    HEADERS['kaggle'] + '\nb,4,3,/m/0cat 0.9 eJw=',
], ids=['windows', 'quoted', 'no last line end'])
def test_usual_variants_of_csv_are_understood(tmp_path, text):
    (tmp_path / 'a.csv').write_text(text, encoding='utf-8', newline='')
    with Submission(tmp_path / 'a.csv') as submission:
        assert list(submission) == [ImageDetections('b', 4, 3, [CAT], 2)]


@pytest.mark.parametrize(('row', 'message'), [
    ('b,4', '2 fields'), ('b,0,3,', "width '0'"), ('b,4,x,', "height 'x'"),
    ('b,4,3,/m/0cat 0.9', '2 words'), (',4,3,', 'no image id'), ('a,4,3,', 'again, first in row 2'),
])
def test_broken_row_is_named(tmp_path, row, message):
    (tmp_path / 'a.csv').write_text(HEADERS['kaggle'] + '\na,4,3,\n' + row + '\n')
    with Submission(tmp_path / 'a.csv') as submission, \
            pytest.raises(UserError, match=f'a.csv, row 3: .*{message}'):
        list(submission)


def test_image_of_two_sizes_is_named(tmp_path):
    (tmp_path / 'a.csv').write_text(HEADERS['tf'] + '\na,4,3,/m/0cat,1,x\na,5,3,/m/0cat,1,x\n')
    with Submission(tmp_path / 'a.csv') as submission, \
            pytest.raises(UserError, match='row 3: image a of 5x3, but 4x3 in row 2'):
        list(submission)


def test_other_header_and_missing_file_are_named(tmp_path):
    (tmp_path / 'a.csv').write_text('ImageId,EncodedPixels\n')
    with pytest.raises(UserError, match=r"a\.csv, row 1: header 'ImageId,EncodedPixels'"):
        Submission(tmp_path / 'a.csv')
    with pytest.raises(UserError, match=r'nothing\.csv: no such file'):
        Submission(tmp_path / 'nothing.csv')


@given(st.lists(st.floats(0, 1, width=32), min_size=2))
def test_score_texts_read_back_and_rank_as_the_float32_do(scores):
    scores = np.array(scores, np.float32)
    read = np.array([float(score_text(score)) for score in scores])
    assert (read.astype(np.float32) == scores).all()
    assert (np.sign(np.subtract.outer(read, read))
            == np.sign(np.subtract.outer(scores.astype(float), scores.astype(float)))).all()


def test_write_counts_images_and_detections():
    assert write_submission(io.BytesIO(), IMAGES, 'kaggle') == (2, 3)
