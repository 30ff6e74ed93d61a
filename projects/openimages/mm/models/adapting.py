"""Turning a detector of MMDetection into one for Open Images, in its config.

In: the ``_base_`` of a config that names one of MMDetection's, whole with data and schedule for
COCO, and ``configs/_base_/openimages.py``. Out: the model with the classes, assigners and mask
heads for Open Images, and this project's data, metric and schedule around it::

    _base_ = ['mmdet::htc/htc-without-semantic_r50_fpn_1x_coco.py', './_base_/openimages.py']
    from projects.openimages.mm.models.adapting import for_open_images
    for_open_images(_base_)

A config that inherits from such a one says what differs, as with any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from importlib.util import find_spec
from typing import Any

from mmengine.config import ConfigDict

from projects.openimages.common.errors import ConfigError, UserError

SCORE_THR = 0.01
"""Detections from this score on are kept at test: low scores count in average precision."""

# Heads that hand ignored instances on, or give run lengths, in the place of stock ones.
_HEADS = {'FCNMaskHead': 'BoxMaskHead', 'HTCMaskHead': 'BoxHTCMaskHead',
          'Mask2FormerHead': 'IgnoreAwareMask2FormerHead'}
_HEADS_OF = {'HybridTaskCascadeRoIHead': {'Shared2FCBBoxHead': 'HTCBBoxHead'}}
# Heads with these hand them no ignored instances, or ask of which class they are.
_LEFT_ALONE = ('HungarianAssigner', 'TopkHungarianAssigner', 'RegionAssigner')
# Stuff, of which Open Images has none: its class counts are another data set's.
_STUFF = 'semantic_head'


def for_open_images(base: ConfigDict, keep: Sequence[str] = ()) -> None:
    """Keep the model of a config of MMDetection and put Open Images around it.

    Everything else of that config goes, so that no variable is left that nothing reads.

    Args:
        base: ``_base_`` of the config that is being read; changed in place.
        keep: what else to keep of MMDetection's config, instead of what is ours: ``optim_wrapper``
            where the model has an optimiser of its own.

    Raises:
        ValueError: ``configs/_base_/openimages.py`` is not among the bases, or a key is not there.
    """
    if 'openimages' not in base:
        raise ConfigError('for_open_images needs configs/_base_/openimages.py among the bases')
    ours = base.pop('openimages')
    missing = [name for name in ('model', *keep) if name not in base]
    if missing:
        raise ConfigError(f'the config of MMDetection has no {missing[0]!r}, it has '
                          f'{", ".join(sorted(base))}')
    kept = {name: base[name] for name in ('model', *keep)}
    base.clear()
    for name, value in {**ours, **kept}.items():  # ConfigDict.update would merge them
        base[name] = value
    for node in mappings(base):
        node.pop('_scope_', None)  # MMEngine's note of where a value is from: all of it is mmdet's
    adapt_model(base['model'], base['num_classes'])


def adapt_model(model: MutableMapping, num_classes: int) -> None:
    """Class count, mask heads, assigners, score threshold and padding, wherever they stand.

    Args:
        model: config of a detector of MMDetection; changed in place.
        num_classes: without background.
    """
    set_class_count(model, num_classes)
    for node in list(mappings(model)):
        _replace_types(node, _HEADS_OF.get(node.get('type'), {}))
        if node.get('type') != 'IgnoreAwareAdapter':
            for key in [key for key in node if key.endswith('assigner')]:
                node[key] = respecting_ignored(node[key])
        if 'instance_on' in node:  # MaskFormer and its kin may give a panoptic segmentation alone
            node.update(instance_on=True, panoptic_on=False)
        if isinstance(node.get('score_thr'), float):
            node['score_thr'] = min(node['score_thr'], SCORE_THR)
    _replace_types(model, _HEADS)
    preprocessor = model.setdefault('data_preprocessor', {'type': 'DetDataPreprocessor'})
    preprocessor.update(
        pad_mask=True, pad_size_divisor=max(32, preprocessor.get('pad_size_divisor', 1)),
        batch_augments=None)  # they make a batch as large as MMDetection's pipeline, not ours


def _replace_types(node: MutableMapping, new_of_old: Mapping[str, str]) -> None:
    for part in mappings(node):
        if part.get('type') in new_of_old:
            part['type'] = new_of_old[part['type']]


def set_class_count(model: MutableMapping, num_classes: int) -> None:
    """Give every head and loss of a model's config another number of classes.

    Beside ``num_classes`` that is ``num_things_classes``, with no stuff, and ``class_weight``, a
    number a class and one for "no object".
    """
    for node in mappings(model, leave_out=_STUFF):
        for name, value in (('num_classes', num_classes), ('num_things_classes', num_classes),
                            ('num_stuff_classes', 0)):
            if name in node:
                node[name] = value
        weights = node.get('class_weight')
        if isinstance(weights, Sequence) and len(weights) > 1:
            node['class_weight'] = [1.0] * num_classes + [weights[-1]]


def respecting_ignored(assigner: Mapping[str, Any]) -> dict[str, Any]:
    """Config of an assigner that leaves ignored instances out of the background, where it can."""
    kind = assigner['type']
    if kind == 'MaxIoUAssigner':
        options = {key: value for key, value in assigner.items() if key != 'ignore_iof_thr'}
        return {**options, 'type': 'IgnoreAwareAssigner'}
    if kind in _LEFT_ALONE or kind.startswith('IgnoreAware'):
        return dict(assigner)
    return {'type': 'IgnoreAwareAdapter', 'assigner': dict(assigner)}


def mappings(node: Any, leave_out: str | None = None) -> Iterator[MutableMapping]:
    """A nested config's mappings, the outermost first, without what stands under one key."""
    if isinstance(node, MutableMapping):
        yield node
    children = ([node[key] for key in list(node) if key != leave_out]
                if isinstance(node, Mapping) else node)
    for child in children:
        if isinstance(child, (Mapping, list, tuple)):
            yield from mappings(child, leave_out)


def need_package(name: str, what: str) -> None:
    """Say in one line, while a config is read, that a package is missing.

    Args:
        name: of the package, as it is imported.
        what: of the model needs it.

    Raises:
        UserError: it is not installed.
    """
    if find_spec(name) is None:
        raise UserError(f'{what} needs the package {name}, which is not installed '
                        '(docs/models.md)')
