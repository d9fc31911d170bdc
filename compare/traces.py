"""Judge traces that were recorded before, perhaps on other machines. NumPy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..backends.errors import Problem
from ..backends.presets import preset_name
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
    oracles, twins, noisy, others, outcomes = [], [], [], [], []
    for path in paths:
        try:
            trace = Trace(path)
        except TraceProblem as problem:
            outcomes.append(Outcome(str(path), None, str(problem)))
            continue
        manifest = trace.manifest
        if manifest["fault"]:
            others.append(trace)
        elif manifest["kernel_noise"]:
            noisy.append(trace)
        elif manifest["framework"] == "numpy" and manifest["dtype"] == "float64":
            oracles.append(trace)
        elif manifest["twin"] is not None:
            twins.append(trace)
        else:
            others.append(trace)
    if len(oracles) > 1:
        raise Problem(
            f"{', '.join(str(o.path) for o in oracles)} are all oracles (NumPy in float64); give one of them."
        )
    if not oracles and len(others) > 1:
        oracles = [next((trace for trace in others if trace.label == comparison.reference), others[0])]
        twins, noisy = [], []
        others.remove(oracles[0])
    if not oracles or not (others or outcomes):
        raise Problem(
            f"{len(paths)} trace(s) leave nothing to judge; give at least two, best with one of the oracle: "
            "polymae record --framework numpy --dtype float64."
        )
    for trace in (*twins, *noisy):
        if problem_found := incomparable(oracles[0], trace):
            raise Problem(f"{trace.path} cannot set a limit: {problem_found}.")
    labels = [trace.label for trace in others]
    for trace in others:
        label = trace.label if labels.count(trace.label) == 1 else str(trace.path)
        if all(outcome.label != label for outcome in outcomes):  # a file given twice is judged once
            outcomes.append(Outcome(label, trace.path))
    manifest = oracles[0].manifest
    about = About(
        preset_name(oracles[0].config), "as recorded", manifest["source"], "as recorded", manifest["mask_ratio"]
    )

    def with_noise(noise: Mapping[str, float]) -> Trace | None:
        return next((trace for trace in noisy if parse_noise(trace.manifest["kernel_noise"]) == noise), None)

    return judge_traces(about, oracles[0], twins, outcomes, comparison, with_noise)
