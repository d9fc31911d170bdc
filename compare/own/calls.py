"""Other people's models: what a callable of theirs returns, and the float32 runs that set the limits. NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...backends.errors import Problem
from ...backends.spec import Tap
from .arrays import Tensors, as_array, first_line, is_returnable
from .infinities import same_infinities
from .places import place

Arrays = dict[str, NDArray[Any]]
Function = Callable[[Arrays], Any]  # a model: inputs by name to tensors, by tap name best (arrays.py has the others)
Listed = list[tuple[str, Tap]]  # level and tap, in the order of computation
RUNS = 3  # float32 runs that set a limit, where no more twins are given
ENOUGH = 16  # elements of which nearly all are the float64 ones, rounded, by no chance
ROUNDED = 0.9  # the share of them: the float64 ones may differ in their own last bits


class Source(Protocol):
    """Where the tensors of a run come from: a trace, or memory. Reading one may raise Problem."""

    names: list[str]

    def __contains__(self, name: str) -> bool: ...

    def __getitem__(self, name: str) -> NDArray[Any]: ...


def call(who: str, function: Function, inputs: Arrays) -> Tensors:
    """Call a model on copies of the inputs. Raises Problem from what it raised, or where it returns no tensors."""
    try:
        given = function({name: array.copy() for name, array in inputs.items()})
        if is_returnable(given):
            return Tensors(given)
    except Problem as problem:  # of ours, which says by itself what to do
        raise Problem(f"{who}: {problem}") from problem
    except Exception as problem:
        raise Problem(f"{who} raised {first_line(problem)}{place(problem)}") from problem
    hint = " (is there no return?)" if given is None else ""
    raise Problem(f"{who} returned a {type(given).__name__}{hint}; it must return arrays by tap name, in a dict.")


def rounded(inputs: Mapping[str, Any]) -> Arrays:
    """The inputs with floating point in float32, which every run then starts from. Raises Problem for what is no array.

    A framework's tensors, of a state dict say, are taken as well.
    """
    found = {}
    for name, value in inputs.items():
        array, _ = as_array(f"Input {name}", value)
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                narrow = array.astype(np.float32)
            if (np.isinf(narrow) & ~np.isinf(array)).any():
                raise Problem(f"Input {name} holds numbers that float32 cannot; scale it.")
            array = narrow
        found[name] = array
    return found


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
    found = {}
    for name, array in rounded(inputs).items():
        if array.dtype == np.float32:
            towards = rng.choice(np.array([-np.inf, np.nan, np.inf], np.float32), array.shape)
            moves = np.isfinite(array) & (array != np.rint(array)) & ~np.isnan(towards)
            array = np.where(moves, np.nextafter(array, towards), array)
        found[name] = array
    return found


def is_exact(tap: Tap, oracle: NDArray[Any]) -> bool:
    """Whether a tensor must agree bit for bit: asked for, or integers and booleans."""
    return tap.exact or oracle.dtype.kind in "iub"


def unfit(run: Source, oracle: Source, listed: Listed) -> str:
    """Why a run is no float32 run of what the oracle computes, so that it cannot set a limit; or nothing."""
    for _, tap in listed:
        if tap.name not in oracle:
            continue
        if tap.name not in run:
            return f"it has no {tap.name}"
        expected, actual = oracle[tap.name], run[tap.name]
        if actual.shape != expected.shape:
            return f"{tap.name} has shape {actual.shape}, the oracle's is {expected.shape}"
        if is_exact(tap, expected):
            if (actual != expected).any():
                return f"it decides otherwise than the oracle at {tap.name}"
        elif expected.ndim and actual.dtype.itemsize > 4:
            return f"{tap.name} comes in {actual.dtype}"
        elif narrow := getattr(run, "narrow", {}).get(tap.name):
            return f"{tap.name} comes in {narrow}"
        elif not np.isnan(expected).any() and not same_infinities(actual, expected):
            return f"{tap.name} has NaN or infinite elements where the reference has none"
    return ""


def only_rounded(run: Source, oracle: Source, listed: Listed) -> bool:
    """Whether every tensor of a float32 run is the float64 one, rounded: it then computed in float64 all along."""
    shares = []
    for _, tap in listed:
        if tap.name in oracle and oracle[tap.name].dtype.kind == "f" and oracle[tap.name].size >= ENOUGH:
            with np.errstate(over="ignore"):
                expected = oracle[tap.name].astype(np.float32)
            if (numbers := expected != 0).any():
                shares.append(float(np.mean(run[tap.name][numbers] == expected[numbers])))
    return bool(shares) and min(shares) > ROUNDED


def overflowing(run: Source, oracle: Source, listed: Listed) -> frozenset[str]:
    """Tensors that are infinite somewhere in a float32 run where they are not in float64."""
    names = [tap.name for _, tap in listed if tap.name in oracle and tap.name in run]
    infinite = [(name, np.isinf(run[name]), np.isinf(oracle[name])) for name in names if run[name].dtype.kind == "f"]
    return frozenset(name for name, ours, theirs in infinite if ours.shape == theirs.shape and (ours & ~theirs).any())


@dataclass(frozen=True)
class Floor:
    """The float32 runs that set the limits (none: the a-priori bound), and the sentences that say why these."""

    runs: Sequence[Source] = ()
    why: list[str] = field(default_factory=list)
    overflowing: frozenset[str] = frozenset()  # tensors that the reference itself does not compute in float32


def measured_floor(
    reference: Function, twins: Sequence[Function] | None, inputs: Arrays, oracle: Source, listed: Listed
) -> Floor:
    """Run the twins (None: the reference itself) in float32, on the inputs and on inputs displaced by roundoff.

    Raises Problem where a twin that was given fails, or cannot set a limit.
    """
    if twins is not None and not twins:
        return Floor(why=["limits: a priori, by depth, as no twin was asked for"])
    given = [(f"twin {i}", twin) for i, twin in enumerate(twins or (), 1)] or [("the reference", reference)]
    runs: list[Source] = []
    for who, function in given:
        lost: frozenset[str] = frozenset()
        try:
            run = call(who, function, inputs)
            lost = overflowing(run, oracle, listed)
            reason = unfit(run, oracle, listed)
            if not reason and twins is None and only_rounded(run, oracle, listed):
                reason = "its float32 numbers are the float64 ones, rounded at the end"
        except Problem as problem:
            if twins is not None:
                raise
            reason = str(problem)
        if reason and twins is not None:
            raise Problem(f"{who} cannot set a limit: {reason}; give another float32 implementation, or none.")
        if reason:
            return Floor(
                why=[
                    f"limits: a priori, by depth, as the reference does not run in float32 ({reason}); measured limits are "
                    "sharper: let it compute in the type of its inputs, with the weights among them, or give twins"
                ],
                overflowing=lost,
            )
        runs.append(run)
    measured, skipped = len(runs), []
    for who, run_or_reason in _displaced_runs(given, inputs, oracle, listed, RUNS - measured):
        if isinstance(run_or_reason, str):
            skipped.append(f"{who} on displaced inputs was left out: {run_or_reason}")
        else:
            runs.append(run_or_reason)
    what = "the reference" if twins is None else f"{measured} twin(s)"
    more = f", {len(runs) - measured} of them on inputs displaced by roundoff" if len(runs) > measured else ""
    return Floor(runs, [f"limits: from {len(runs)} float32 run(s) of {what}{more}", *skipped])


def _displaced_runs(
    given: Sequence[tuple[str, Function]], inputs: Arrays, oracle: Source, listed: Listed, count: int
) -> Iterator[tuple[str, Source | str]]:
    """Runs on displaced inputs, or why one is no use."""
    for seed in range(count):
        moved = displaced(inputs, seed)
        if all(np.array_equal(moved[name], array, equal_nan=array.dtype.kind == "f") for name, array in inputs.items()):
            return  # nothing to displace: the run would be the same
        who, function = given[seed % len(given)]
        try:
            run = call(who, function, moved)
            yield who, unfit(run, oracle, listed) or run
        except Problem as problem:
            yield who, str(problem)
