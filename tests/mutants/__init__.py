"""Mutation testing: porting faults that can be planted in any backend, to prove that a comparison would notice them.

A fault is data: a change of the weights, or an edit of the source as a porter might have mistyped it. `located_at` is
the tensor where the fault first shows; a verdict must name it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from polymae.backends.config import Config
from polymae.files.errors import Problem

from . import data, environment, finetuning, gradients, loss, model, tokens, training, tuning, weights
from .planting import Fault, planted

__all__ = ["FAULTS", "Fault", "plant"]

_MODULES = (weights, data, tokens, model, environment, loss, gradients, training, tuning, finetuning)
FAULTS = {fault.name: fault for module in _MODULES for fault in module.FAULTS}


@contextmanager
def plant(name: str | None, framework: str, config: Config) -> Iterator[Fault]:
    """Put a fault into the framework's backend (None: leave it as it is) for the time of the context.

    Raises Problem for an unknown fault, one that this model or framework has no place for, or one whose edit no longer
    fits the source.
    """
    if name is None:
        yield Fault("none", "", "", "")
        return
    if name not in FAULTS:
        near = get_close_matches(name, FAULTS, n=3)
        hint = f"Nearest names: {', '.join(near)}" if near else f"There are {', '.join(list(FAULTS)[:3])} and others"
        raise Problem(f"Unknown fault {name!r}. {hint}; `make power` lists all {len(FAULTS)}.")
    fault = FAULTS[name]
    if not fault.fits(config):
        settings = "".join(f" with {key}={value}" for key, value in fault.needs.items())
        raise Problem(f"The fault {name!r} shows at {fault.located_at}{settings}, which this model does not have.")
    if framework not in fault.frameworks:
        raise Problem(f"The fault {name!r} can be planted in {', '.join(fault.frameworks)}, not in {framework}.")
    with planted(fault, framework):
        yield fault
