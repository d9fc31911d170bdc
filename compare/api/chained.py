"""Float32 runs of a function whose products are summed in chains, as the limits need them (docs/decisions/tolerance.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...backends.intercepted import chained_array, chains
from ...files.errors import Problem
from .arrays import Tensors
from .callables import Arrays, Function, call


class Chained(dict[str, Any]):
    """Tensors by name of a run that was summed in chains; `save_trace` keeps that in mind."""


def call_in_chains(who: str, function: Function, inputs: Arrays, seed: int) -> tuple[Tensors, bool]:
    """Call a model with its products summed in chains, and say whether there were any that could be.

    Raises Problem from its exception.
    """
    for wrap in (chained_array, _as_it_is):  # a function may take plain arrays alone
        try:
            with chains(seed) as products:
                run = call(who, function, {name: wrap(array) for name, array in inputs.items()})
                return run, products() > 0
        except Problem:
            if wrap is _as_it_is:
                raise
    raise AssertionError  # the loop returns or raises


def _as_it_is(array: Any) -> Any:
    return array


def chained(function: Function, seed: int = 0) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """A model in NumPy or PyTorch, to be run as a twin for `save_trace`: its float32 products are summed in one chain each.

    That is the order that costs most of those that a right port may take. seed: of the order of their terms. What it
    returns is known to `save_trace` and `parity_of_traces`; where nothing could be summed so, their limits are twice as
    wide.
    """

    def run(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        tensors, any_product = call_in_chains("the twin", function, dict(inputs), seed)
        arrays = {name: tensors[name] for name in tensors.names}
        return Chained(arrays) if any_product else arrays

    return run
