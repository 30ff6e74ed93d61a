"""Options that several commands have, with one meaning, one default and one wording."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence

from projects.openimages.common.errors import UserError

_FORMER_VALUES = ('both', 'yes', 'no')


def add_json(parser: argparse._ActionsContainer) -> None:
    """Add ``--json FILE``; ``common.json_values.write_json`` writes what it asks for."""
    parser.add_argument('--json', metavar='FILE',
                        help='also write the figures to this file (docs/commands.md)')


def add_workers(parser: argparse._ActionsContainer) -> None:
    """Add ``--workers N``; ``common.parallel.worker_count`` reads it."""
    parser.add_argument('--workers', type=int, metavar='N',
                        help='processes (default: one a CPU core); the result does not depend on '
                             'it')


def add_expand_hierarchy(parser: argparse._ActionsContainer, default: bool | None = True,
                         note: str = 'default: on') -> None:
    """Add ``--expand-hierarchy`` and ``--no-expand-hierarchy``.

    Args:
        parser: a parser or a group of one.
        default: where neither is given.
        note: the same for people.
    """
    parser.add_argument('--expand-hierarchy', action=argparse.BooleanOptionalAction,
                        default=default, help='give each detection also for its ancestor classes, '
                        f'or not ({note})')


def refuse_former_value(arguments: Sequence[str], instead: str) -> None:
    """Raise a UserError for ``--expand-hierarchy`` with a value, as two commands once took it.

    Args:
        arguments: the command line; the value would be taken for an input file.
        instead: what to write now.
    """
    for flag, value in itertools.pairwise(arguments):
        if flag == '--expand-hierarchy' and (value in _FORMER_VALUES or value.endswith('.arrow')):
            raise UserError(f'--expand-hierarchy {value}: it takes no value; {instead}')
