"""The arms of ``benchmarks/recipe.py``: what each changes in the stock config, one ingredient each.

An arm is a list of ingredients, functions that change a config in place. Placebos break the meaning
of one kind of evidence and leave everything else: a recipe that gains as much with a placebo gains
by something else than that evidence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from projects.openimages.masks import compress_counts, decompress_counts, rle_from_crop
from projects.openimages.mm.datasets.openimages import OpenImagesInstanceDataset

Ingredient = Callable[[Config], None]
STOCK_ASSIGNER = 'MaxIoUAssigner'


# ------------------------------------------------------------------------------- ingredients

def stock(cfg: Config) -> None:
    """Plain sampling, softmax, a box and a mask a class, all boxes without mask background."""
    cfg.train_dataloader.sampler = ConfigDict(type='InfiniteSampler')
    cfg.model.roi_head.bbox_head.reg_class_agnostic = False
    for stage in (cfg.model.train_cfg.rpn, cfg.model.train_cfg.rcnn):
        stage.assigner.type = STOCK_ASSIGNER
        stage.assigner.pop('ignore_thr', None)
    set_expansion(cfg, False)


def set_expansion(cfg: Config, expand: bool) -> None:
    """Whether a detection is handed in for its ancestor classes too."""
    cfg.test_evaluator.expand_hierarchy = cfg.val_evaluator.expand_hierarchy = expand


def expansion(cfg: Config) -> None:
    """Detections stand for their ancestors."""
    set_expansion(cfg, True)


def ignored(cfg: Config) -> None:
    """Boxes without a mask and groups are neither object nor background."""
    for stage in (cfg.model.train_cfg.rpn, cfg.model.train_cfg.rcnn):
        stage.assigner.update(type='IgnoreAwareAssigner', ignore_thr=0.5)


def class_aware(cfg: Config) -> None:
    """All classes are drawn alike; with this, the main config is complete."""
    cfg.train_dataloader.sampler = ConfigDict(type='InfiniteClassAwareSampler')


def low_scores(cfg: Config) -> None:
    """More detections an image, from a lower score: the recipe's threshold and cap."""
    cfg.model.test_cfg.rcnn.update(score_thr=1e-3, max_per_img=400)


def softmax(cfg: Config) -> None:
    """The federated head with every rule off, from a lower score.

    That is the main config's own loss, but for regions that objects share.
    """
    cfg.custom_hooks = [ConfigDict(type='TrainingClassesHook')]
    head = cfg.model.roi_head
    head.type = 'FederatedRoIHead'
    head.bbox_head.type = 'FederatedBBoxHead'
    head.bbox_head.loss_cls = ConfigDict(
        type='FederatedSoftmaxLoss', num_classes=head.bbox_head.num_classes, hierarchy=False,
        verified=False, lost=False, group_of=False)
    head.bbox_head.objectness = 0.0
    low_scores(cfg)


def hierarchy(cfg: Config) -> None:
    """An object may be of an unknown descendant; descendants' scores are summed, not expanded."""
    cfg.model.roi_head.bbox_head.loss_cls.hierarchy = True
    set_expansion(cfg, False)


def sigmoid(cfg: Config) -> None:
    """A sigmoid a class in the softmax's place."""
    cfg.model.roi_head.bbox_head.loss_cls.type = 'FederatedLoss'


def boxes_without_masks(cfg: Config) -> None:
    """Single boxes without a mask are objects, without a mask loss."""
    cfg.train_dataloader.dataset.learn_boxes_without_masks = True


def verified(weight: float) -> Ingredient:
    """What is not verified in an image weighs less, on background by ``weight``."""
    def apply(cfg: Config) -> None:
        cfg.model.roi_head.bbox_head.loss_cls.update(verified=True, unknown_on_background=weight)
    return apply


def unknown_on_objects(weight: float) -> Ingredient:
    """What is not verified in an image weighs so much on an object of another class."""
    def apply(cfg: Config) -> None:
        cfg.model.roi_head.bbox_head.loss_cls.update(unknown_on_objects=weight)
    return apply


def one_object(cfg: Config) -> None:
    """A region is of the instance that it was matched to alone, whoever shares its place."""
    cfg.model.roi_head.bbox_head.loss_cls.shared = False


def loss_weight(weight: float) -> Ingredient:
    """Classification weighs so much beside boxes and masks."""
    def apply(cfg: Config) -> None:
        cfg.model.roi_head.bbox_head.loss_cls.update(loss_weight=weight)
    return apply


