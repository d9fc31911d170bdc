"""Other people's models: calling them on the same numbers in float32 and in float64. NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.spec import Tap
from ...files.errors import Problem
from .arrays import Tensors, as_array, first_line, is_returnable
from .places import place

Arrays = dict[str, NDArray[Any]]
Function = Callable[[Arrays], Any]  # a model: inputs by name to tensors, by tap name best (arrays.py has the others)
Listed = list[tuple[str, Tap]]  # level and tap, in the order of computation


def call(who: str, function: Function, inputs: Arrays) -> Tensors:
    """Call a model on copies of the inputs. Raises Problem from its exception, or where it returns no tensors."""
    try:
        result = function({name: array.copy() for name, array in inputs.items()})
        if is_returnable(result):
            return Tensors(result)
    except Problem as problem:  # of ours, which names its remedy
        raise Problem(f"{who}: {problem}") from problem
    except Exception as problem:
        raise Problem(f"{who} raised {first_line(problem)}{place(problem)}") from problem
    hint = " (is there no return?)" if result is None else ""
    raise Problem(f"{who} returned a {type(result).__name__}{hint}; it must return arrays by tap name, in a dict.")


def rounded(inputs: Mapping[str, Any]) -> Arrays:
    """The inputs with floating point in float32, which every run then starts from. Raises Problem for other values.

    A framework's tensors, of a state dict say, are taken as well.
    """
    arrays = {}
    for name, value in inputs.items():
        array, _ = as_array(f"Input {name}", value)
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                narrow = array.astype(np.float32)
            if (np.isinf(narrow) & ~np.isinf(array)).any():
                raise Problem(f"Input {name} holds numbers that float32 cannot; scale it.")
            array = narrow
        arrays[name] = array
    return arrays


def widened(inputs: Mapping[str, Any]) -> Arrays:
    """The inputs for the float64 reference: the same numbers as `rounded` gives, floating point in float64."""
    return {
        name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in rounded(inputs).items()
    }


def displaced(inputs: Mapping[str, Any], seed: int) -> Arrays:
    """The inputs for a twin: every float32 number moved to a neighbour or left, at random.

    All roundings of the run fall out anew. Integers (flags, labels, pixels) are exact and stay.
    """
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, array in rounded(inputs).items():
        if array.dtype == np.float32:
            towards = rng.choice(np.array([-np.inf, np.nan, np.inf], np.float32), array.shape)
            moves = np.isfinite(array) & (array != np.rint(array)) & ~np.isnan(towards)
            array = np.where(moves, np.nextafter(array, towards), array)
        arrays[name] = array
    return arrays


def is_exact(tap: Tap, oracle: NDArray[Any]) -> bool:
    """Whether a tensor must agree bit for bit: on request, or as integers and booleans."""
    return tap.exact or oracle.dtype.kind in "iub"
