"""The prepared index: one split's images, instances and verified labels in one memory-mapped file.

In: flat arrays, one entry an image, an instance or a verified label (:class:`IndexColumns`).
Out: an Arrow IPC file of one record batch with a row per image, which opens in milliseconds at any
size because nothing is read before it is asked for, and whose pages all processes share.

The columns, their types and units are described in ``docs/prepared_index.md``.
"""

from __future__ import annotations

import bisect
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import IO, Any

import numpy as np
import pyarrow as pa

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import atomic_write, open_regular
from projects.openimages.labels import LabelSpace

INDEX_VERSION = 1

_VERSION_KEY = b'openimages.index_version'
_SPLIT_KEY = b'openimages.split'
_LABEL_SPACE_KEY = b'openimages.label_space'

INSTANCE_TYPE = pa.struct([
    pa.field('class_id', pa.int16(), nullable=False),
    pa.field('box', pa.list_(pa.field('item', pa.float64(), nullable=False), 4), nullable=False),
    pa.field('is_group_of', pa.bool_(), nullable=False),
    pa.field('mask_area', pa.int32(), nullable=False),
    pa.field('mask_box', pa.list_(pa.field('item', pa.int32(), nullable=False), 4),
             nullable=False),
    pa.field('mask', pa.large_binary(), nullable=True),
])
LABEL_TYPE = pa.struct([
    pa.field('class_id', pa.int16(), nullable=False),
    pa.field('present', pa.bool_(), nullable=False),
])
SCHEMA = pa.schema([
    pa.field('image_id', pa.large_utf8(), nullable=False),
    pa.field('width', pa.int32(), nullable=False),
    pa.field('height', pa.int32(), nullable=False),
    pa.field('instances', pa.large_list(pa.field('item', INSTANCE_TYPE, nullable=False)),
             nullable=False),
    pa.field('labels', pa.large_list(pa.field('item', LABEL_TYPE, nullable=False)),
             nullable=False),
])


@dataclass
class IndexColumns:
    """What :func:`write_index` stores; I images, N instances, L verified labels.

    Attributes:
        image_ids: I strings, ascending.
        widths, heights: (I,) int32, pixels.
        instance_offsets: (I + 1,) int64, where each image's instances begin.
        class_ids: (N,) int16.
        boxes: (N, 4) float64 XMin, XMax, YMin, YMax, normalised.
        is_group_of: (N,) bool.
        mask_area: (N,) int32 pixels, 0 without a mask.
        mask_box: (N, 4) int32 x, y, w, h of the mask in pixels, 0 without a mask.
        mask_offsets: (N + 1,) int64 into ``mask_data``.
        mask_data: compressed RLE counts at full image size, end to end.
        label_offsets: (I + 1,) int64.
        label_class_ids: (L,) int16.
        label_present: (L,) bool.
    """

    image_ids: Sequence[str]
    widths: np.ndarray
    heights: np.ndarray
    instance_offsets: np.ndarray
    class_ids: np.ndarray
    boxes: np.ndarray
    is_group_of: np.ndarray
    mask_area: np.ndarray
    mask_box: np.ndarray
    mask_offsets: np.ndarray
    mask_data: bytes | mmap.mmap
    label_offsets: np.ndarray
    label_class_ids: np.ndarray
    label_present: np.ndarray


@dataclass(frozen=True)
class ImageRecord:
    """One image of the index, with n instances and l verified labels.

    Attributes:
        image_id: the official id.
        width, height: pixels.
        class_ids: (n,) int16.
        boxes: (n, 4) float64 XMin, XMax, YMin, YMax, normalised.
        is_group_of: (n,) bool.
        mask_area: (n,) int32.
        mask_box: (n, 4) int32 x, y, w, h.
        masks: list of n, an RLE dict or None.
        label_class_ids: (l,) int16.
        label_present: (l,) bool.
    """

    image_id: str
    width: int
    height: int
    class_ids: np.ndarray
    boxes: np.ndarray
    is_group_of: np.ndarray
    mask_area: np.ndarray
    mask_box: np.ndarray
    masks: list[dict | None]
    label_class_ids: np.ndarray
    label_present: np.ndarray


class ImageIds(Sequence[str]):
    """The image ids by row, read from the file as they are asked for."""

    def __init__(self, array: pa.LargeStringArray) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return self._array[row].to_pylist()
        return self._array[int(row)].as_py()

    def to_arrow(self) -> pa.LargeStringArray:
        """The whole column, without a copy."""
        return self._array


