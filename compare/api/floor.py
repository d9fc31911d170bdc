"""The float32 runs of a reference that set the limits of anybody's own model: summed in chains, on displaced inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...files.errors import Problem
from ..judge.each import Source
from .callables import Arrays, Function, Listed, displaced, is_exact
from .chained import call_in_chains
from .infinities import same_infinities

RUNS = 3  # float32 runs that set a limit, where no more twins are given
# How many times further off than these runs a right port may be where their order of summation could not be changed: one chain
# of 2,048 terms costs 3.5 times as much as sums in blocks of 128, and the safety factor takes a part of it.
SUMS = 2.0
ENOUGH = 16  # elements of which nearly all are the float64 ones, rounded, by no chance
ROUNDED = 0.9  # the share of them: the float64 ones may differ in their own last bits


def unfit(run: Source, oracle: Source, listed: Listed) -> str:
    """Why a run is no float32 run of the oracle's computation, so that it cannot set a limit; or nothing."""
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
    slack: float = 1.0  # how many times further off than the runs their floor is taken to be
    terms: int = 0  # of the longest sum that the inputs allow; 0: not known


def measured_floor(
    reference: Function, twins: Sequence[Function] | None, inputs: Arrays, oracle: Source, listed: Listed
) -> Floor:
    """Run the twins (None: the reference itself) in float32, on the inputs and on inputs displaced by roundoff.

    Products are summed in chains where they can be, each run's in another order.
    Raises Problem where a twin that was given fails, or cannot set a limit.
    """
    if twins is not None and not twins:
        return Floor(why=["limits: a priori, by depth, as no twin was asked for"], terms=_longest_sum(inputs))
    functions = [(f"twin {i}", twin) for i, twin in enumerate(twins or (), 1)] or [("the reference", reference)]
    runs: list[Source] = []
    in_chains = True
    for seed, (who, function) in enumerate(functions):
        lost: frozenset[str] = frozenset()
        try:
            run, any_product = call_in_chains(who, function, inputs, seed)
            in_chains = in_chains and any_product
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
                terms=_longest_sum(inputs),
            )
        runs.append(run)
    measured, skipped = len(runs), []
    for who, run_or_reason in _displaced_runs(functions, inputs, oracle, listed, RUNS - measured):
        if isinstance(run_or_reason, str):
            skipped.append(f"{who} on displaced inputs was left out: {run_or_reason}")
        else:
            runs.append(run_or_reason)
    subject = "the reference" if twins is None else f"{measured} twin(s)"
    sums = ", every product summed in one chain" if in_chains else ""
    more = f", {len(runs) - measured} of them on inputs displaced by roundoff" if len(runs) > measured else ""
    why = [f"limits: from {len(runs)} float32 run(s) of {subject}{more}{sums}", *skipped]
    if not in_chains:
        why.append(
            f"limits are {SUMS:g} times as wide, as no product was met whose order of summation could be changed: that can be "
            "done in NumPy and PyTorch"
        )
    return Floor(runs, why, slack=1.0 if in_chains else SUMS)


def _longest_sum(inputs: Arrays) -> int:
    """How many terms a product with one of the inputs may sum: of a weight [out, in, ...] or [in, out] all but the outputs."""
    matrices = [array for array in inputs.values() if array.dtype.kind == "f" and array.ndim > 1 and array.size]
    return max((array.size // min(array.shape[0], array.shape[-1]) for array in matrices), default=0)


def _displaced_runs(
    functions: Sequence[tuple[str, Function]], inputs: Arrays, oracle: Source, listed: Listed, count: int
) -> Iterator[tuple[str, Source | str]]:
    """Runs on displaced inputs, or why one is no use."""
    for seed in range(count):
        moved = displaced(inputs, seed)
        if all(np.array_equal(moved[name], array, equal_nan=array.dtype.kind == "f") for name, array in inputs.items()):
            return  # nothing to displace: the run would be the same
        who, function = functions[seed % len(functions)]
        try:
            run, _ = call_in_chains(who, function, moved, len(functions) + seed)
            yield who, unfit(run, oracle, listed) or run
        except Problem as problem:
            yield who, str(problem)
