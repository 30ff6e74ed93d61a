"""The prepared index: what is written is read back, and what is no index is refused in words."""

import copy
import pickle

import numpy as np
import pyarrow as pa
import pytest

from projects.openimages.common.errors import UserError
from projects.openimages.data.index import IndexColumns, PreparedIndex, write_index
from projects.openimages.labels import LabelSpace

SPACE = LabelSpace(('/m/a', '/m/b'), ('Ä, one', 'two'), np.array([[False, True], [False, False]]))


def small_columns() -> IndexColumns:
    """Three images with 2, 0 and 1 instances; the second instance has no mask."""
    return IndexColumns(
        image_ids=['000a', '00ff', 'f000'],
        widths=np.array([10, 20, 30]), heights=np.array([5, 6, 7]),
        instance_offsets=np.array([0, 2, 2, 3]),
        class_ids=np.array([0, 1, 1]),
        boxes=np.array([[0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1], [0.5, 0.6, 0.7, 0.8]]),
        is_group_of=np.array([False, True, False]),
        mask_area=np.array([4, 0, 9]),
        mask_box=np.array([[1, 2, 2, 2], [0, 0, 0, 0], [3, 3, 3, 3]]),
        mask_offsets=np.array([0, 3, 3, 5]), mask_data=b'abcde',
        label_offsets=np.array([0, 1, 3, 3]),
        label_class_ids=np.array([0, 1, 0]), label_present=np.array([True, False, True]))


@pytest.fixture
def index_path(tmp_path):
    path = tmp_path / 'index.arrow'
    write_index(path, small_columns(), split='validation', label_space=SPACE)
    return path


def test_index_gives_back_what_was_written(index_path):
    index = PreparedIndex.open(index_path)
    assert (index.split, index.num_images, index.num_instances) == ('validation', 3, 3)
    assert list(index.image_ids) == ['000a', '00ff', 'f000']
    assert index.label_space.names == SPACE.names
    assert index.label_space.ancestor_matrix.tolist() == SPACE.ancestor_matrix.tolist()
    columns = small_columns()
    for name in ('widths', 'heights', 'instance_offsets', 'class_ids', 'boxes', 'is_group_of',
                 'mask_area', 'mask_box', 'label_offsets', 'label_class_ids', 'label_present'):
        assert getattr(index, name).tolist() == getattr(columns, name).tolist(), name
    assert index.has_mask.tolist() == [True, False, True]
    assert [index.mask_counts(n) for n in range(3)] == [b'abc', None, b'de']


def test_image_record_holds_only_its_own_rows(index_path):
    record = PreparedIndex.open(index_path).image(2)
    assert (record.image_id, record.width, record.height) == ('f000', 30, 7)
    assert record.class_ids.tolist() == [1]
    assert record.boxes.tolist() == [[0.5, 0.6, 0.7, 0.8]]
    assert record.masks == [{'size': [7, 30], 'counts': b'de'}]
    assert record.label_class_ids.tolist() == []
    assert PreparedIndex.open(index_path).image(1).masks == []


def test_columns_are_views_of_the_mapped_file(index_path):
    index = PreparedIndex.open(index_path)
    for name in ('widths', 'class_ids', 'boxes', 'mask_box', 'instance_offsets'):
        assert not getattr(index, name).flags.owndata, name
        assert not getattr(index, name).flags.writeable, name


def test_find_gives_the_row_or_says_which_image_is_missing(index_path):
    index = PreparedIndex.open(index_path)
    assert [index.find(image_id) for image_id in index.image_ids] == [0, 1, 2]
    with pytest.raises(UserError, match="no image 'zzz'"):
        index.find('zzz')


def test_copies_and_pickles_open_the_file_again(index_path):
    index = PreparedIndex.open(index_path)
    for other in (copy.deepcopy(index), pickle.loads(pickle.dumps(index))):
        assert other.boxes.tolist() == index.boxes.tolist()
    assert len(pickle.dumps(index)) < 1000


def test_equal_columns_give_equal_bytes(tmp_path, index_path):
    again = tmp_path / 'again.arrow'
    write_index(again, small_columns(), split='validation', label_space=SPACE)
    assert again.read_bytes() == index_path.read_bytes()


def test_split_without_annotations_is_an_index(tmp_path):
    empty = IndexColumns(['a'], np.array([4]), np.array([3]), np.zeros(2), np.zeros(0),
                         np.zeros((0, 4)), np.zeros(0, bool), np.zeros(0), np.zeros((0, 4)),
                         np.zeros(1), b'', np.zeros(2), np.zeros(0), np.zeros(0, bool))
    write_index(tmp_path / 'index.arrow', empty, split='test', label_space=SPACE)
    index = PreparedIndex.open(tmp_path / 'index.arrow')
    assert index.num_instances == 0
    assert index.image(0).masks == []


@pytest.mark.parametrize('content', [b'', b'not an index', b'ARROW1\0\0 and no more'])
def test_other_file_is_refused(tmp_path, content):
    path = tmp_path / 'index.arrow'
    path.write_bytes(content)
    with pytest.raises(UserError, match=r'index\.arrow: not a prepared index'):
        PreparedIndex.open(path)


def test_truncated_index_is_refused(index_path):
    index_path.write_bytes(index_path.read_bytes()[:-200])
    with pytest.raises(UserError, match='not a prepared index, or half of one'):
        PreparedIndex.open(index_path)


@pytest.mark.parametrize(('make', 'kind'), [
    (lambda path: path.mkdir(), 'a folder'),
    (lambda path: path.symlink_to('/dev/null'), 'a device')])
def test_what_is_no_file_is_refused(tmp_path, make, kind):
    make(tmp_path / 'index.arrow')
    with pytest.raises(UserError, match=rf'index\.arrow: {kind}, expected a file'):
        PreparedIndex.open(tmp_path / 'index.arrow')


def test_missing_index_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(UserError, match='prepare_data'):
        PreparedIndex.open(tmp_path / 'index.arrow')


def test_index_of_another_version_is_refused(tmp_path, index_path):
    with pa.ipc.open_file(index_path) as reader:
        batch = reader.get_batch(0)
        schema = reader.schema.with_metadata({**reader.schema.metadata,
                                              b'openimages.index_version': b'99'})
    path = tmp_path / 'future.arrow'
    with pa.ipc.new_file(path, schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(UserError, match='version 99, this program reads version 1'):
        PreparedIndex.open(path)


def test_plain_instances_are_those_of_the_columns(index_path):
    index = PreparedIndex.open(index_path)
    assert index.instances(0) == [
        (0, False, True, 'abc', (1, 2, 2, 2), (0.1, 0.2, 0.3, 0.4)),
        (1, True, False, '', (0, 0, 0, 0), (0.0, 1.0, 0.0, 1.0))]
    assert index.instances(1) == []
    assert index.instances(2) == [(1, False, True, 'de', (3, 3, 3, 3), (0.5, 0.6, 0.7, 0.8))]