class PreparedIndex:
    """A split's prepared annotations; make one with :meth:`open`.

    The arrays are views of the file: reading one touches only the pages it covers. See
    :class:`IndexColumns` for their shapes and units.

    Example:
        >>> index = PreparedIndex.open('data/prepared/validation/index.arrow')  # doctest: +SKIP
        >>> index.image(0).image_id  # doctest: +SKIP
        '0001eeaf4aed83f9'
    """

    def __init__(self, path: str, batch: pa.RecordBatch, split: str,
                 label_space: LabelSpace) -> None:
        self.path = path
        self.split = split
        self.label_space = label_space
        self.image_ids = ImageIds(batch.column('image_id'))
        self.widths = batch.column('width').to_numpy()
        self.heights = batch.column('height').to_numpy()
        instances, labels = batch.column('instances'), batch.column('labels')
        self.instance_offsets = instances.offsets.to_numpy()
        self.label_offsets = labels.offsets.to_numpy()
        values = instances.values
        self.class_ids = values.field('class_id').to_numpy()
        self.boxes = values.field('box').values.to_numpy().reshape(-1, 4)
        self.is_group_of = _bools(values.field('is_group_of'))
        self.mask_area = values.field('mask_area').to_numpy()
        self.mask_box = values.field('mask_box').values.to_numpy().reshape(-1, 4)
        masks = values.field('mask')
        self.has_mask = _bools(masks.is_valid())
        _, offsets, data = masks.buffers()
        self._mask_offsets = np.frombuffer(offsets, np.int64, len(masks) + 1)
        self._mask_data = memoryview(data) if data is not None else memoryview(b'')
        self.label_class_ids = labels.values.field('class_id').to_numpy()
        self.label_present = _bools(labels.values.field('present'))
        # Python reads single entries of a memoryview several times as fast as of an array.
        self._starts, self._mask_starts = self.instance_offsets.data, self._mask_offsets.data
        self._lists = tuple(column.data for column in (
            self.class_ids, self.is_group_of, self.has_mask, self.mask_box.reshape(-1),
            self.boxes.reshape(-1)))

    @classmethod
    def open(cls, path: str | os.PathLike) -> PreparedIndex:
        """Map the file into memory.

        Raises:
            UserError: no such file, not an index, half a file, or an index of another version.
        """
        path = os.fspath(path)
        try:
            open_regular(path).close()
            reader = pa.ipc.open_file(pa.memory_map(path))
        except FileNotFoundError:
            raise UserError('no such prepared index; tools/prepare_data.py makes it',
                            path=path) from None
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f'not a prepared index, or half of one: {error}',
                            path=path) from None
        metadata = reader.schema.metadata or {}
        version = metadata.get(_VERSION_KEY, b'none').decode()
        if version != str(INDEX_VERSION):
            raise UserError(f'prepared index of version {version}, this program reads version '
                            f'{INDEX_VERSION}; run tools/prepare_data.py again', path=path)
        if not reader.schema.equals(SCHEMA) or reader.num_record_batches != 1:
            raise UserError('a prepared index with other columns than docs/prepared_index.md '
                            'says; run tools/prepare_data.py again', path=path)
        try:
            batch = reader.get_batch(0)
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f'half a prepared index: {error}', path=path) from None
        return cls(path, batch, metadata[_SPLIT_KEY].decode(),
                   LabelSpace.from_json(metadata[_LABEL_SPACE_KEY].decode()))

    def __reduce__(self) -> tuple:
        """Copies and other processes open the file again instead of carrying its contents."""
        return (PreparedIndex.open, (self.path,))

    @property
    def num_images(self) -> int:
        return len(self.widths)

    @property
    def num_instances(self) -> int:
        return len(self.class_ids)

    def __len__(self) -> int:
        return self.num_images

    def image_id(self, row: int) -> str:
        """The id of the image in a row."""
        return self.image_ids[row]

    def find(self, image_id: str) -> int:
        """The row of an image id; a UserError if the split does not have it."""
        row = bisect.bisect_left(self.image_ids, image_id)
        if row == self.num_images or self.image_ids[row] != image_id:
            raise UserError(f'no image {image_id!r} in this index', path=self.path)
        return row

    def instance_rows(self, row: int) -> slice:
        """The slice of the flat instance columns that belongs to an image."""
        return slice(int(self.instance_offsets[row]), int(self.instance_offsets[row + 1]))

    def label_rows(self, row: int) -> slice:
        """The slice of the flat label columns that belongs to an image."""
        return slice(int(self.label_offsets[row]), int(self.label_offsets[row + 1]))

    def mask_counts(self, instance: int) -> bytes | None:
        """Compressed RLE counts of an instance at full image size; None without a mask."""
        if not self.has_mask[instance]:
            return None
        return bytes(self._mask_data[self._mask_offsets[instance]:
                                     self._mask_offsets[instance + 1]])

    def masks(self, row: int) -> list[dict | None]:
        """RLE dict or None of every instance of an image."""
        instances = self.instance_rows(row)
        size = [int(self.heights[row]), int(self.widths[row])]
        start = instances.start
        offsets = self._mask_offsets[start:instances.stop + 1].tolist()
        data = self._mask_data[offsets[0]:offsets[-1]].tobytes()
        return [{'size': list(size), 'counts': data[begin - offsets[0]:end - offsets[0]]}
                if present else None
                for begin, end, present in zip(offsets, offsets[1:],
                                               self.has_mask[instances].tolist(), strict=False)]

    def instances(self, row: int) -> list[tuple]:
        """An image's instances as plain values, the fastest way to read one image.

        Returns:
            For each instance ``(class_id, is_group_of, has_mask, counts, mask_box, box)``, the
            boxes as tuples of four, ``counts`` as text, empty without a mask.
        """
        start, stop = self._starts[row], self._starts[row + 1]
        class_ids, group_of, has_mask, mask_box, box = self._lists
        offsets = self._mask_starts[start:stop + 1].tolist()
        data = self._mask_data[offsets[0]:offsets[-1]].tobytes().decode('ascii')
        first = offsets[0]
        texts = [data[begin - first:end - first] for begin, end in pairwise(offsets)]
        return list(zip(class_ids[start:stop].tolist(), group_of[start:stop].tolist(),
                        has_mask[start:stop].tolist(), texts,
                        _fours_of(mask_box[4 * start:4 * stop].tolist()),
                        _fours_of(box[4 * start:4 * stop].tolist()), strict=True))

    def image(self, row: int) -> ImageRecord:
        """Everything the index knows of an image."""
        instances, labels = self.instance_rows(row), self.label_rows(row)
        return ImageRecord(
            image_id=self.image_ids[row], width=int(self.widths[row]),
            height=int(self.heights[row]), class_ids=self.class_ids[instances],
            boxes=self.boxes[instances], is_group_of=self.is_group_of[instances],
            mask_area=self.mask_area[instances], mask_box=self.mask_box[instances],
            masks=self.masks(row), label_class_ids=self.label_class_ids[labels],
            label_present=self.label_present[labels])


