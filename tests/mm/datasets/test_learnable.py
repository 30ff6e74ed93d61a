"""What a dataset says for learning from boxes without a mask and from verified labels."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.datasets import ConcatDataset
from mmengine.registry import init_default_scope

from projects.openimages.common.errors import UserError
from projects.openimages.mm.datasets.openimages import OpenImagesInstanceDataset
from projects.openimages.mm.engine.hooks import TrainingClassesHook, training_classes
from projects.openimages.mm.models.federated.targets import Hierarchy, ImageClasses

PIPELINE = [{'type': 'LoadImageFromFile'},
            {'type': 'LoadRleAnnotations', 'with_bbox': True, 'with_mask': True},
            {'type': 'PackInstances'}]


def dataset(root, **options) -> OpenImagesInstanceDataset:
    init_default_scope('mmdet')
    return OpenImagesInstanceDataset(**{
        'data_root': str(root), 'ann_file': 'prepared/train/index.arrow',
        'data_prefix': {'img': 'images/train/'}, 'pipeline': PIPELINE, **options})


def test_boxes_without_masks_are_objects_without_a_mask_where_asked_for(demo_root):
    ignoring, learning = dataset(demo_root), dataset(demo_root, learn_boxes_without_masks=True)
    index = learning.index
    assert (~index.has_mask & ~index.is_group_of).any()
    for item in range(len(learning)):
        rows = index.instance_rows(item)
        sample, other = (data[item]['data_samples'] for data in (learning, ignoring))
        single = ~index.is_group_of[rows]
        assert len(sample.gt_instances) == single.sum()
        assert len(sample.ignored_instances) == index.is_group_of[rows].sum()
        assert sample.gt_instances.has_mask.tolist() == index.has_mask[rows][single].tolist()
        assert len(other.gt_instances) == (single & index.has_mask[rows]).sum()
        assert other.gt_instances.has_mask.all()


def test_images_with_boxes_only_are_kept_and_counted_where_they_are_learnt_from(demo_root):
    options = {'filter_cfg': {'filter_empty_gt': True}}
    ignoring = dataset(demo_root, **options)
    learning = dataset(demo_root, learn_boxes_without_masks=True, **options)
    assert set(ignoring.data_list) <= set(learning.data_list)
    index = learning.index
    counts = np.bincount(index.class_ids[~index.is_group_of], minlength=300)
    assert learning.label_counts().tolist() == counts.tolist()
    assert ignoring.label_counts().sum() == (index.has_mask & ~index.is_group_of).sum()
    assert learning.get_cat_ids(0) == [
        label for label, group in zip(*(column[index.instance_rows(int(learning.data_list[0]))]
                                        .tolist() for column in (
                                            index.class_ids, index.is_group_of)), strict=True)
        if not group]


def test_a_class_is_drawn_from_images_that_have_masks_of_it_where_there_are_any(demo_root):
    learning = dataset(demo_root, learn_boxes_without_masks=True)
    drawn, index = learning.get_cat2imgs(), learning.index
    masked, boxed = ({} for _ in range(2))
    for item in range(len(learning)):
        rows = index.instance_rows(item)
        for label, has_mask, group in zip(*(column[rows].tolist() for column in (
                index.class_ids, index.has_mask, index.is_group_of)), strict=True):
            if not group:
                boxed.setdefault(label, set()).add(item)
                if has_mask:
                    masked.setdefault(label, set()).add(item)
    assert masked != boxed
    for label, items in drawn.items():
        assert set(items.tolist()) == masked.get(label, boxed.get(label, set()))


def test_boxed_labels_are_those_of_all_boxes_also_of_groups(demo_root):
    data = dataset(demo_root)
    for item in range(len(data)):
        expected = np.unique(data.index.class_ids[data.index.instance_rows(item)])
        assert data.get_data_info(item)['boxed_labels'].tolist() == expected.tolist()
        assert data[item]['data_samples'].boxed_labels.tolist() == expected.tolist()


def test_training_classes_count_descendants_and_add_up_over_datasets(demo_root):
    data = dataset(demo_root, learn_boxes_without_masks=True)
    ancestors, counts = training_classes(data)
    own = data.label_counts()
    space = data.label_space
    for label in (int(np.argmax(own)), int(np.flatnonzero(space.parents)[0])):
        below = [label, *space.descendants(label)]
        assert counts[label] == own[below].sum()
    assert np.array_equal(ancestors, space.ancestor_matrix)
    twice = training_classes(ConcatDataset([data, data]))[1]
    assert twice.tolist() == (2 * counts).tolist()


def test_chosen_classes_keep_their_ancestors_in_their_own_order(demo_root):
    names = dataset(demo_root).label_space.names
    space = dataset(demo_root).label_space
    leaf = int(np.flatnonzero(space.ancestor_matrix.any(axis=1))[0])
    parent = space.ancestors(leaf)[0]
    some = dataset(demo_root, metainfo={'classes': (names[leaf], names[parent])})
    assert some.ancestor_matrix.tolist() == [[False, True], [False, False]]


def evidence_of(data) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Of each item, (C,) bool: what is known, what is lost."""
    ancestors = torch.from_numpy(data.ancestor_matrix)
    found = []
    for idx in range(len(data)):
        info = data.get_data_info(idx)
        labels, present = info['verified_labels'].T
        said = torch.zeros(3, 1, len(ancestors), dtype=torch.bool)
        for flags, there in zip(said, (info['boxed_labels'], labels[present == 1],
                                       labels[present == 0]), strict=True):
            flags[0, there] = True
        classes = ImageClasses.collect(*said, Hierarchy(ancestors))
        found.append((classes.known[0], classes.lost[0]))
    return found


