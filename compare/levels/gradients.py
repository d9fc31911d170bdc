"""The level gradients: of the loss, for every intermediate tensor and every parameter, in the order of the backward pass."""

from __future__ import annotations

from collections.abc import Iterator

from ...backends.config import Config
from ...backends.gradient_taps import backward_taps
from ...backends.spec import Tap
from . import forward
from .subject import Named, Subject, emptied


def taps(config: Config) -> Iterator[Tap]:
    """`dy/<tap>` and `grad/<parameter>`."""
    return iter(backward_taps(config))


def record(subject: Subject) -> Iterator[Named]:
    """What `taps` lists, behind the pass that they belong to."""
    yield from forward.record(subject)
    yield from emptied("dy/", subject.one_pass.dy)
    yield from emptied("grad/", subject.one_pass.gradients)
