"""Parts of several commands' lines: options that are fields of a dataclass, and actions."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

from ..compare.options import Options
from .examples import shown_in


def add_options(parser: argparse.ArgumentParser, kind: type[Options], one_of: Sequence[str] = ()) -> None:
    """A flag for every field of a dataclass that is an option. one_of: fields of which only one may be given."""
    exclusive = parser.add_mutually_exclusive_group() if one_of else parser
    for one in _options(kind):
        words = dict(one.metadata["words"])
        if one.default is False:
            words["action"] = "store_true"
        if _is_required(one):
            words["required"] = True
        # The namespace holds the options of the command line, and nothing else: the dataclass has the defaults.
        words |= {"dest": one.name, "default": argparse.SUPPRESS, "help": one.metadata["help"]}
        (exclusive if one.name in one_of else parser).add_argument(*_flags(one), **words)


def given_options(args: argparse.Namespace, kind: type[Options]) -> dict[str, Any]:
    """The fields that flags were given for, by name. Raises Problem for a value that none of them takes."""
    values = {one: getattr(args, one.name) for one in _options(kind) if hasattr(args, one.name)}
    return {one.name: one.metadata["read"](value) if one.metadata["read"] else value for one, value in values.items()}


def recording_flags(args: argparse.Namespace, kind: type[Options]) -> list[str]:
    """The flags that were given and mean nothing for traces that are recorded already."""
    return [_flags(one)[-1] for one in _options(kind) if hasattr(args, one.name) and not one.metadata["judging"]]


def _options(kind: type[Options]) -> list[Field[Any]]:
    """The fields that are options, with those that have no default in front."""
    listed = [one for one in fields(kind) if "help" in one.metadata]
    return sorted(listed, key=lambda one: not _is_required(one))


def _is_required(one: Field[Any]) -> bool:
    return one.default is MISSING and one.default_factory is MISSING


def _flags(one: Field[Any]) -> tuple[str, ...]:
    return one.metadata["flags"] or (f"--{one.name.replace('_', '-')}",)


def actions_of(parser: argparse.ArgumentParser, command: str) -> Callable[..., argparse.ArgumentParser]:
    """A function that adds an action to the parser of `polymae COMMAND`: its name, its work and a summary."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, work: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        texts = shown_in(f"polymae {command} {name}")
        added = actions.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".", **texts)
        added.set_defaults(work=work, parser=added)
        return added

    return action