def test_chosen_classes_know_what_all_classes_know_of_them(demo_root):
    """What is known of a class left out is heard first: a subset knows its part of everything."""
    names = dataset(demo_root).label_space.names
    everything = evidence_of(dataset(demo_root, filter_cfg=None))
    assert any(lost.any() for _, lost in everything)
    rng = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.9):
        chosen = rng.permutation(np.flatnonzero(rng.random(len(names)) < share))
        some = dataset(demo_root, filter_cfg=None,
                       metainfo={'classes': tuple(names[label] for label in chosen)})
        for whole, part in zip(everything, evidence_of(some), strict=True):
            for all_classes, of_chosen in zip(whole, part, strict=True):
                assert of_chosen.tolist() == all_classes[chosen].tolist()


def test_an_object_of_a_class_left_out_is_an_ignored_one_of_its_nearest_ancestor(demo_root):
    space = dataset(demo_root).label_space
    learnable = dataset(demo_root)._learnable[1]
    depths = space.ancestor_matrix.sum(axis=1)
    leaf = next(label for label in learnable.tolist() if depths[label] >= 2)
    above = sorted(space.ancestors(leaf), key=lambda label: -depths[label])
    lone = next(label for label in range(len(space.names)) if label not in (leaf, *above)
                and not space.ancestor_matrix[leaf, label]
                and not space.ancestor_matrix[:, label].any())
    for kept, expected in (([*above], 0), ([above[-1], above[0]], 1), ([above[-1]], 0),
                           ([lone], None)):  # of two parents: test_kept_classes.py
        data = dataset(demo_root, filter_cfg=None,
                       metainfo={'classes': tuple(space.names[label] for label in kept)})
        seen = 0
        for idx in range(len(data)):
            row = int(data.data_list[idx])
            objects = [one for one in data.index.instances(row) if one[0] == leaf and one[2]]
            boxes = [[x, y, x + w, y + h] for *_, (x, y, w, h), _ in objects]
            found = [one for one in data.get_data_info(idx)['instances'] if one['bbox'] in boxes]
            assert [(one['bbox_label'], one['ignore_flag']) for one in found] == \
                ([] if expected is None else [(expected, 1)] * len(boxes))
            seen += len(boxes)
        assert seen


def runner_of(model, data) -> SimpleNamespace:
    return SimpleNamespace(model=model, train_dataloader=SimpleNamespace(dataset=data))


def test_hook_hands_the_classes_to_every_loss_that_asks(demo_root):
    class Loss(torch.nn.Module):
        def set_training_classes(self, ancestors, counts):
            self.seen = ancestors, counts

    model = torch.nn.ModuleList([Loss(), torch.nn.Linear(1, 1), Loss()])
    data = dataset(demo_root)
    TrainingClassesHook().before_train(runner_of(model, data))
    ancestors, counts = training_classes(data)
    for part in (model[0], model[2]):
        assert part.seen[0].tolist() == ancestors.tolist()
        assert part.seen[1].tolist() == counts.tolist()


def test_hook_without_a_loss_or_without_a_hierarchy_says_so(demo_root):
    with pytest.raises(UserError, match='no part of the model asks'):
        TrainingClassesHook().before_train(runner_of(torch.nn.Linear(1, 1), dataset(demo_root)))
    with pytest.raises(UserError, match='no OpenImagesInstanceDataset'):
        training_classes(SimpleNamespace())