def lost_and_groups(cfg: Config) -> None:
    """Lost classes are left out, and those of a group where it covers the region."""
    cfg.model.roi_head.bbox_head.loss_cls.update(lost=True, group_of=True)
    cfg.model.train_cfg.rcnn.assigner.ignore_group_of = False


def agnostic(cfg: Config) -> None:
    """One box and one mask for all classes."""
    cfg.model.roi_head.bbox_head.reg_class_agnostic = True
    cfg.model.roi_head.mask_head.class_agnostic = True


def cosine(cfg: Config) -> None:
    """Logits are angles between features and classes: no class is louder than others."""
    cfg.model.roi_head.bbox_head.cls_predictor_cfg = ConfigDict(
        type='NormedLinear', temperature=20)


def exclusive(cfg: Config) -> None:
    """Sigmoids, and a leaf's score is its share among the classes that it excludes."""
    sigmoid(cfg)
    cfg.model.roi_head.bbox_head.loss_cls.exclusive = True


def objectness(cfg: Config) -> None:
    """The proposals' scores have a say."""
    cfg.model.roi_head.bbox_head.objectness = 0.5


def scales(cfg: Config) -> None:
    """Training images are 0.8 to 1.25 times as large."""
    for step in cfg.train_dataloader.dataset.pipeline:
        if step.type == 'Resize':
            step.update(type='RandomResize', ratio_range=(0.8, 1.25))


def soft_sampling(cfg: Config) -> None:
    """Classes are drawn by the root of their frequency, alike in the last third, with a cap."""
    cfg.train_dataloader.sampler = ConfigDict(type='SoftClassAwareSampler')


# ------------------------------------------------------------------------------- peers

def fed_loss(cfg: Config) -> None:
    """CenterNet2's federated loss over 50 classes a step."""
    _set_loss(cfg, type='FedLoss', num_sampled=50)
    cfg.custom_hooks = [ConfigDict(type='TrainingClassesHook')]


def seesaw(cfg: Config) -> None:
    """Seesaw loss, with the normed classifier of its source."""
    _set_loss(cfg, type='SeesawLoss')
    cosine(cfg)


def eqlv2(cfg: Config) -> None:
    """Equalization loss v2."""
    _set_loss(cfg, type='SigmoidEQLV2Loss')


def _set_loss(cfg: Config, **loss) -> None:
    head = cfg.model.roi_head.bbox_head
    head.loss_cls = ConfigDict(num_classes=head.num_classes, **loss)
    low_scores(cfg)


def repeat_factors(cfg: Config) -> None:
    """LVIS's repeat factor sampling: images of classes in fewer than 1 in 100 come again."""
    cfg.train_dataloader.sampler = ConfigDict(type='InfiniteSampler')
    cfg.train_dataloader.dataset = ConfigDict(
        type='ClassBalancedDataset', oversample_thr=1e-2, dataset=cfg.train_dataloader.dataset)


# ------------------------------------------------------------------------------- placebos

@DATASETS.register_module()
class PlaceboDataset(OpenImagesInstanceDataset):
    """The training set with one kind of evidence made meaningless.

    Args:
        placebo: ``'verified'`` gives each image another image's verified labels, ``'hierarchy'``
            permutes the classes in the hierarchy (in training alone:
            :class:`TrueHierarchyHook`), ``'has_mask'`` moves the missing masks to other
            instances (an instance whose mask was missing has its box as mask).
        options: of ``OpenImagesInstanceDataset``.
    """

    def __init__(self, *, placebo: str, **options) -> None:
        self._placebo = placebo
        super().__init__(**options)

    @property
    def true_ancestor_matrix(self) -> np.ndarray:
        """The dataset's, whatever the placebo."""
        return super().ancestor_matrix

    @property
    def ancestor_matrix(self) -> np.ndarray:
        """As the dataset's, of permuted classes where that is the placebo."""
        matrix = self.true_ancestor_matrix
        if self._placebo != 'hierarchy':
            return matrix
        order = np.random.default_rng(0).permutation(len(matrix))
        return matrix[np.ix_(order, order)]

    def _verified_labels(self, row: int) -> np.ndarray:
        if self._placebo == 'verified':
            row = self._other_row[row]
        return super()._verified_labels(row)

    @cached_property
    def _other_row(self) -> dict[int, int]:
        order = np.random.default_rng(0).permutation(np.unique(self.data_list))
        return dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))

    def _instances(self, row: int, height: int, width: int) -> list[dict]:
        instances = super()._instances(row, height, width)
        if self._placebo == 'has_mask':
            _move_missing_masks(instances, np.random.default_rng((0, row)), height, width)
        return instances


