"""The level forward: every intermediate tensor of one pass of the model."""

from __future__ import annotations

from collections.abc import Iterator

from ...backends import spec
from ...backends.config import Config
from ...backends.spec import Tap
from .subject import Named, Subject, emptied


def taps(config: Config) -> Iterator[Tap]:
    """Every tap of the model but targets and losses."""
    return (tap for tap in spec.taps(config) if not is_loss(tap))


def record(subject: Subject) -> Iterator[Named]:
    """Every tap of the pass, targets and losses among them."""
    return emptied("", subject.one_pass.taps)


def is_loss(tap: Tap) -> bool:
    """Whether a tap is judged at the level loss."""
    return tap.name.split(".")[-1] in ("loss", "target")
