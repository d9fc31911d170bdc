"""`polymae doctor`: which frameworks work on this machine, shown by a real computation, and how to mend the others."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import signal
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from ..backends import FRAMEWORKS
from ..backends.blas import cpu_flags, generation, slow_kernels
from ..compare.recording.patience import GivenUp, run_patiently
from .choices import above_zero

WORKS, BROKEN, MISSING = "works", "installed but broken", "missing"
PYTHON = (3, 10)  # the only version that all five frameworks support
BASE_SIZE_GIB = 6  # what one framework takes for the base model's forward and backward pass
MARK = "polymae doctor answers: "  # frameworks print lines of their own; this one is ours


@dataclass(frozen=True)
class Finding:
    """What is known of one framework. problem and fix are empty where it works, notice where nothing is slow."""

    framework: str
    state: str
    version: str | None
    devices: list[str]
    problem: str = ""
    fix: str = ""
    kernels: dict[str, str] = field(default_factory=dict)  # that it takes on this CPU, as far as it tells
    notice: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae doctor`."""
    parser.add_argument(
        "--framework", action="append", choices=FRAMEWORKS, help="examine this one only (may be repeated; default: all)"
    )
    parser.add_argument(
        "--time-limit",
        type=above_zero,
        metavar="SECONDS",
        help="for each (default: one is given up that does nothing for 5 minutes, or computes for an hour)",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(args: argparse.Namespace) -> int:
    """Print what was found and return 0 where every framework asked for works, else 1."""
    names = list(dict.fromkeys(args.framework or FRAMEWORKS))
    if args.json:
        findings = examine_all(names, args.time_limit)
        print(json.dumps({"machine": machine(), "frameworks": [asdict(found) for found in findings]}, indent=2))
    else:
        from rich.console import Console

        with Console(stderr=True).status(f"Computing with {', '.join(names)} ..."):
            findings = examine_all(names, args.time_limit)
        _show(findings)
    return 0 if all(found.state == WORKS for found in findings) else 1


def examine_all(names: list[str], time_limit: float | None = None) -> list[Finding]:
    """A finding for every framework named, two at a time: importing one keeps about one core busy."""
    stop = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        try:
            return list(pool.map(lambda name: examine(name, time_limit, stop), names))
        finally:
            stop.set()  # Ctrl-C reaches this thread alone


def examine(framework: str, time_limit: float | None = None, stop: threading.Event | None = None) -> Finding:
    """Compute with a framework in a process of its own. Never raises for what the framework does."""
    from ..backends.runtime import installed

    version = _version(framework)
    if not installed(framework):
        return Finding(framework, MISSING, None, [], f"{framework} is not installed here", fix(framework))
    answer = _answer(framework, time_limit, stop)
    if "error" in answer:
        return Finding(framework, BROKEN, version, [], answer["error"], fix(framework))
    kernels = answer["kernels"]
    notice = slow_kernels(f"{framework}'s", kernels.get("openblas", ""))
    return Finding(framework, WORKS, version, answer["devices"], kernels=kernels, notice=notice)


def _answer(framework: str, time_limit: float | None, stop: threading.Event | None) -> dict[str, Any]:
    code = f"from polymae.cli.doctor import compute; compute({framework!r})"
    quiet = os.environ | {"GLOG_v": "3", "GLOG_minloglevel": "3"}
    # A folder of its own: MindSpore writes logs where it runs, and Python imports from there.
    with tempfile.TemporaryDirectory() as folder:
        try:
            child = run_patiently([sys.executable, "-c", code], time_limit, stop, cwd=folder, env=quiet)
        except GivenUp as why:
            return {"error": f"{why}{'' if time_limit is None else ' (a busy machine may need a larger --time-limit)'}"}
    said = [line for line in child.stdout.decode(errors="replace").splitlines() if line.startswith(MARK)]
    answer: dict[str, Any] = json.loads(said[-1].removeprefix(MARK)) if said else {}
    if "error" not in answer and (child.returncode or not said):
        answer["error"] = _ending(child.returncode, child.stderr.decode(errors="replace"))
    return answer


def _ending(status: int, said: str) -> str:
    if status < 0:
        return f"the process was ended by signal {-status} ({signal.strsignal(-status)})"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else f"the process ended with status {status} and said nothing"


def compute(framework: str) -> None:
    """Run the small test model forward and backward and print one line of JSON: devices and kernels, or the error."""
    from ..backends.runtime import RuntimeProblem

    answer: dict[str, Any]
    try:
        devices, kernels = _after_running(framework)
        answer = {"devices": devices, "kernels": kernels}
    except Exception as problem:
        lines = str(problem).strip().splitlines() or [""]
        # A Problem's first line says what is wrong; an exception from deep inside says it last.
        answer = {
            "error": lines[0] if isinstance(problem, RuntimeProblem) else f"{type(problem).__name__}: {lines[-1]}"
        }
    print(f"\n{MARK}{json.dumps(answer)}", flush=True)


def _after_running(framework: str) -> tuple[list[str], dict[str, str]]:
    """The devices and kernels of a framework that has computed here."""
    import numpy as np

    from ..backends.presets import model_config
    from ..backends.runtime import RuntimeProblem, load_backend

    runtime, oracle = load_backend(framework), load_backend("numpy")
    runtime.setup()
    config = model_config("mae_vit_test_patch8")
    rng = np.random.default_rng(0)
    inputs = {
        "imgs": rng.standard_normal((2, config.in_chans, *config.img_size)).astype(np.float32),
        "noise": rng.random((2, config.num_patches), np.float32),
    }
    found = runtime.run(runtime.build(config), inputs, gradients=True)
    loss, reference = float(found.taps["loss"]), float(oracle.run(oracle.build(config), inputs).taps["loss"])
    # Coarse on purpose: whether it computes at all. How well is what `polymae compare` judges.
    if not abs(loss - reference) <= 1e-3 * abs(reference):
        raise RuntimeProblem(f"it computes, but wrongly: a loss of {loss:.6g}, where NumPy gets {reference:.6g}.")
    if not all(np.isfinite(gradient).all() for gradient in found.gradients.values()):
        raise RuntimeProblem("it computes, but its gradients are not finite.")
    return runtime.devices(), runtime.environment("cpu").get("kernels", {})


def fix(framework: str) -> str:
    """The command that mends a framework: whatever differs from its pins, or else the framework itself once more."""
    pins = _pins(framework)
    wrong = [pin for pin in pins if _version(pin.partition("==")[0]) != pin.partition("==")[2]]
    what = wrong or ["--force-reinstall", "--no-deps", *[pin for pin in pins if pin.startswith(framework)]]
    python = shlex.quote(sys.executable)
    pip = f"{python} -m pip install" if importlib.util.find_spec("pip") else f"uv pip install --python {python}"
    return f"{pip} {shlex.join(what)}"


def _pins(framework: str) -> list[str]:
    try:
        listed = metadata.requires("polymae") or []
    except metadata.PackageNotFoundError:  # run from a folder, not installed
        listed = [framework]
    pins: dict[str, None] = {}  # in order, each once
    for line in listed:
        pin, _, marker = line.partition(";")
        if not marker or f'extra == "{framework}"' in marker:
            pins[pin.strip()] = None
    return list(pins)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """Python's version, usable cores and their newest instruction set, memory in GiB: how much there is and how much is free."""
    page = os.sysconf("SC_PAGE_SIZE") / 2**30
    total, free = page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    limit, used = (_bytes(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit is not None and used is not None:  # a container may have less than the machine
        total, free = min(total, limit / 2**30), min(free, (limit - used) / 2**30)
    return {
        "python": sys.version.split()[0],
        "python_fits": sys.version_info[:2] == PYTHON,
        "executable": sys.executable,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "simd": generation(cpu_flags()),
        "memory_gib": round(total, 1),
        "memory_free_gib": round(free, 1),
    }


def _bytes(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):  # no such control group, or "max"
        return None


def _show(findings: list[Finding]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    here = machine()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("framework", "state", "version", "devices", "kernels on the cpu"):
        table.add_column(heading)
    for found in findings:
        colour = {WORKS: "green", BROKEN: "red", MISSING: "yellow"}[found.state]
        state = f"[{colour}]{found.state}[/]"
        kernels = ", ".join(f"{library} {kernel}" for library, kernel in found.kernels.items() if kernel)
        table.add_row(found.framework, state, found.version or "-", ", ".join(found.devices) or "-", kernels or "-")
    print(
        f"Python {here['python']}, {here['cores']} cores{f' with {simd}' if (simd := here['simd']) else ''}, "
        f"{here['memory_gib']} GiB of memory ({here['memory_free_gib']} free)"
    )
    if not here["python_fits"]:
        print("Only Python 3.10 runs all five frameworks; in a clone, `make setup` builds an environment with it.")
    if here["memory_gib"] < BASE_SIZE_GIB:
        print(f"Base-size models take about {BASE_SIZE_GIB} GiB; here, use mae_vit_tiny_patch16 or smaller ones.")
    Console(highlight=False).print(table)
    for found in findings:
        if found.state != WORKS:
            print(f"{found.framework}: {found.problem}\n  To mend it: {found.fix}")
        elif found.notice:
            print(found.notice)
