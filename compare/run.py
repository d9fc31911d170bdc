"""The main job: convert one checkpoint to every framework, record each in its own process, judge, report."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..backends.blas import fallback, slow_kernels
from ..backends.config import Config, MAEConfig, keep_length
from ..backends.interpreters import interpreter
from ..backends.naming import Arrays
from ..backends.presets import preset_name
from ..backends.spec import params
from ..convert.targets import default_ending
from ..convert.writing import write_checkpoint
from ..files.errors import Problem
from .options import Comparison, Run
from .record.child import record_in_process
from .record.inputs import photographs, random_inputs, read_inputs
from .record.source import ModelSource, model_source
from .report.report import About, Report
from .trace import Outcome, Trace, require_folder
from .verdict import judge_traces, require_reference

TWINS = (1, 2, 3)  # seeds of the summation orders of the float32 twins
SMALL = 5_000_000  # parameters up to which two workers fit in memory side by side


def compare(comparison: Comparison) -> Report:
    """Run the whole comparison. Raises Problem for bad input; a failing framework is a row of the report."""
    require_reference(comparison, "numpy", comparison.frameworks)
    source = model_source(comparison)
    config = source.config
    if isinstance(config, MAEConfig):
        keep_length(config.num_patches, comparison.mask_ratio)  # raises before anything is started
    if comparison.keep is not None:
        require_folder(comparison.keep)
        comparison.keep.mkdir(parents=True, exist_ok=True)
        with _alone_in(comparison.keep):
            return _compare_in(comparison.keep.resolve(), comparison, source)
    with tempfile.TemporaryDirectory(prefix="polymae-", dir=comparison.scratch) as folder:
        return _compare_in(Path(folder).resolve(), comparison, source)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two comparisons in one folder would judge each other's traces: the second is refused."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Problem(f"Another comparison is at work in {folder}; wait for it, or give another --keep.") from None
        yield


def _compare_in(folder: Path, comparison: Comparison, source: ModelSource) -> Report:
    config = source.config
    if core := fallback():
        _say(slow_kernels("NumPy's", core))
    weights, content = source.load()
    inputs, inputs_text = _inputs(folder, comparison, config)
    _say(
        f"weights {comparison.weights or 'seeded, in the official layout'} ({preset_name(config)}), inputs {inputs_text}"
    )
    files = _convert(folder, comparison, config, weights)
    del weights
    files_of = {"model": _model_file(folder, config), "weights": files["numpy"], "inputs": inputs}
    common = comparison.shared() | files_of | _on("cpu", comparison)
    base = Run("numpy", folder / "oracle.npz", dtype="float64", **common)
    twin = replace(base, dtype="float32")
    runs = [base, *(replace(twin, twin=seed, out=folder / f"twin{seed}.npz") for seed in TWINS)]
    for name in comparison.frameworks:
        place = _on("cpu" if name == "numpy" else comparison.device, comparison)
        runs.append(replace(twin, framework=name, weights=files[name], out=folder / f"{name}.npz", **place))
    outcomes = _record(runs, comparison, sum(param.size for param in params(config)))
    references, candidates = outcomes[: 1 + len(TWINS)], outcomes[1 + len(TWINS) :]
    for outcome in references:
        if outcome.trace is None:
            raise Problem(f"The NumPy oracle could not be recorded: {outcome.reason}")
    oracle, *twins = [Trace(outcome.trace) for outcome in references if outcome.trace]
    if oracle.manifest["source"] != content:
        raise Problem(f"{oracle.path} was recorded from other weights meanwhile; run the comparison again.")
    about = About(preset_name(config), str(comparison.weights or "seeded"), content, inputs_text, comparison.mask_ratio)
    _say("judging")
    noisy = partial(_record_noisy, base=base, comparison=comparison)
    # The weights are loaded again, so that they do not take memory while the frameworks run.
    return judge_traces(about, oracle, twins, candidates, comparison, noisy, lambda: source.load().weights)


def _on(device: str, comparison: Comparison) -> dict[str, Any]:
    """The options of a run that depend on its device."""
    return {"device": device, "allow_tf32": comparison.allow_tf32 and device != "cpu"}


def _model_file(folder: Path, config: Config) -> str:
    """The configuration as a JSON file, which says everything to a worker, norm_pix_loss included."""
    path = folder / "model.json"
    path.write_text(json.dumps(asdict(config)))
    return str(path)


def _inputs(folder: Path, comparison: Comparison, config: Config) -> tuple[Path, str]:
    drawn: dict[str, Any] = {"drop_path": comparison.drop_path, "soft_targets": comparison.soft_targets}
    if comparison.inputs is not None:
        if any(drawn.values()):
            raise Problem(
                "--drop-path and --soft-targets draw what --inputs gives; leave them out, and put drop_path "
                "[N, depth, 2] and targets [N, classes] in the file."
            )
        inputs, text = read_inputs(comparison.inputs, config), str(comparison.inputs)
        _require_memory(config, len(inputs["imgs"]))
    elif comparison.images:
        _require_memory(config, len(comparison.images))
        inputs = photographs(comparison.images, config, comparison.seed, **drawn)
        text = ", ".join(path.name for path in comparison.images)
    else:
        _require_memory(config, comparison.batch)
        inputs = random_inputs(config, comparison.batch, comparison.seed, **drawn)
        text = f"{comparison.batch} random images, seed {comparison.seed}"
    text += f", drop path {comparison.drop_path:g}" if comparison.drop_path else ""
    text += ", soft targets" if comparison.soft_targets else ""
    path = folder / "inputs" / "inputs.npz"  # apart: *.npz in the folder are traces
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **inputs)
    return path, text


def _require_memory(config: Config, batch: int) -> None:
    """Refuse a batch whose taps would not fit into memory, where the system would end processes at random."""
    stacks = [(config.depth, config.embed_dim, config.num_heads)]
    if isinstance(config, MAEConfig):
        stacks.append((config.decoder_depth, config.decoder_embed_dim, config.decoder_num_heads))
    T = config.num_patches + 1
    numbers = sum(depth * T * (9 * dim + 2 * config.mlp_dim(dim) + heads * T) for depth, dim, heads in stacks)
    needed = 2 * 8 * batch * numbers  # float64, and as much again for the backward pass
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > 0.8 * total:
        raise Problem(
            f"{batch} images would need about {needed / 2**30:.0f} GiB of memory, and this machine has "
            f"{total / 2**30:.0f}; use a smaller batch."
        )


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
    stop = threading.Event()

    def work(run: Run) -> Outcome:
        started = time.monotonic()
        python = comparison.pythons.get(run.framework) or interpreter(run.framework)
        outcome = record_in_process(run, python, comparison.time_limit, stop)
        if stop.is_set():
            return outcome
        state = "recorded" if outcome.trace else "FAILED  "
        kind = f"{run.dtype}{' twin' if run.twin else ''}{' noisy' if run.kernel_noise else ''}"
        _say(f"{state}     {run.framework:<10} {kind:<20} {time.monotonic() - started:6.1f} s  {outcome.reason}")
        return outcome

    with ThreadPoolExecutor(2 if size < SMALL else 1) as pool:
        try:
            return list(pool.map(work, runs))
        except BaseException:
            stop.set()  # or leaving the pool would wait for its workers, who know nothing of a Ctrl-C
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _record_noisy(noise: Mapping[str, float], base: Run, comparison: Comparison) -> Trace | None:
    """The oracle with noise behind the operations whose kernels are known to be inaccurate."""
    text = ",".join(f"{operation}={size}" for operation, size in noise.items())
    run = replace(base, kernel_noise=text, out=base.out.with_name("noisy.npz"))
    outcome = _record([run], comparison, SMALL)[0]
    return Trace(outcome.trace) if outcome.trace else None


def _say(line: str) -> None:
    print(line.rstrip(), file=sys.stderr, flush=True)
