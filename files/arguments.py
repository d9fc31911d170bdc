"""Arguments of commands as text: names with commas between them, and numbers within bounds."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from difflib import get_close_matches

from .errors import Problem


def read_names(text: str, known: Sequence[str], kind: str) -> tuple[str, ...]:
    """The names in a comma-separated text ("all": every one). Raises Problem, with the nearest name, for an unknown one."""
    if text == "all":
        return tuple(known)
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise Problem(f"Unknown {kind} {name!r}; there are {', '.join(known)}.{hint}", code="bad-argument")
    if not names:
        raise Problem(f"No {kind} given; choose from {', '.join(known)}, or all.", code="bad-argument")
    return names


def whole(least: int, most: int = 2**63 - 1) -> Callable[[str], int]:
    """The type of an argument that is a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number of at least {least} (and at most {most})."
            )
        return number

    return parse


def above_zero(text: str) -> float:
    """The type of an argument that is a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0.")
    return number


def share(text: str) -> float:
    """The type of an argument that is a number from 0 to below 1."""
    try:
        number = float(text)
    except ValueError:
        number = 1.0
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to below 1.")
    return number
