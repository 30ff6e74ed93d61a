"""The Open Images dataset for MMDetection, on the memory-mapped prepared index.

Opening reads the index's header and the label space; an image's annotations are read when its item
is asked for. Everything over the whole split (filtering, classes by image) is computed by column.
Data loader workers map the same file, so its pages are shared between processes.

An item is what ``CocoDataset`` gives, plus ``image_id``, ``verified_labels`` and ``boxed_labels``.
Group-of instances have ``ignore_flag=1``, and so have instances without a mask unless the dataset
is told to learn from them, and where it has some of the classes those of their descendants: they
are neither objects to learn from nor background.
:class:`~projects.openimages.mm.models.assigners.IgnoreAwareAssigner` respects them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets.base_det_dataset import BaseDetDataset
from mmdet.registry import DATASETS
from mmengine.dataset.base_dataset import Compose, force_full_init

from projects.openimages.common.errors import ConfigError, UserError
from projects.openimages.data.export.coco import coco_image_id
from projects.openimages.data.folders import image_path, shards_of
from projects.openimages.data.index import PreparedIndex
from projects.openimages.labels import LabelSpace
from projects.openimages.masks import compress_counts
from projects.openimages.mm.datasets.kept_classes import KeptClasses
from projects.openimages.mm.datasets.loading import blank_image, why_unreadable
from projects.openimages.mm.datasets.unreadable import hand_on

MAX_SKIPPED_IN_A_ROW = 50
"""Unreadable images in a row after which it is no longer bad luck: the item says ``unreadable``."""


@DATASETS.register_module()
class OpenImagesInstanceDataset(BaseDetDataset):
    """Open Images instance segmentation, read from a prepared index.

    Args:
        ann_file: ``index.arrow`` of a split, relative to ``data_root`` unless absolute.
        metainfo: ``classes`` keeps only these classes, in this order; other keys are added as they
            are. Names that are not in the index are an error. What is known of the classes left
            out is kept where it says something of these (:class:`KeptClasses`): an object of one
            of them is an ignored instance of its nearest ancestors that are kept, if there are any.
        filter_cfg: ``filter_empty_gt=True`` keeps images with at least one instance to learn from
            (of a kept class, with mask, not group-of); ``min_size`` keeps images whose shorter
            side is at least that many pixels. Not applied in test mode, as in ``CocoDataset``.
        learn_boxes_without_masks: single instances without a mask are objects to learn from, with
            a mask of no pixel, instead of ignored ones. The model must leave them out of its mask
            loss, as ``FederatedRoIHead`` does.
        serialize_data: may only be False; the annotations stay in the mapped file.
        options: the other arguments of ``BaseDetDataset``: ``data_root``, ``data_prefix``
            (key ``img``, a folder; where it is not there, the shards ``<folder>_0`` to ``_f``
            of the image archives are taken), ``pipeline``, ``indices``, ``test_mode``,
            ``lazy_init``, ``max_refetch``, ``backend_args``, ``return_classes``.

    A missing or cut image does not end a training: another one is taken in its place, and the
    packed item names those left out as ``skipped_images``, (path, reason) each, for
    ``UnreadableImagesHook`` to count. In test mode it is a black image with ``unreadable``, the
    reason, in the metainfo. Images in storage that is not a file system (``backend_args``) are
    taken as they are.

    Attributes:
        data_list: (len,) int64, the index row of each item.
    """

    FILTERS = ('filter_empty_gt', 'min_size')

    def __init__(self, ann_file: str, metainfo: Mapping | None = None,
                 filter_cfg: Mapping | None = None, learn_boxes_without_masks: bool = False,
                 serialize_data: bool = False, **options: Any) -> None:
        if serialize_data:
            raise ConfigError('serialize_data must be False: the annotations stay in the index')
        unknown = set(filter_cfg or ()) - set(self.FILTERS)
        if unknown:
            raise ConfigError(f'unknown filter_cfg keys {sorted(unknown)}, '
                              f'expected some of {list(self.FILTERS)}')
        self.learn_boxes_without_masks = learn_boxes_without_masks
        self._lazy = bool(options.get('lazy_init'))
        self._skipped: list[tuple[str, str]] = []
        super().__init__(ann_file=ann_file, metainfo=metainfo, filter_cfg=filter_cfg,
                         serialize_data=False, **options)

    def _join_prefix(self) -> None:
        # BaseDataset calls this in its constructor, before anything needs the classes: here the
        # index's path is known, so this is where its header is read.
        super()._join_prefix()
        self.ann_file = os.fspath(self.ann_file)
        if not self._lazy or os.path.exists(self.ann_file):
            self._open()
        # Otherwise only the metainfo is asked for, on a machine without the data: DetInferencer
        # and init_detector do so, and take the classes from the checkpoint.

    def _open(self) -> None:
        """Read the index's header, and from it the classes."""
        self._index = PreparedIndex.open(self.ann_file)
        folder = Path(self.data_prefix.get('img', ''))
        self._shards = [] if folder.is_dir() else shards_of(folder)
        names = self.label_space.names
        self._metainfo.setdefault('classes', names)
        self._metainfo['classes'] = tuple(self._metainfo['classes'])
        chosen = _class_ids(self._metainfo['classes'], names, self.ann_file)
        self._metainfo.setdefault('palette', [_colour(class_id) for class_id in chosen])
        self._metainfo.setdefault('mids', tuple(self.label_space.mids[i] for i in chosen))

    @property
    def label_space(self) -> LabelSpace:
        """All classes of the index and their hierarchy."""
        return self._index.label_space

    @property
    def index(self) -> PreparedIndex:
        """The prepared index this dataset reads; its rows are ``data_list``."""
        return self._index

    def full_init(self) -> None:
        """Choose the rows: filtering, then ``indices``."""
        if self._fully_initialized:
            return
        if not hasattr(self, '_index'):
            self._open()
        if self.proposal_file is not None:
            raise ConfigError('proposal_file is not supported')
        self.data_list = self.filter_data()
        if self._indices is not None:
            self.data_list = self._get_unserialized_subset(self._indices)
        self._fully_initialized = True

    def filter_data(self) -> np.ndarray:
        """Rows of the images that ``filter_cfg`` keeps, (K,) int64."""
        keep = np.ones(self._index.num_images, bool)
        if not self.test_mode and self.filter_cfg:
            if self.filter_cfg.get('filter_empty_gt', False):
                keep[:] = False
                keep[self._learnable[0]] = True
            min_size = self.filter_cfg.get('min_size', 0)
            keep &= np.minimum(self._index.widths, self._index.heights) >= min_size
        return np.flatnonzero(keep)

    @cached_property
    def _classes(self) -> KeptClasses:
        return KeptClasses(self.label_space, _class_ids(
            self._metainfo['classes'], self.label_space.names, self.ann_file))

    @cached_property
    def _learnable(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Index rows (M,), labels (M,) and masks (M,) bool of the instances not ignored."""
        index = self._index
        labels = self._classes.label_of_class[index.class_ids]
        use = (labels >= 0) & ~index.is_group_of
        if not self.learn_boxes_without_masks:
            use &= index.has_mask
        rows = np.repeat(np.arange(index.num_images), np.diff(index.instance_offsets))
        return rows[use], labels[use], index.has_mask[use]

    def _get_unserialized_subset(self, indices: int | Sequence[int]) -> np.ndarray:
        if isinstance(indices, (int, np.integer)):
            return self.data_list[:indices] if indices >= 0 else self.data_list[indices:]
        if not isinstance(indices, (Sequence, np.ndarray)):
            raise TypeError(f'indices should be an int or a sequence of int, got {type(indices)}')
        return self.data_list[np.asarray(indices, np.int64)]

    def __getstate__(self) -> dict:
        # A worker process that does not fork gets the index's path (see PreparedIndex) and the
        # rows; what is computed from them stays here.
        return {key: value for key, value in self.__dict__.items()
                if key not in ('_learnable', '_classes')}

    def __getitem__(self, idx: int) -> dict:
        """One item through the pipeline, or another where its image cannot be read."""
        item = super().__getitem__(idx)
        if self._skipped:
            skipped, self._skipped = self._skipped, []
            if 'data_samples' in item:
                item['data_samples'].set_metainfo({'skipped_images': skipped})
            else:
                hand_on(skipped)
        return item

    def prepare_data(self, idx: int) -> dict | None:
        """One item through the pipeline; None in training where its image cannot be read."""
        load, *rest = self.pipeline.transforms or (None,)
        info = self.get_data_info(idx)
        if not isinstance(load, LoadImageFromFile) or self.backend_args is not None:
            return self.pipeline(info)
        path, reason = info['img_path'], why_unreadable(info['img_path'])
        if reason is None:
            try:
                return self.pipeline(info)
            except Exception:  # raised again below, unless it is the image that cannot be decoded
                reason = why_unreadable(path, decode=True)
                if reason is None:
                    raise
        if not self.test_mode and len(self._skipped) < MAX_SKIPPED_IN_A_ROW:
            self._skipped.append((path, reason))
            return None
        return Compose(rest)(blank_image(info, reason))

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """One image's annotations, built from the index.

        Returns:
            ``img_path``, ``img_id`` (int, as in ``coco.json``), ``image_id`` (str),
            ``height``, ``width``, ``seg_map_path`` (None), ``sample_idx``, ``instances`` (each
            ``bbox`` [x1, y1, x2, y2] in pixels, ``bbox_label``, ``mask`` (RLE), ``ignore_flag``,
            ``group_of``); ``verified_labels``: (L, 2) int64, each row a label and 1 where it is
            verified present, 0 where verified absent; and ``boxed_labels``: (B,) int64, ascending,
            the labels that have a box in the image, whatever augmentation leaves of it. Where
            classes are left out, the kept ancestors of one that is present or boxed are, too, and
            the kept descendants of one that is absent are absent.
        """
        row = int(self.data_list[idx])
        index = self._index
        image_id = index.image_id(row)
        info = {
            'img_path': self._image_path(image_id),
            'img_id': coco_image_id(image_id), 'image_id': image_id, 'seg_map_path': None,
            'height': int(index.heights[row]), 'width': int(index.widths[row]),
            'sample_idx': int(idx) if idx >= 0 else len(self) + int(idx)}
        info['verified_labels'] = self._verified_labels(row)
        info['boxed_labels'] = self._classes.boxed(index.class_ids[index.instance_rows(row)])
        info['instances'] = self._instances(row, info['height'], info['width'])
        if self.return_classes:
            info['text'] = self._metainfo['classes']
            info['caption_prompt'] = self.caption_prompt
            info['custom_entities'] = True
        return info

    def _image_path(self, image_id: str) -> str:
        if self._shards:
            return os.fspath(image_path(self._shards, image_id))
        return os.path.join(self.data_prefix['img'], f'{image_id}.jpg')

    def _instances(self, row: int, height: int, width: int) -> list[dict]:
        labels_of, is_kept = self._classes.nearest, self._classes.is_kept
        instances = []
        for class_id, group_of, has_mask, counts, mask_box, box in self._index.instances(row):
            labels = labels_of[class_id]
            if not labels:
                continue
            learnable = is_kept[class_id] and (has_mask or self.learn_boxes_without_masks)
            if has_mask:
                x, y, w, h = mask_box
                bbox = [x, y, x + w, y + h]
            else:
                bbox = [box[0] * width, box[2] * height, box[1] * width, box[3] * height]
                bbox = _inside(bbox, height, width)
                if bbox is None:
                    continue
                counts = _no_mask(height * width)
            instances += [{
                'bbox': bbox, 'bbox_label': label,
                'mask': {'size': [height, width], 'counts': counts},
                'ignore_flag': int(group_of or not learnable),
                'group_of': group_of} for label in labels]
        return instances

    def _verified_labels(self, row: int) -> np.ndarray:
        rows = self._index.label_rows(row)
        return self._classes.verified(self._index.label_class_ids[rows],
                                      self._index.label_present[rows])

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
        """Labels of the instances to learn from, one per instance; ignored ones do not count."""
        rows = self._index.instance_rows(int(self.data_list[idx]))
        use = ~self._index.is_group_of[rows]
        if not self.learn_boxes_without_masks:
            use &= self._index.has_mask[rows]
        labels = self._classes.label_of_class[self._index.class_ids[rows][use]]
        return labels[labels >= 0].tolist()

    @force_full_init
    def get_cat2imgs(self) -> dict[int, np.ndarray]:
        """Item numbers by label, ascending: the images with an instance of that class to learn.

        Where a class has masks, images in which it has none do not count: drawn for the class, they
        would take the places of images that say more of it.
        """
        rows, labels, has_mask = self._learnable
        somewhere = np.bincount(labels[has_mask], minlength=len(self._metainfo['classes'])) > 0
        use = has_mask | ~somewhere[labels]
        rows, labels = rows[use], labels[use]
        order = np.argsort(self.data_list, kind='stable')
        sorted_rows = self.data_list[order]
        # An index row may stand in the dataset several times or not at all.
        first = np.searchsorted(sorted_rows, rows, side='left')
        count = np.searchsorted(sorted_rows, rows, side='right') - first
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        items = order[np.repeat(first, count) + within]
        pairs = np.unique(np.repeat(labels, count) * max(len(self.data_list), 1) + items)
        labels, items = np.divmod(pairs, max(len(self.data_list), 1))
        bounds = np.searchsorted(labels, np.arange(len(self._metainfo['classes']) + 1))
        return {label: items[bounds[label]:bounds[label + 1]]
                for label in range(len(bounds) - 1)}

    @property
    def ancestor_matrix(self) -> np.ndarray:
        """(C, C) bool by label, ``[c, a]`` is True where ``a`` is a proper ancestor of ``c``."""
        chosen = [self.label_space.class_id(mid) for mid in self._metainfo['mids']]
        return self.label_space.ancestor_matrix[np.ix_(chosen, chosen)]

    @force_full_init
    def label_counts(self) -> np.ndarray:
        """(C,) int64 instances to learn from by label, in the index rows that the dataset has."""
        rows, labels, _ = self._learnable
        return np.bincount(labels[np.isin(rows, self.data_list)],
                           minlength=len(self._metainfo['classes']))

    @force_full_init
    def is_portrait(self) -> np.ndarray:
        """(len,) bool: images that are higher than wide."""
        return self._index.widths[self.data_list] < self._index.heights[self.data_list]


def _class_ids(chosen: Sequence[str], names: Sequence[str], path: str) -> list[int]:
    if not chosen or len(set(chosen)) < len(chosen):
        again = [name for name in chosen if chosen.count(name) > 1]
        raise ConfigError(f'metainfo.classes has {again[0]!r} twice' if again else
                          'metainfo.classes has no class', path=path)
    ids = {name: class_id for class_id, name in enumerate(names)}
    missing = [name for name in chosen if name not in ids]
    if missing:
        raise UserError(f'class {missing[0]!r} is not in the index, expected some of its '
                        f'{len(names)} class names', path=path)
    return [ids[name] for name in chosen]


def _colour(class_id: int) -> tuple[int, int, int]:
    """A colour far from its neighbours': bits of the class id dealt out, as in Pascal VOC's map."""
    value, colour = class_id + 1, [0, 0, 0]
    for shift in range(7, -1, -1):
        for channel in range(3):
            colour[channel] |= ((value >> channel) & 1) << shift
        value >>= 3
    return tuple(colour)


def _inside(bbox: list[float], height: int, width: int) -> list[float] | None:
    """The box cut to the image; None if less than a pixel wide or high, as CocoDataset skips it."""
    x1, y1, x2, y2 = max(bbox[0], 0.), max(bbox[1], 0.), min(bbox[2], width), min(bbox[3], height)
    return [x1, y1, x2, y2] if x2 - x1 >= 1 and y2 - y1 >= 1 else None


@lru_cache(maxsize=4096)
def _no_mask(pixels: int) -> str:
    """Counts of a mask without a pixel set: MMDetection's loading needs one for every instance."""
    return compress_counts(np.array([pixels])).decode('ascii')
