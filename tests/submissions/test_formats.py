"""Reading and writing the two submission formats."""

import csv
import io
import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projects.openimages.common.errors import UserError
from projects.openimages.masks import encode_text, rle_from_mask
from projects.openimages.submissions import formats
from projects.openimages.submissions.formats import (
    FORMATS,
    HEADERS,
    Detection,
    ImageDetections,
    Submission,
    parse_score,
    score_text,
    scores_and_masks,
    split_row,
    write_submission,
)

CAT, DOG = Detection('/m/0cat', '0.9', 'eJw='), Detection('/m/0dog', '0.25', 'eJz+/A==')
IMAGES = [ImageDetections('b1', 4, 3, [CAT, DOG]), ImageDetections('a2', 5, 6, [DOG])]


def write(path, images, submission_format):
    with open(path, 'wb') as file:
        write_submission(file, images, submission_format)
    return path


def test_columns_may_stand_in_any_order(tmp_path):
    path = tmp_path / 'a.csv'
    for text in ('ImageHeight,ImageID,PredictionString,ImageWidth\n3,b,/m/0cat 0.9 eJw=,4\n',
                 'Score,ImageHeight,ImageWidth,Mask,ImageID,LabelName\n0.9,3,4,eJw=,b,/m/0cat\n'):
        path.write_text(text)
        with Submission(path) as file:
            assert file.image('b') == ImageDetections(
                'b', 4, 3, [Detection('/m/0cat', '0.9', 'eJw=')], 2)
            assert file.size('b') == (4, 3)
    for header in ('ImageHeight,ImageID,PredictionString,ImageID', 'ImageID,PredictionString'):
        path.write_text(f'{header}\n')
        with pytest.raises(UserError, match=r'row 1: header .*, in any order'):
            Submission(path)


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
    ('b,-4,3,', "width '-4'"), ('b,4,1000000000,', "height '1000000000'"), ('b,٤,3,', 'width'),
    ('b,100000,1001,', 'an image of 100000x1001, expected at most 100000000 pixels'),
    ('b,4,3,/m/0cat 0.9', '2 words'), (',4,3,', 'no image id'), ('a,4,3,', 'again, first in row 2'),
    ('b,4,3,/m/0cat 0.9 eJ\0w=', 'a NUL byte'), ('b,4,3,"/m/0cat 0.9 eJw=', 'a quote without'),
    ('"b,c",4,3,', "image id 'b,c'"), ('b' * 300 + ',4,3,', "image id 'bbb"),
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


def test_field_of_a_tf_row_with_a_space_is_refused(tmp_path):
    """In Kaggle's format it would be two words, and all that follow would mean something else."""
    (tmp_path / 'a.csv').write_text(HEADERS['tf'] + '\na,4,3,/m/0cat,0.5 0.6,x\n')
    with Submission(tmp_path / 'a.csv') as submission, \
            pytest.raises(UserError, match=r'a\.csv, row 2: .*without spaces'):
        list(submission)


def test_bytes_that_are_no_text_are_named_with_their_row(tmp_path):
    (tmp_path / 'a.csv').write_bytes(HEADERS['kaggle'].encode() + b'\na,4,3,\nb,4,3,\xff\n')
    with Submission(tmp_path / 'a.csv') as submission, \
            pytest.raises(UserError, match=r'a\.csv, row 3: not UTF-8 text'):
        list(submission)


@given(st.lists(st.text('a",é ', max_size=6)), st.booleans())
def test_quoted_rows_are_split_as_the_csv_module_does(fields, all_quoted):
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL).writerow(fields)
    assert split_row(file.getvalue().encode()) == (fields or [''])


def test_quoted_field_of_megabytes_is_read(tmp_path):
    many = ' '.join(['/m/0cat 0.9 eJw='] * 200_000)
    (tmp_path / 'a.csv').write_text(f'{HEADERS["kaggle"]}\n"a","4","3","{many}"\n')
    with Submission(tmp_path / 'a.csv') as submission:
        assert len(submission.image('a').detections) == 200_000


def test_row_longer_than_any_is_named_and_the_next_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, 'MAX_ROW', 64)
    (tmp_path / 'a.csv').write_text(f'{HEADERS["kaggle"]}\na,4,3,{"x" * 300}\nb,4,3,\n')
    with Submission(tmp_path / 'a.csv') as submission:
        assert submission.image('b') == ImageDetections('b', 4, 3, [], 3)
        with pytest.raises(UserError, match=r'a\.csv, row 2: a row of 64 bytes or more'):
            submission.image('a')


@pytest.mark.parametrize('text', ['nan', 'inf', '-0.1', '1.01', '', 'high', '0_1', '٠', '1' * 5000])
def test_score_that_is_none_is_refused_in_few_words(text):
    with pytest.raises(ValueError, match='expected a number from 0 to 1') as raised:
        parse_score(text)
    assert len(str(raised.value)) < 100


@pytest.mark.parametrize('text', ['0', '1', '1.0', '1e-05', '.5'])
def test_other_spellings_of_a_score_are_read(text):
    assert parse_score(text) == float(text)


def test_masks_of_an_image_inflate_to_so_many_bytes_together(monkeypatch):
    counts = rle_from_mask(np.tile([[False, True]], (8, 4)))['counts']
    image = ImageDetections('a', 8, 8, [Detection('/m/0cat', '0.5', encode_text(counts))] * 3, 7)
    monkeypatch.setattr(formats, 'MAX_INFLATED', 3 * len(counts))
    scores, masks = scores_and_masks(image, 'a.csv')
    assert scores.tolist() == [0.5] * 3 and masks == [{'size': [8, 8], 'counts': counts}] * 3
    monkeypatch.setattr(formats, 'MAX_INFLATED', 3 * len(counts) - 1)
    with pytest.raises(UserError, match=r'a\.csv, row 7: image a: masks that inflate to more'):
        scores_and_masks(image, 'a.csv')


def test_folder_fifo_and_picture_are_no_submissions(tmp_path):
    (tmp_path / 'folder').mkdir()
    os.mkfifo(tmp_path / 'fifo')
    (tmp_path / 'picture.png').write_bytes(bytes(range(256)) * 1000)
    for name, message in (('folder', 'a folder, expected a file'), ('fifo', 'a FIFO'),
                          ('picture.png', 'row 1: header')):
        with pytest.raises(UserError, match=message) as raised:
            Submission(tmp_path / name)
        assert len(str(raised.value).splitlines()) == 1


def test_submission_handed_to_another_process_reads_on_its_own(tmp_path):
    with Submission(write(tmp_path / 'a.csv', IMAGES, 'tf')) as submission:
        read = iter(submission)
        first = next(read)
        with pickle.loads(pickle.dumps(submission)) as other:
            assert [image.image_id for image in other] == ['b1', 'a2']
        assert (first.image_id, next(read).image_id) == ('b1', 'a2')
