"""Judge traces that were recorded before, perhaps on other machines. NumPy alone."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..backends.errors import Problem
from ..backends.presets import preset_name
from . import LEVELS
from .judge import incomparable
from .kernels import parse_noise
from .report import About, Report
from .trace import Trace, TraceProblem
from .verdict import Comparison, judge_traces
from .worker import Outcome


def compare_traces(paths: Sequence[Path], comparison: Comparison) -> Report:
    """A report on trace files, which sorts them itself.

    NumPy in float64 is the oracle, twins of NumPy set the floor, a noisy oracle explains inaccurate kernels,
    the rest are judged, those with a planted fault among them. Without an oracle the traces are judged against
    the reference framework's (or the first), with the a-priori floor.
    Raises Problem where nothing is left to judge, or a twin is not of the oracle's run.
    """
    if absent := [str(path) for path in paths if not path.exists()]:
        raise Problem(
            f"There is no {', '.join(absent)}; record traces with `polymae record`, or `polymae compare --keep`."
        )
    found = _sort(list({path.resolve(): path for path in paths}.values()))  # a file given twice counts once
    if len(found.oracles) > 1:
        names = ", ".join(str(trace.path) for trace in found.oracles)
        raise Problem(f"{names} are all oracles (NumPy in float64); give one of them.")
    if not found.oracles and len(found.others) > 1:
        right = [trace for trace in found.others if not trace.manifest["fault"]]
        if not right:
            raise Problem("Every trace has a planted fault; give one without, best the oracle's.")
        reference = next((trace for trace in right if trace.label == comparison.reference), right[0])
        found.others.remove(reference)
        found = Sorted([reference], [], [], found.others, found.unreadable)
    if not found.oracles or not (found.others or found.unreadable):
        raise Problem(
            f"{len(paths)} trace(s) leave nothing to judge; give at least two, best with one of the oracle: "
            "polymae record --framework numpy --dtype float64."
        )
    oracle = found.oracles[0]
    for trace in (*found.twins, *found.noisy):
        if why := incomparable(oracle, trace):
            raise Problem(f"{trace.path} cannot set a limit: {why}.")
    if not oracle.manifest["gradients"] and "gradients" in comparison.levels:
        levels = tuple(level for level in comparison.levels if level != "gradients")
        if tuple(comparison.levels) != LEVELS:  # asked for by name
            raise Problem(
                "The oracle's trace holds no gradients; record the traces with --gradients, or ask for other levels."
            )
        print("The traces hold no gradients (record them with --gradients): that level is not judged.", file=sys.stderr)
        comparison = replace(comparison, levels=levels)

    def with_noise(noise: Mapping[str, float]) -> Trace | None:
        return next((trace for trace in found.noisy if parse_noise(trace.manifest["kernel_noise"]) == noise), None)

    about = About(
        preset_name(oracle.config),
        "as recorded",
        oracle.manifest["source"],
        "as recorded",
        oracle.manifest["mask_ratio"],
    )
    outcomes = [*found.unreadable, *_labelled(found.others)]
    return judge_traces(about, oracle, found.twins, outcomes, comparison, with_noise)


@dataclass(frozen=True)
class Sorted:
    """Traces by what they are for."""

    oracles: list[Trace]
    twins: list[Trace]
    noisy: list[Trace]
    others: list[Trace]
    unreadable: list[Outcome]


def _sort(paths: Sequence[Path]) -> Sorted:
    found = Sorted([], [], [], [], [])
    for path in paths:
        try:
            trace = Trace(path)
        except TraceProblem as problem:
            found.unreadable.append(Outcome(str(path), None, str(problem)))
            continue
        manifest = trace.manifest
        if manifest["fault"]:
            found.others.append(trace)
        elif manifest["kernel_noise"]:
            found.noisy.append(trace)
        elif manifest["framework"] == "numpy" and manifest["dtype"] == "float64":
            found.oracles.append(trace)
        elif manifest["twin"] is not None:
            found.twins.append(trace)
        else:
            found.others.append(trace)
    return found


def _labelled(traces: Sequence[Trace]) -> list[Outcome]:
    """Each trace under its framework's name, or its path where there are two of it."""
    labels = [trace.label for trace in traces]
    found = {}
    for trace in traces:
        label = trace.label if labels.count(trace.label) == 1 else str(trace.path)
        found[label] = Outcome(label, trace.path)
    return list(found.values())
