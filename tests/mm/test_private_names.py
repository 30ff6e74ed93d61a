"""Private names of MMEngine, MMCV, MMDetection and torch: which are used, and that they are there.

What the engine needs of MMEngine stands in ``mmengine_internals`` and is tested beside it. Here
are the names that a subclass or a wrapper cannot do without, and those that a subclass would hide
by accident.
"""

import ast
import importlib
import inspect
import pkgutil
import re

import pytest
from mmdet.datasets.base_det_dataset import BaseDetDataset
from mmdet.datasets.transforms import CopyPaste, LoadAnnotations, RandomErasing
from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.models.roi_heads import StandardRoIHead

from projects.openimages import mm

# Class in its module: the private names that it shares with the classes it inherits from.
INHERITED = {
    'engine.loops.ResumableTrainLoop': {'_iter'},
    'datasets.openimages.OpenImagesInstanceDataset': {
        '_fully_initialized', '_get_unserialized_subset', '_indices', '_join_prefix', '_metainfo'},
    'datasets.rle_transforms.LoadRleAnnotations': {'_load_masks', '_process_masks'},
    'datasets.rle_transforms.RleCopyPaste': {'_copy_paste'},
    'datasets.rle_transforms.RleRandomErasing': {'_transform_masks'},
    'models.mask2former.IgnoreAwareMask2FormerHead': {'_get_targets_single'}}
# Module: the private names of others' objects.
OF_OTHERS = {
    'engine.checkpoints': {'_metadata'},  # torch's, of a state dict
    'engine.mmengine_internals': {'_accumulative_counts', '_get_base_files', '_get_cfg_path'},
    'engine.publishing': {'_metadata'},
    'engine.safe_contents': {'_core', '_reconstruct'},  # numpy's names in a pickle
    'models.fast': {'_dynamo', '_forward_hooks'},  # torch's
    'models.tta': {'_bbox_forward', '_mask_forward'},
    # Of other objects of their own class.
    'structures.column_runs': {'_cut'},
    'structures.rle_masks': {'_runs', '_set', '_source', '_visible'}}


def modules():
    prefix = mm.__name__ + '.'
    for info in pkgutil.walk_packages(mm.__path__, prefix):
        yield info.name.removeprefix(prefix), importlib.import_module(info.name)


def private_names(cls) -> set[str]:
    """The private attributes and methods that a class's own source speaks of."""
    found = re.findall(r'\bself\.(_[a-z]\w*)|\bdef (_[a-z]\w*)', inspect.getsource(cls))
    return {name for pair in found for name in pair if name}


def test_private_names_are_shared_with_a_parent_only_where_listed():
    found = {}
    for name, module in modules():
        for cls in vars(module).values():
            if not inspect.isclass(cls) or cls.__module__ != module.__name__:
                continue
            parents = [base for base in cls.__mro__[1:]
                       if base.__module__.split('.')[0] in ('mmdet', 'mmengine', 'mmcv', 'torch')]
            shared = private_names(cls) & set().union(*map(private_names, parents))
            if shared:
                found[f'{name}.{cls.__name__}'] = shared
    assert found == INHERITED


def test_private_names_of_other_objects_are_used_only_where_listed():
    found = {}
    for name, module in modules():
        names = {node.attr for node in ast.walk(ast.parse(inspect.getsource(module)))
                 if isinstance(node, ast.Attribute) and re.match(r'_[a-z]', node.attr)
                 and ast.unparse(node.value) not in ('self', 'super()', 'os')}
        if names:
            found[name] = names
    assert found == OF_OTHERS


@pytest.mark.parametrize(('method', 'parameters'), [
    (StandardRoIHead._bbox_forward, ['self', 'x', 'rois']),
    (StandardRoIHead._mask_forward, ['self', 'x', 'rois', 'pos_inds', 'bbox_feats']),
    (LoadAnnotations._load_masks, ['self', 'results']),
    (LoadAnnotations._process_masks, ['self', 'results']),
    (CopyPaste._copy_paste, ['self', 'dst_results', 'src_results']),
    (Mask2FormerHead._get_targets_single,
     ['self', 'cls_score', 'mask_pred', 'gt_instances', 'img_meta']),
    (RandomErasing._transform_masks, ['self', 'results', 'patches']),
    (BaseDetDataset._join_prefix, ['self']),
    (BaseDetDataset._get_unserialized_subset, ['self', 'indices'])])
def test_methods_take_what_they_are_given(method, parameters):
    assert list(inspect.signature(method).parameters) == parameters


def test_a_data_set_joins_its_paths_after_its_metainfo_and_before_anything_is_read():
    seen = []

    class Look(BaseDetDataset):
        def _join_prefix(self):
            seen.append((self._metainfo, self.ann_file, self._fully_initialized))

        def full_init(self):
            seen.append('full_init')

    Look(ann_file='index.arrow', metainfo={'classes': ['cat']}, data_prefix={'img': 'x'})
    assert seen == [({'classes': ['cat']}, 'index.arrow', False), 'full_init']