@HOOKS.register_module()
class TrueHierarchyHook(Hook):
    """Checkpoints bear the true hierarchy, whatever the model was trained with.

    A test with a permuted one would say little: ancestors' scores would be sums of strangers',
    however well the model had learnt.
    """

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Put it in the place of the model's own, which stays as it is."""
        true = torch.from_numpy(runner.train_dataloader.dataset.true_ancestor_matrix)
        weights = checkpoint['state_dict']
        for key in [key for key in weights if key.endswith('.ancestors')]:
            weights[key] = true.clone()


def _move_missing_masks(instances: list[dict], rng: np.random.Generator, height: int,
                        width: int) -> None:
    """Deal the missing masks of an image's single instances out anew, in place."""
    single = [item for item in instances if not item['group_of']]
    missing = [not decompress_counts(item['mask']['counts'].encode())[1:].any()
               for item in single]
    for item, was, now in zip(single, missing, rng.permutation(missing), strict=True):
        if was and not now:
            x1, y1, x2, y2 = (round(side) for side in item['bbox'])
            pixels = np.ones((max(y2 - y1, 1), max(x2 - x1, 1)), bool)
            rle = rle_from_crop(pixels, min(x1, width - 1), min(y1, height - 1), height, width)
            item['mask']['counts'] = rle['counts'].decode()
        elif now and not was:
            item['mask']['counts'] = compress_counts(np.array([height * width])).decode()


def placebo(kind: str) -> Ingredient:
    """Train on :class:`PlaceboDataset`."""
    def apply(cfg: Config) -> None:
        cfg.train_dataloader.dataset.update(type='PlaceboDataset', placebo=kind)
        if kind == 'hierarchy':
            cfg.custom_hooks.append(ConfigDict(type='TrueHierarchyHook'))
    return apply


# ------------------------------------------------------------------------------- arms

MAIN = (stock, expansion, ignored, class_aware)
STEPS = {'cosine': (softmax, cosine), 'hierarchy': (hierarchy,), 'verified': (verified(0.15),),
         'lost+groups': (lost_and_groups,), 'agnostic': (agnostic,), 'objectness': (objectness,)}
WHOLE = (*MAIN, *chain(*STEPS.values()))


def arms() -> dict[str, tuple[Ingredient, ...]]:
    """All arms by name, in the order of the table."""
    found = {'stock': MAIN[:1], '+expansion': MAIN[:2], '+ignored': MAIN[:3], 'main': MAIN}
    found['main +low-scores'] = (*MAIN, low_scores)
    for count, name in enumerate(STEPS, 1):
        found[f'+{name}'] = (*MAIN, *chain(*list(STEPS.values())[:count]))
    found['recipe'] = found.pop('+objectness')
    found['recipe -cosine'] = (*MAIN, softmax, *chain(*list(STEPS.values())[1:]))
    for name in list(STEPS)[1:]:
        found[f'recipe -{name}'] = (*MAIN, *chain(*(step for other, step in STEPS.items()
                                                    if other != name)))
    for name, change in (
            ('λ=0', verified(0.0)), ('λ=0.05', verified(0.05)), ('λ=1', verified(1.0)),
            ('fg=0.5', unknown_on_objects(0.5)), ('cls=2', loss_weight(2.0)),
            ('-shared', one_object), ('+box-only', boxes_without_masks), ('+soft', soft_sampling),
            ('+scales', scales), ('sigmoid', sigmoid), ('sigmoid +exclusive', exclusive)):
        found[f'recipe {name}'] = (*WHOLE, change)
    for name, loss in (('FedLoss-50', fed_loss), ('Seesaw', seesaw), ('EQLv2', eqlv2),
                       ('RFS', repeat_factors)):
        found[name] = (*MAIN, loss)
    for kind in ('verified', 'hierarchy'):
        found[f'placebo {kind}'] = (*WHOLE, placebo(kind))
    found['placebo has_mask'] = (*WHOLE, boxes_without_masks, placebo('has_mask'))
    return found
