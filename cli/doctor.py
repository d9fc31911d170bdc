"""`polymae doctor`: which frameworks work on this machine, shown by a real computation, and how to mend the others."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..backends import FRAMEWORKS
from ..backends.blas import cpu_flags, generation
from ..backends.installing import has_wheels
from ..compare.record.examine import BROKEN, MISSING, WORKS, Finding, examine_all
from ..files.arguments import above_zero

BASE_SIZE_GIB = 6  # one framework's memory for the base model's forward and backward pass


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
    """Print the state of each framework and return 0 where all of them work, else 1."""
    names = list(dict.fromkeys(args.framework or FRAMEWORKS))
    if args.json:
        findings = examine_all(names, args.time_limit)
        print(json.dumps({"machine": machine(), "frameworks": [asdict(finding) for finding in findings]}, indent=2))
    else:
        from rich.console import Console

        with Console(stderr=True).status(f"Computing with {', '.join(names)} ..."):
            findings = examine_all(names, args.time_limit)
        _show(findings)
    return 0 if all(finding.state == WORKS for finding in findings) else 1


def machine() -> dict[str, Any]:
    """Python's version, usable cores and their newest instruction set, memory in GiB: how much there is and how much is free."""
    page = os.sysconf("SC_PAGE_SIZE") / 2**30
    total, free = page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    limit, used = (_bytes(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit is not None and used is not None:  # a container may have less than the machine
        total, free = min(total, limit / 2**30), min(free, (limit - used) / 2**30)
    return {
        "python": sys.version.split()[0],
        "no_wheels": [name for name in FRAMEWORKS if not has_wheels(name)],
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
    for finding in findings:
        colour = {WORKS: "green", BROKEN: "red", MISSING: "yellow"}[finding.state]
        state = f"[{colour}]{finding.state}[/]"
        kernels = ", ".join(f"{library} {kernel}" for library, kernel in finding.kernels.items() if kernel)
        table.add_row(
            finding.framework, state, finding.version or "-", ", ".join(finding.devices) or "-", kernels or "-"
        )
    print(
        f"Python {here['python']}, {here['cores']} cores{f' with {simd}' if (simd := here['simd']) else ''}, "
        f"{here['memory_gib']} GiB of memory ({here['memory_free_gib']} free)"
    )
    absent = [
        finding.framework for finding in findings if finding.state == MISSING and finding.framework in here["no_wheels"]
    ]
    if absent:
        print(f"There are no wheels of {' and '.join(absent)} for this Python: `polymae env add {' '.join(absent)}`.")
    if here["memory_gib"] < BASE_SIZE_GIB:
        print(f"Base-size models take about {BASE_SIZE_GIB} GiB; here, use mae_vit_tiny_patch16 or smaller ones.")
    Console(highlight=False).print(table)
    for finding in findings:
        if finding.state != WORKS:
            print(f"{finding.framework}: {finding.problem}\n  To mend it: {finding.fix}")
        elif finding.notice:
            print(finding.notice)
        if finding.python != sys.executable:
            print(f"{finding.framework} runs in {finding.python}")
