"""Record a run in a process of its own: a framework that crashes, hangs or misbehaves is one row of the report."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from . import TIME_LIMIT
from .record import Run

POLL = 0.2  # seconds between two looks at `stop`


@dataclass(frozen=True)
class Outcome:
    """How a worker ended: with a trace, or with a reason why there is none."""

    label: str
    trace: Path | None
    reason: str = ""


def record_in_process(
    run: Run, python: str = sys.executable, time_limit: float = TIME_LIMIT, stop: threading.Event | None = None
) -> Outcome:
    """Run `polymae record` in a fresh interpreter and say how it went. Never raises for what the worker does.

    stop: set by another thread, it ends the worker.
    """
    run.out.unlink(missing_ok=True)  # an older trace must not pass for this run's
    threads = {f"{library}_NUM_THREADS": str(run.threads) for library in ("OMP", "OPENBLAS", "MKL")}
    environment = os.environ | threads | {"GLOG_v": "3", "GLOG_minloglevel": "3"}
    try:
        worker = subprocess.Popen(
            [python, "-m", "polymae.cli", *_arguments(run)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=run.out.parent,  # not the caller's: `-m` puts it on the path, where a folder called torch would win
            start_new_session=True,  # so that a worker's own children end with it
        )
    except OSError as problem:
        return Outcome(run.framework, None, f"the interpreter {python} does not start: {problem}")
    try:
        said = _wait(worker, time.monotonic() + time_limit, stop or threading.Event())
    except subprocess.TimeoutExpired:
        _end(worker)
        why = "stopped" if stop and stop.is_set() else f"no result within {time_limit:.0f} s"
        return Outcome(run.framework, None, f"{why}; the process was ended")
    except BaseException:
        _end(worker)
        raise
    if worker.returncode == 0 and run.out.exists():
        return Outcome(run.framework, run.out)
    return Outcome(run.framework, None, _reason(worker.returncode, said.decode(errors="replace")))


def _wait(worker: subprocess.Popen[bytes], until: float, stop: threading.Event) -> bytes:
    while True:
        try:
            return worker.communicate(timeout=max(0.0, min(POLL, until - time.monotonic())))[1]
        except subprocess.TimeoutExpired:
            if stop.is_set() or time.monotonic() >= until:
                raise


def _end(worker: subprocess.Popen[bytes]) -> None:
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    assert worker.stderr is not None
    worker.stderr.close()


def _arguments(run: Run) -> list[str]:
    options: dict[str, object] = {
        "--framework": run.framework,
        "--inputs": run.inputs.resolve(),
        "--out": run.out.resolve(),
        "--weights": run.weights and run.weights.resolve(),
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
        named = {item.value: item.name for item in signal.Signals}
        name = named.get(-status, f"signal {-status}")
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"the process was killed by {name}{hint}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if not line.startswith("usage:")), "no message")
    if status == 0:
        return f"the process ended well but wrote no trace; its last words: {last}"
    said_by_us = last.startswith("polymae record: ")
    return last.removeprefix("polymae record: ") if said_by_us else f"{last} (exit status {status})"
