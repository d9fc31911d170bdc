"""The main job: convert one checkpoint to every framework, record each in its own process, judge, report."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..backends.config import Config
from ..backends.errors import Problem
from ..backends.initial import initial_weights
from ..backends.spec import params
from ..backends.spelling import FRAMEWORKS, Arrays
from ..convert.checkpoint import content_hash, open_checkpoint
from ..convert.writing import default_ending, write_checkpoint
from .inputs import photographs, random_inputs, read_inputs
from .judge import LEVELS, Judgement, against, judge
from .kernels import explain, known_kernels
from .record import Run, chosen_config
from .report import Reference, Report
from .trace import Trace
from .worker import TIME_LIMIT, Outcome, record_in_process

TWINS = (1, 2)  # seeds of the summation orders of the float32 twins
SMALL = 5_000_000  # parameters up to which two workers fit in memory side by side


@dataclass(frozen=True)
class Comparison:
    """What to compare."""

    frameworks: Sequence[str] = FRAMEWORKS
    weights: Path | None = None
    model: str | None = None
    images: Sequence[Path] = ()
    inputs: Path | None = None
    levels: Sequence[str] = LEVELS
    reference: str | None = "torch"
    rtol: float | None = None
    atol: float | None = None
    device: str = "cpu"
    dtype: str = "float32"
    mask_ratio: float = 0.75
    norm_pix_loss: bool = False
    batch: int = 2
    seed: int = 0
    threads: int = 1
    time_limit: float = TIME_LIMIT
    keep: Path | None = None  # where converted files and traces stay; None: a folder that is removed
    pythons: dict[str, str] = field(default_factory=dict)


def compare(comparison: Comparison) -> Report:
    """Run the whole comparison. Raises Problem for bad input; a failing framework is a row of the report."""
    config = chosen_config(comparison.weights, comparison.model, comparison.norm_pix_loss)
    if comparison.keep is not None:
        comparison.keep.mkdir(parents=True, exist_ok=True)
        return _compare_in(comparison.keep, comparison, config)
    with tempfile.TemporaryDirectory(prefix="polymae-") as folder:
        return _compare_in(Path(folder), comparison, config)


def _compare_in(folder: Path, comparison: Comparison, config: Config) -> Report:
    weights = _source(comparison, config)
    source = content_hash(weights)
    inputs, what = _inputs(folder, comparison, config)
    files = _convert(folder, comparison, config, weights)
    del weights
    base = Run(
        framework="numpy",
        out=folder / "oracle.npz",
        inputs=inputs,
        weights=files["numpy"],
        model=_model_file(folder, config),
        dtype="float64",
        mask_ratio=comparison.mask_ratio,
        gradients="gradients" in comparison.levels,
        threads=comparison.threads,
        seed=comparison.seed,
    )
    twin = replace(base, dtype="float32")
    runs = [base, *(replace(twin, twin=seed, out=folder / f"twin{seed}.npz") for seed in TWINS)]
    for name in comparison.frameworks:
        device = comparison.device if name != "numpy" else "cpu"
        trace = folder / f"{name}.npz"
        runs.append(
            replace(twin, framework=name, weights=files[name], device=device, dtype=comparison.dtype, out=trace)
        )
    outcomes = _record(runs, comparison, sum(param.size for param in params(config)))
    report = judge_outcomes(outcomes[: 1 + len(TWINS)], outcomes[1 + len(TWINS) :], comparison)
    for judgement in report.judgements:
        if judgement.verdict == "fault" and (noise := known_kernels(judgement.environment)):
            _explain(judgement, noise, base, comparison)
    report.model, report.weights = comparison.model or _preset_name(comparison), str(comparison.weights or "seeded")
    report.source, report.inputs, report.mask_ratio = source, what, comparison.mask_ratio
    return report


def _preset_name(comparison: Comparison) -> str:
    return (comparison.weights and open_checkpoint(comparison.weights).model) or "own model"


def _source(comparison: Comparison, config: Config) -> Arrays:
    if comparison.weights is None:
        return initial_weights(config, comparison.seed)
    return open_checkpoint(comparison.weights).weights(config)


def _model_file(folder: Path, config: Config) -> str:
    """The configuration as a JSON file, which says everything to a worker, norm_pix_loss included."""
    import json
    from dataclasses import asdict

    path = folder / "model.json"
    path.write_text(json.dumps(asdict(config)))
    return str(path)


def _inputs(folder: Path, comparison: Comparison, config: Config) -> tuple[Path, str]:
    if comparison.inputs is not None:
        found, what = read_inputs(comparison.inputs, config), str(comparison.inputs)
    elif comparison.images:
        found = photographs(comparison.images, config, comparison.seed)
        what = ", ".join(path.name for path in comparison.images)
    else:
        found = random_inputs(config, comparison.batch, comparison.seed)
        what = f"{comparison.batch} random images, seed {comparison.seed}"
    path = folder / "inputs.npz"
    np.savez(path, **found)
    return path, what


def _convert(folder: Path, comparison: Comparison, config: Config, weights: Arrays) -> dict[str, Path]:
    """The checkpoint as every framework's own file; NumPy reads PyTorch's."""
    files = {}
    for name in dict.fromkeys(["torch", *comparison.frameworks]):
        if name == "numpy":
            continue
        started = time.monotonic()
        files[name] = folder / f"{name}-weights{default_ending(name)}"
        write_checkpoint(name, files[name], config, weights)
        _say(f"converted to {name:<10} {files[name].name:<20} {time.monotonic() - started:6.1f} s")
    return files | {"numpy": files["torch"]}


def _record(runs: Sequence[Run], comparison: Comparison, size: int) -> list[Outcome]:
    def work(run: Run) -> Outcome:
        started = time.monotonic()
        outcome = record_in_process(run, comparison.pythons.get(run.framework, sys.executable), comparison.time_limit)
        what = "recorded" if outcome.trace else "FAILED  "
        kind = f"{run.dtype}{' twin' if run.twin else ''}{' noisy' if run.kernel_noise else ''}"
        _say(f"{what}     {run.framework:<10} {kind:<20} {time.monotonic() - started:6.1f} s  {outcome.reason}")
        return outcome

    with ThreadPoolExecutor(2 if size < SMALL else 1) as pool:
        try:
            return list(pool.map(work, runs))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _explain(judgement: Judgement, noise: dict[str, float], base: Run, comparison: Comparison) -> None:
    """Ask the oracle, with noise of the kernels' measured size, what they account for."""
    text = ",".join(f"{operation}={size}" for operation, size in noise.items())
    run = replace(base, kernel_noise=text, out=base.out.with_name(f"noisy-{judgement.label}.npz"))
    outcome = _record([run], comparison, SMALL)[0]
    if outcome.trace:
        explain(judgement, Trace(base.out), Trace(outcome.trace), noise)


