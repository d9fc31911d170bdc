"""Record a run in a process of its own: a framework that crashes, hangs or misbehaves is one row of the report."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .record import Run

TIME_LIMIT = 900.0  # seconds


@dataclass(frozen=True)
class Outcome:
    """How a worker ended: with a trace, or with a reason why there is none."""

    label: str
    trace: Path | None
    reason: str = ""


def record_in_process(run: Run, python: str = sys.executable, time_limit: float = TIME_LIMIT) -> Outcome:
    """Run `polymae record` in a fresh interpreter and say how it went. Never raises for what the worker does."""
    threads = {f"{library}_NUM_THREADS": str(run.threads) for library in ("OMP", "OPENBLAS", "MKL")}
    environment = os.environ | threads | {"GLOG_v": "3", "GLOG_minloglevel": "3"}
    try:
        worker = subprocess.Popen(
            [python, "-m", "polymae.cli", *_arguments(run)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # so that a worker's own children end with it
        )
    except OSError as problem:
        return Outcome(run.framework, None, f"the interpreter {python} does not start: {problem}")
    try:
        _, said = worker.communicate(timeout=time_limit)
    except subprocess.TimeoutExpired:
        _end(worker)
        return Outcome(run.framework, None, f"no result within {time_limit:.0f} s; the process was ended")
    except BaseException:
        _end(worker)
        raise
    if worker.returncode == 0 and run.out.exists():
        return Outcome(run.framework, run.out)
    return Outcome(run.framework, None, _reason(worker.returncode, said.decode(errors="replace")))


def _end(worker: subprocess.Popen[bytes]) -> None:
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def _arguments(run: Run) -> list[str]:
    options: dict[str, object] = {
        "--framework": run.framework,
        "--inputs": run.inputs,
        "--out": run.out,
        "--weights": run.weights,
        "--model": run.model,
        "--device": run.device,
        "--dtype": run.dtype,
        "--mask-ratio": run.mask_ratio,
        "--threads": run.threads,
        "--seed": run.seed,
        "--twin": run.twin,
        "--kernel-noise": run.kernel_noise,
        "--fault": run.fault,
    }
    given = [part for name, value in options.items() if value is not None for part in (name, str(value))]
    flags = {"--gradients": run.gradients, "--norm-pix-loss": run.norm_pix_loss}
    return ["record", *given, *(name for name, on in flags.items() if on)]


def _reason(status: int, said: str) -> str:
    if status < 0:
        name = signal.Signals(-status).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"the process was killed by {name}{hint}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if not line.startswith("usage:")), "no message")
    return f"{last.removeprefix('polymae record: ')} (exit status {status})"
