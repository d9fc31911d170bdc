"""Judge traces that were recorded before, perhaps on other machines. NumPy alone."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ..backends.config import Config
from ..backends.initial import initial_weights
from ..backends.installing import install_line
from ..backends.naming import Arrays
from ..backends.presets import preset_name
from ..files.errors import Problem
from .judge.traces import incomparable
from .options import LEVELS, Comparison, Run
from .record.noise import parse_noise
from .report.report import About, Report
from .trace import Outcome, Trace, TraceProblem, digest
from .verdict import judge_traces


def compare_traces(paths: Sequence[Path], comparison: Comparison) -> Report:
    """A report on trace files, which sorts them itself.

    NumPy in float64 is the oracle, twins of NumPy set the floor, a noisy oracle explains inaccurate kernels,
    the rest are judged. Without an oracle the traces are judged against
    the reference framework's (or the first), with the a-priori floor.
    Raises Problem where nothing is left to judge, or a twin is not of the oracle's run.
    """
    if absent := [str(path) for path in paths if not path.exists()]:
        raise Problem(
            f"There is no {', '.join(absent)}; record traces with `polymae record`, or `polymae compare --keep`."
        )
    traces = _sort(list({path.resolve(): path for path in paths}.values()))  # a file given twice counts once
    if len(traces.oracles) > 1:
        names = ", ".join(str(trace.path) for trace in traces.oracles)
        raise Problem(f"{names} are all oracles (NumPy in float64); give one of them.")
    if not traces.oracles and len(traces.others) > 1:
        reference = next((trace for trace in traces.others if trace.label == comparison.reference), traces.others[0])
        traces.others.remove(reference)
        traces = Sorted([reference], [], [], traces.others, traces.unreadable)
    if not traces.oracles or not (traces.others or traces.unreadable):
        why = "".join(f" {outcome.reason}" for outcome in traces.unreadable)
        raise Problem(
            f"{len(paths)} trace(s) leave nothing to judge; give at least two, best with one of the oracle: "
            f"polymae record --framework numpy --dtype float64.{why}"
        )
    oracle = traces.oracles[0]
    for trace in (*traces.twins, *traces.noisy):
        if why := incomparable(oracle, trace):
            raise Problem(f"{trace.path} cannot set a limit: {why}.")
    if absent := [level for level in comparison.levels if level not in oracle.levels]:
        if tuple(comparison.levels) != LEVELS:  # asked for by name
            raise Problem(
                f"The oracle's trace holds no {', '.join(absent)}; record the traces with --level "
                f"{','.join((*oracle.levels, *absent))}, or ask for other levels."
            )
        levels = tuple(level for level in comparison.levels if level in oracle.levels)
        print(f"The traces hold no {', '.join(absent)}: not judged (record them with --level all).", file=sys.stderr)
        comparison = replace(comparison, levels=levels)

    def with_noise(noise: Mapping[str, float]) -> Trace | None:
        fitting = (trace for trace in traces.noisy if parse_noise(trace.manifest["kernel_noise"]) == noise)
        return next(fitting, None) or _recorded_now(oracle, comparison.weights, noise)

    about = About(
        preset_name(oracle.config),
        "as recorded",
        oracle.manifest["source"],
        "as recorded",
        oracle.manifest["mask_ratio"],
    )
    outcomes = [*traces.unreadable, *_labelled(traces.others)]
    weights = partial(weights_of, oracle, comparison.weights)
    return judge_traces(about, oracle, traces.twins, outcomes, comparison, with_noise, weights)


def _recorded_now(oracle: Trace, file: Path | None, noise: Mapping[str, float]) -> Trace | None:
    """The oracle's run again with noise behind some kernels; None where that needs what is not here."""
    try:
        from .record.record import record
    except ImportError:
        return None  # NumPy alone
    if oracle.label != "numpy" or weights_of(oracle, file) is None:
        return None
    with tempfile.TemporaryDirectory(prefix="polymae-") as name:
        folder = Path(name)
        np.savez(folder / "inputs.npz", **{key: oracle[f"input/{key}"] for key in oracle.manifest["inputs"]})
        (folder / "model.json").write_text(json.dumps(asdict(oracle.config)))
        manifest = oracle.manifest
        levels = tuple(level for level in oracle.levels if level in ("forward", "loss", "gradients"))
        text = ",".join(f"{operation}={size}" for operation, size in noise.items())
        run = Run(
            "numpy", folder / "noisy.npz", folder / "inputs.npz", weights=file, model=str(folder / "model.json"), dtype="float64",
            mask_ratio=manifest["mask_ratio"], levels=levels, seed=manifest["seed"], kernel_noise=text,
        )  # fmt: skip
        record(run)
        return Trace(run.out)  # open: it is read after its name is gone


def weights_of(oracle: Trace, file: Path | None = None) -> Arrays | None:
    """The weights, float32 by spec name, with which a trace was recorded; None where they cannot be had.

    file: a checkpoint that holds them. Without one: the initial weights of the trace's seed, if those were used.
    Raises Problem for a file that holds others or cannot be read.
    """
    if file is None:
        weights: Arrays = initial_weights(oracle.config, oracle.manifest["seed"])
        return weights if _same(weights, oracle) else None
    weights = _read(file, oracle.config)
    if not _same(weights, oracle):
        raise Problem(f"{file} holds other weights than those of {oracle.path}; give the checkpoint that was recorded.")
    return weights


def _same(weights: Arrays, oracle: Trace) -> bool:
    digests = oracle.manifest["weights"]
    return weights.keys() == digests.keys() and all(digest(weights[name]) == digests[name] for name in digests)


def _read(file: Path, config: Config) -> Arrays:
    try:
        from ..convert.checkpoint import open_checkpoint
    except ImportError as problem:
        raise Problem(
            f"Reading {file} needs more than NumPy ({problem}): {install_line('core')}; or leave out --weights."
        ) from None
    return open_checkpoint(file).weights(config)


@dataclass(frozen=True)
class Sorted:
    """Traces by their use."""

    oracles: list[Trace]
    twins: list[Trace]
    noisy: list[Trace]
    others: list[Trace]
    unreadable: list[Outcome]


def _sort(paths: Sequence[Path]) -> Sorted:
    sorted_traces = Sorted([], [], [], [], [])
    for path in paths:
        try:
            trace = Trace(path)
        except TraceProblem as problem:
            sorted_traces.unreadable.append(Outcome(str(path), None, str(problem)))
            continue
        manifest = trace.manifest
        if manifest["kernel_noise"]:
            sorted_traces.noisy.append(trace)
        elif manifest["framework"] == "numpy" and manifest["dtype"] == "float64":
            sorted_traces.oracles.append(trace)
        elif manifest["twin"] is not None:
            sorted_traces.twins.append(trace)
        else:
            sorted_traces.others.append(trace)
    return sorted_traces


def _labelled(traces: Sequence[Trace]) -> list[Outcome]:
    """Each trace under its framework's name, or its path where there are two of it."""
    labels = [trace.label for trace in traces]
    outcomes = {}
    for trace in traces:
        label = trace.label if labels.count(trace.label) == 1 else str(trace.path)
        outcomes[label] = Outcome(label, trace.path)
    return list(outcomes.values())
