"""Whether a framework works, shown by a real computation in a process of its own, and how to mend it where it does not."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import signal
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from ...backends.blas import slow_kernels
from ...backends.installing import has_wheels, install_line, installed, requirements
from ...backends.interpreters import interpreter
from .patience import GivenUp, run_patiently

WORKS, BROKEN, MISSING = "works", "installed but broken", "missing"
MARK = "polymae doctor answers: "  # frameworks print lines of their own; this one is ours


@dataclass(frozen=True)
class Finding:
    """The state of one framework. problem and fix are empty where it works, notice where nothing is slow."""

    framework: str
    state: str
    version: str | None
    devices: list[str]
    problem: str = ""
    fix: str = ""
    kernels: dict[str, str] = field(default_factory=dict)  # that it takes on this CPU, as far as it tells
    notice: str = ""
    python: str = sys.executable  # that ran it


def examine_all(names: list[str], time_limit: float | None = None) -> list[Finding]:
    """A finding for every framework named, two at a time: importing one keeps about one core busy."""
    stop = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        try:
            return list(pool.map(lambda name: examine(name, time_limit, stop), names))
        finally:
            stop.set()  # Ctrl-C reaches this thread alone


def examine(
    framework: str, time_limit: float | None = None, stop: threading.Event | None = None, python: str | None = None
) -> Finding:
    """Compute with a framework in a process of its own. Never raises for a failure of the framework.

    python: the interpreter; None: the one that runs it (backends/interpreters.py).
    """
    python = python or interpreter(framework)
    here = python == sys.executable
    if here and not installed(framework):
        return Finding(framework, MISSING, None, [], f"{framework} is not installed here", fix(framework))
    answer = _answer(framework, python, time_limit, stop)
    version = answer.get("version")
    if "error" in answer:
        mend = fix(framework) if here else f"polymae env add {framework}"
        return Finding(framework, BROKEN, version, [], answer["error"], mend, python=python)
    kernels = answer["kernels"]
    notice = slow_kernels(f"{framework}'s", kernels.get("openblas", ""))
    return Finding(framework, WORKS, version, answer["devices"], kernels=kernels, notice=notice, python=python)


def _answer(framework: str, python: str, time_limit: float | None, stop: threading.Event | None) -> dict[str, Any]:
    code = f"from {__name__} import compute; compute({framework!r})"
    quiet = os.environ | {"GLOG_v": "3", "GLOG_minloglevel": "3"}
    # A folder of its own: MindSpore writes logs where it runs, and Python imports from there.
    with tempfile.TemporaryDirectory() as folder:
        try:
            child = run_patiently([python, "-c", code], time_limit, stop, cwd=folder, env=quiet)
        except GivenUp as why:
            return {"error": f"{why}{'' if time_limit is None else ' (a busy machine may need a larger --time-limit)'}"}
        except OSError as problem:
            return {"error": f"the interpreter {python} does not start: {problem.strerror}"}
    lines = [line for line in child.stdout.decode(errors="replace").splitlines() if line.startswith(MARK)]
    answer: dict[str, Any] = json.loads(lines[-1].removeprefix(MARK)) if lines else {}
    if "error" not in answer and (child.returncode or not lines):
        answer["error"] = _ending(child.returncode, child.stderr.decode(errors="replace"))
    return answer


def _ending(status: int, errors: str) -> str:
    if status < 0:
        return f"the process was ended by signal {-status} ({signal.strsignal(-status)})"
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return lines[-1] if lines else f"the process ended with status {status} and said nothing"


def compute(framework: str) -> None:
    """Run the small test model forward and backward and print one line of JSON: devices and kernels, or the error."""
    from ...backends.runtime import RuntimeProblem

    answer: dict[str, Any] = {"version": version(framework)}
    try:
        devices, kernels = _after_running(framework)
        answer |= {"devices": devices, "kernels": kernels}
    except Exception as problem:
        lines = str(problem).strip().splitlines() or [""]
        # A Problem's first line names the fault; an exception from deep inside says it last.
        answer["error"] = lines[0] if isinstance(problem, RuntimeProblem) else f"{type(problem).__name__}: {lines[-1]}"
    print(f"\n{MARK}{json.dumps(answer)}", flush=True)


def _after_running(framework: str) -> tuple[list[str], dict[str, str]]:
    """The devices and kernels of a framework that has computed here."""
    import numpy as np

    from ...backends.presets import model_config
    from ...backends.runtime import RuntimeProblem, load_backend

    runtime, oracle = load_backend(framework), load_backend("numpy")
    runtime.setup()
    config = model_config("mae_vit_test_patch8")
    rng = np.random.default_rng(0)
    inputs = {
        "imgs": rng.standard_normal((2, config.in_chans, *config.img_size)).astype(np.float32),
        "noise": rng.random((2, config.num_patches), np.float32),
    }
    recorded = runtime.run(runtime.build(config), inputs, gradients=True)
    loss, reference = float(recorded.taps["loss"]), float(oracle.run(oracle.build(config), inputs).taps["loss"])
    # Coarse on purpose: whether it computes at all. `polymae compare` judges how well.
    if not abs(loss - reference) <= 1e-3 * abs(reference):
        raise RuntimeProblem(f"it computes, but wrongly: a loss of {loss:.6g}, where NumPy gets {reference:.6g}.")
    if not all(np.isfinite(gradient).all() for gradient in recorded.gradients.values()):
        raise RuntimeProblem("it computes, but its gradients are not finite.")
    return runtime.devices(), runtime.environment("cpu").get("kernels", {})


def fix(framework: str) -> str:
    """The command that mends a framework: whatever is not as it should be, or else the framework itself once more."""
    if not has_wheels(framework):
        return install_line(framework)
    wanted = requirements(framework)
    wrong = [str(one) for one in wanted if not one.specifier.contains(version(one.name) or "0", prereleases=True)]
    again = ["--force-reinstall", "--no-deps", *([str(one) for one in wanted if one.name == framework] or [framework])]
    python = shlex.quote(sys.executable)
    pip = f"{python} -m pip install" if importlib.util.find_spec("pip") else f"uv pip install --python {python}"
    return f"{pip} {shlex.join(wrong or again)}"


def version(distribution: str) -> str | None:
    """The version that is installed here, if any."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
