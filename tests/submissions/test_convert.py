"""Conversion there and back gives the same bytes."""

import pytest

from projects.openimages.common.errors import UserError
from projects.openimages.submissions.convert import convert
from projects.openimages.submissions.formats import HEADERS
from projects.openimages.submissions.image_list import read_image_list
from tests.helpers import assert_one_line_error, run_tool

KAGGLE = HEADERS['kaggle'] + ('\nb,4,3,/m/0cat 0.9 eJw= /m/0dog 0.25 eJz+/A==\nempty,7,8,\n'
                              'a,5,6,/m/0dog 1e-05 eJz=\n')


@pytest.fixture
def kaggle(tmp_path):
    (tmp_path / 'kaggle.csv').write_text(KAGGLE)
    return tmp_path / 'kaggle.csv'


def test_kaggle_to_tf_and_back_is_the_same_file(tmp_path, kaggle):
    assert convert(kaggle, tmp_path / 'tf.csv', 'tf') == (3, 3, 1)
    convert(tmp_path / 'tf.csv', tmp_path / 'back.csv', 'kaggle', read_image_list(kaggle))
    assert (tmp_path / 'back.csv').read_text() == KAGGLE


def test_tf_to_kaggle_and_back_is_the_same_file(tmp_path, kaggle):
    convert(kaggle, tmp_path / 'tf.csv', 'tf')
    convert(tmp_path / 'tf.csv', tmp_path / 'kaggle2.csv', 'kaggle')
    convert(tmp_path / 'kaggle2.csv', tmp_path / 'tf2.csv', 'tf')
    assert (tmp_path / 'tf2.csv').read_bytes() == (tmp_path / 'tf.csv').read_bytes()


def test_without_a_list_only_images_with_detections_come_back(tmp_path, kaggle):
    convert(kaggle, tmp_path / 'tf.csv', 'tf')
    assert convert(tmp_path / 'tf.csv', tmp_path / 'back.csv', 'kaggle') == (2, 3, 0)


def test_list_that_lacks_an_image_or_a_size_is_refused(tmp_path, kaggle):
    with pytest.raises(UserError, match=r'kaggle\.csv, row 4: image a is not in the list'):
        convert(kaggle, tmp_path / 'out.csv', 'tf', {'b': None, 'empty': None})
    with pytest.raises(UserError, match='image new has no row and the list of images no sizes'):
        convert(kaggle, tmp_path / 'out.csv', 'kaggle',
                {'b': None, 'a': None, 'empty': None, 'new': None})
    assert not (tmp_path / 'out.csv').exists()


def test_command_takes_the_other_format_and_says_what_is_lost(tmp_path, kaggle):
    result = run_tool('tools/convert_submission.py', kaggle, tmp_path / 'tf.csv')
    assert result.returncode == 0 and '1 images without detections' in result.stdout, result.stderr
    result = run_tool('tools/convert_submission.py', tmp_path / 'tf.csv', tmp_path / 'back.csv',
                      '--images', kaggle)
    assert (tmp_path / 'back.csv').read_text() == KAGGLE, result.stderr


def test_file_broken_in_the_middle_is_one_line_and_nothing_is_written(tmp_path, kaggle):
    kaggle.write_text(KAGGLE.replace('empty,7,8,', 'empty,7'))
    result = run_tool('tools/convert_submission.py', kaggle, tmp_path / 'tf.csv')
    assert_one_line_error(result, 'kaggle.csv, row 3: 2 fields')
    assert not (tmp_path / 'tf.csv').exists()


def test_input_is_not_overwritten_by_whatever_name(tmp_path, kaggle):
    (tmp_path / 'link.csv').symlink_to(kaggle)
    for out in (kaggle, tmp_path / 'link.csv', f'{tmp_path}/./kaggle.csv'):
        with pytest.raises(UserError, match='this is the input'):
            convert(kaggle, out, 'tf')
    convert(kaggle, tmp_path / 'tf.csv', 'tf')
    result = run_tool('tools/convert_submission.py', tmp_path / 'tf.csv', kaggle,
                      '--images', kaggle)
    assert_one_line_error(result, 'this is the input')
    assert kaggle.read_text() == KAGGLE and (tmp_path / 'link.csv').is_symlink()


def test_file_with_nul_bytes_is_not_converted(tmp_path, kaggle):
    kaggle.write_text(KAGGLE.replace('1e-05', '1e\0-05'))
    with pytest.raises(UserError, match=r'kaggle\.csv, row 4: a NUL byte'):
        convert(kaggle, tmp_path / 'tf.csv', 'tf')
    assert not (tmp_path / 'tf.csv').exists()