def _say(line: str) -> None:
    print(line.rstrip(), file=sys.stderr, flush=True)


def judge_outcomes(references: Sequence[Outcome], outcomes: Sequence[Outcome], comparison: Comparison) -> Report:
    """Judge what the workers left. Raises Problem where the oracle itself could not be recorded."""
    for outcome in references:
        if outcome.trace is None:
            raise Problem(f"The NumPy oracle could not be recorded: {outcome.reason}")
    oracle, *twins = [Trace(outcome.trace) for outcome in references if outcome.trace]
    _say("judging")
    return judge_traces(oracle, twins, outcomes, comparison)


def judge_traces(oracle: Trace, twins: Sequence[Trace], outcomes: Sequence[Outcome], comparison: Comparison) -> Report:
    """A report on recorded traces."""
    opened: dict[str, Trace] = {}
    failed: dict[str, Judgement] = {}
    for outcome in outcomes:
        try:
            if outcome.trace is None:
                raise Problem(outcome.reason)
            opened[outcome.label] = Trace(outcome.trace)
        except Problem as problem:
            failed[outcome.label] = Judgement(outcome.label, problem=str(problem))
    judged = dict(zip(opened, judge(oracle, twins, opened, comparison.levels)))
    judgements = [(judged | failed)[outcome.label] for outcome in outcomes]
    report = Report("", "", "", "", 0.0, tuple(comparison.levels), judgements, twins=len(twins))
    report.reference = _reference(opened, judged, comparison)
    return report


def _reference(opened: dict[str, Trace], judged: dict[str, Judgement], comparison: Comparison) -> Reference | None:
    label = comparison.reference
    if label is None or label not in opened or judged[label].problem:
        return None
    reference = Reference(
        label,
        rtol=1e-4 if comparison.rtol is None else comparison.rtol,
        atol=1e-5 if comparison.atol is None else comparison.atol,
        asked=comparison.rtol is not None or comparison.atol is not None,
    )
    for name, trace in opened.items():
        if name != label and not judged[name].problem:
            reference.rows[name] = against(opened[label], trace, reference.rtol, reference.atol)
    return reference