def write_index(path: str | os.PathLike, columns: IndexColumns, *, split: str,
                label_space: LabelSpace) -> None:
    """Write an index file; equal columns give equal bytes."""
    schema = SCHEMA.with_metadata({
        _VERSION_KEY: str(INDEX_VERSION).encode(),
        _SPLIT_KEY: split.encode(),
        _LABEL_SPACE_KEY: label_space.to_json().encode(),
    })
    batch = pa.RecordBatch.from_arrays([
        pa.array(columns.image_ids, pa.large_utf8()),
        _array(columns.widths, np.int32),
        _array(columns.heights, np.int32),
        _lists(columns.instance_offsets, _instance_array(columns), schema.field('instances')),
        _lists(columns.label_offsets, _label_array(columns), schema.field('labels')),
    ], schema=schema)
    batch.validate()
    with atomic_write(path, 'wb') as file:
        sink = pa.PythonFile(_PieceWriter(file, columns.mask_data), 'w')
        with pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(batch)


class _PieceWriter:
    """A file that writes gigabytes piece by piece and lets go of mapped pages behind it."""

    _PIECE = 64 << 20

    def __init__(self, file: IO[bytes], mask_data: bytes | mmap.mmap) -> None:
        self._file = file
        self._map = mask_data if isinstance(mask_data, mmap.mmap) else None
        self.closed = False

    def write(self, data: Any) -> int:
        view = memoryview(data).cast('B')
        for start in range(0, len(view), self._PIECE):
            self._file.write(view[start:start + self._PIECE])
            if self._map is not None and len(view) > self._PIECE:
                self._map.madvise(mmap.MADV_DONTNEED)
        return len(view)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()


def _instance_array(columns: IndexColumns) -> pa.StructArray:
    return pa.StructArray.from_arrays([
        _array(columns.class_ids, np.int16),
        _fours(columns.boxes, np.float64, INSTANCE_TYPE.field('box').type),
        pa.array(columns.is_group_of, pa.bool_()),
        _array(columns.mask_area, np.int32),
        _fours(columns.mask_box, np.int32, INSTANCE_TYPE.field('mask_box').type),
        _mask_array(columns.mask_offsets, columns.mask_data),
    ], fields=list(INSTANCE_TYPE))


def _label_array(columns: IndexColumns) -> pa.StructArray:
    return pa.StructArray.from_arrays([
        _array(columns.label_class_ids, np.int16),
        pa.array(columns.label_present, pa.bool_()),
    ], fields=list(LABEL_TYPE))


def _mask_array(offsets: np.ndarray, data: bytes | mmap.mmap) -> pa.LargeBinaryArray:
    """(N,) binary over the given bytes, null where an instance has none."""
    offsets = np.ascontiguousarray(offsets, np.int64)
    valid = np.packbits(np.diff(offsets) > 0, bitorder='little')
    return pa.Array.from_buffers(
        pa.large_binary(), len(offsets) - 1,
        [pa.py_buffer(valid.tobytes()), pa.py_buffer(offsets), pa.py_buffer(data)])


def _array(values: np.ndarray, dtype: type) -> pa.Array:
    return pa.array(np.ascontiguousarray(values, dtype))


def _fours(values: np.ndarray, dtype: type, arrow_type: pa.DataType) -> pa.Array:
    flat: np.ndarray = np.ascontiguousarray(values, dtype).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=arrow_type)


def _lists(offsets: np.ndarray, values: pa.Array, field: pa.Field) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array(np.ascontiguousarray(offsets, np.int64)), values,
                                         type=field.type)


def _fours_of(values: list) -> list[tuple]:
    numbers = iter(values)
    return list(zip(numbers, numbers, numbers, numbers, strict=True))


def _bools(array: pa.BooleanArray) -> np.ndarray:
    return array.to_numpy(zero_copy_only=False)
