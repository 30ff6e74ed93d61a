"""The difficulties of the hard world, each a number that can be turned off.

``tail`` and ``sizes`` are ratios, off at 1; ``recall`` is off at 1; ``negatives`` counts help, not
hindrance; all others are off at 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import Field, dataclass, field, fields

from projects.openimages.common.errors import UserError


def _knob(default: float, low: float, high: float, text: str) -> float:
    return field(default=default, metadata={'low': low, 'high': high, 'text': text})


@dataclass(frozen=True)
class Knobs:
    """How hard the world is; each field's range and meaning are in its metadata.

    Raises:
        UserError: a value out of its range.
    """

    tail: float = _knob(300, 1, 1000, 'the commonest class of train over the rarest; the other '
                                      'splits have the square root')
    confusable: float = _knob(1, 0, 1, 'how far a rare class has the colours of the frequent one '
                                       'that it differs from in one trait')
    cooccurrence: float = _knob(0.7, 0, 1, 'share of objects that stand in the scene of their '
                                           'class')
    sizes: float = _knob(30, 1, 60, 'largest over smallest area of single objects')
    occlusion: float = _knob(0.5, 0, 0.6, "share of the smaller of two objects' boxes that they "
                                          'may share')
    blur: float = _knob(0.12, 0, 0.3, 'share of single objects that are out of focus')
    dark: float = _knob(0.08, 0, 0.3, 'share of single objects that lie in shadow')
    depicted: float = _knob(0.05, 0, 0.3, 'share of single objects that are pictures on paper')
    clutter: float = _knob(2, 0, 6, 'mean number of pebbles, which are of no class')
    group: float = _knob(0.04, 0, 0.3, 'share of objects that are heaps of four to nine; those of '
                                       'more than five become group-of boxes')
    recall: float = _knob(0.43, 0.05, 1, 'share of classes visible in an image that people '
                                         'verified there')
    uneven: float = _knob(1, 0, 3, 'how much rather large objects and frequent classes are found')
    negatives: float = _knob(4, 0, 12, 'mean number of classes verified absent in an image')
    hardneg: float = _knob(0.7, 0, 1, 'share of those that look like something in the image')
    parents: float = _knob(0.9, 0, 1, 'how often a class whose objects are all too small, blurred '
                                      'or hidden to tell is called by its parent')
    lost: float = _knob(0.08, 0, 0.5, 'share of classes verified present that are never boxed')
    boxonly: float = _knob(1, 0, 1, 'how strictly small, dark and depicted objects, and those of '
                                    'a class that is full, go without a mask')

    def __post_init__(self) -> None:
        for knob in fields(self):
            low, high, value = knob.metadata['low'], knob.metadata['high'], getattr(self, knob.name)
            if not low <= value <= high:  # also refuses nan
                raise UserError(f'knob {knob.name}={value:g}, expected {low:g} to {high:g}')

    @classmethod
    def parse(cls, settings: Iterable[str]) -> Knobs:
        """Read ``KNOB=VALUE`` texts; knobs that none of them names keep their defaults.

        Raises:
            UserError: an unknown or repeated knob, or a value that is no number in its range.
        """
        known = {knob.name: knob for knob in fields(cls)}
        values: dict[str, float] = {}
        for setting in settings:
            name, equals, text = setting.partition('=')
            if not equals or name not in known:
                raise UserError(f'--set {setting}: expected KNOB=VALUE with a knob of '
                                f'{", ".join(known)}')
            if name in values:
                raise UserError(f'--set {setting}: {name} is set twice')
            values[name] = _number(setting, text, known[name])
        return cls(**values)


def _number(setting: str, text: str, knob: Field) -> float:
    try:
        return float(text)
    except ValueError:
        low, high = knob.metadata['low'], knob.metadata['high']
        raise UserError(f'--set {setting}: {text!r} is not a number, expected {low:g} to '
                        f'{high:g}') from None
