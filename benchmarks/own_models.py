"""How often a right port of somebody's own net is called wrong by `parity`, and which planted faults are noticed.

    .venv/bin/python benchmarks/own_models.py --seeds 60 --out docs/benchmarks/own-models.md

Nets: convolutions, an MLP-mixer, a transformer and a wide one, each in PyTorch and ported to every framework
(benchmarks/nets). Every seed gives other weights and data. Each framework runs in a process of its own, with the reference in
PyTorch's float64 beside it. Variables that choose kernels (OPENBLAS_CORETYPE and so on) are passed on, and named on the page.
Exit status 1 where a right port is called wrong, or a fault is missed or found elsewhere than where it was planted.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path.insert(0, str(TESTS))  # of mutants, by which nets are edited
from nets.faults import FAULTS  # noqa: E402
from nets.judging import Run  # noqa: E402
from nets.page import Measured, complaints, page  # noqa: E402
from nets.planting import PORTS, RAISES  # noqa: E402
from nets.settings import NETS  # noqa: E402

from polymae.backends.blas import thread_variables  # noqa: E402

Request = tuple[str, int, "str | None"]  # net, seed, fault


def environment() -> dict[str, str]:
    """The variables of every child: this process's, quiet, with one thread for each library unless it has others."""
    # MindSpore's import leaves variables in the environment with which OneFlow cannot be imported.
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PROTOCOL_BUFFERS_")}
    paths = [str(Path(__file__).resolve().parent), str(TESTS), *filter(None, [ours.get("PYTHONPATH")])]
    return thread_variables(1) | ours | {"GLOG_v": "3", "GLOG_minloglevel": "3", "PYTHONPATH": os.pathsep.join(paths)}


def measure(framework: str, requests: Sequence[Request]) -> Measured:
    """Judge runs of one framework in a process of its own. Never raises for a failure of that process."""
    with tempfile.TemporaryDirectory(prefix="polymae-") as folder:
        out, request = Path(folder) / "runs.jsonl", Path(folder) / "request.json"
        request.write_text(json.dumps(requests), encoding="utf-8")
        command = [sys.executable, "-m", "nets.judging", framework, str(out), str(request)]
        # In an empty folder: `-m` puts it on the path, and MindSpore leaves files in it.
        done = subprocess.run(command, env=environment(), cwd=folder, capture_output=True, text=True, errors="replace")
        lines = out.read_text(encoding="utf-8").split("\n")[:-1] if out.exists() else []  # whole ones
    measured = Measured([Run(**json.loads(line)) for line in lines])
    if done.returncode:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no message")
        measured.problem = f"its process ended with status {done.returncode} after {len(lines)} runs: {last}"
    return measured


def requested(
    framework: str, nets: Iterable[str], seeds: int, faults: Iterable[str], fault_seeds: int
) -> list[Request]:
    """Every run to judge in one framework: right ports first, then each fault that can be planted in it."""
    nets = list(nets)
    right: list[Request] = [(net, seed, None) for net in nets for seed in range(seeds)]
    # What raises comes last: MindSpore's next call fails where one was left within a gradient.
    ordered = sorted((FAULTS[name] for name in faults), key=lambda fault: fault.incomparable == RAISES)
    fitting = [fault for fault in ordered if fault.net in nets and framework in fault.frameworks]
    planted: list[Request] = [(fault.net, seed, fault.name) for fault in fitting for seed in range(fault_seeds)]
    return right + planted


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print the tables, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=60, help="right runs of each net (default 60)")
    parser.add_argument("--fault-seeds", type=int, default=3, help="runs of each planted fault (default 3)")
    parser.add_argument("--frameworks", nargs="+", default=list(PORTS), choices=PORTS, metavar="FRAMEWORK")
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=NETS, metavar="NET")
    parser.add_argument("--faults", nargs="+", default=list(FAULTS), choices=FAULTS, metavar="FAULT")
    parser.add_argument("--out", type=Path, help="a file for the page")
    args = parser.parse_args(argv)
    requests = {
        framework: requested(framework, args.nets, args.seeds, args.faults, args.fault_seeds)
        for framework in args.frameworks
    }
    if idle := [framework for framework, runs in requests.items() if not runs]:
        parser.error(
            f"there is nothing to run in {', '.join(idle)}; ask for more --seeds, or for --faults of these --nets"
        )
    by_framework = {}
    for framework, runs in requests.items():
        by_framework[framework] = measure(framework, runs)
        print(f"{framework}: {len(by_framework[framework].runs)} runs", file=sys.stderr, flush=True)
    options = ["--seeds", str(args.seeds), "--fault-seeds", str(args.fault_seeds)]
    for name, chosen, every in (("--nets", args.nets, NETS), ("--faults", args.faults, FAULTS)):
        options += [] if len(set(chosen)) == len(every) else [name, *chosen]
    text = page(by_framework, shlex.join(options), environment())
    print(text, end="")
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    return int(bool(complaints(by_framework)))


if __name__ == "__main__":
    raise SystemExit(main())
