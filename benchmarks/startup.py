"""How soon a command answers: its help, and what needs no framework.

    .venv/bin/python benchmarks/startup.py --out docs/benchmarks/startup.md

Every measurement is a process of its own; the commands take turns, and the fastest of the repetitions counts: what other work
on the machine adds is not the command's. Exit status 1 where a help text takes longer than LIMIT. Why it does not is tested
without a clock (tests/project/test_imports.py): nothing is imported for it but Python's own modules.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

from polymae.cli import COMMANDS
from polymae.compare.record.environment import processor

LIMIT = 0.3  # seconds for a help text
_POLYMAE, _CONVERT = ["-m", "polymae"], ["-m", "polymae.cli.convert_weights"]
HELPS = {
    "polymae --help": [*_POLYMAE, "--help"],
    "convert_weights --help": [*_CONVERT, "--help"],
    "convert_weights megengine --help": [*_CONVERT, "megengine", "--help"],
    **{f"polymae {name} --help": [*_POLYMAE, name, "--help"] for name in COMMANDS},
}
OTHERS = {
    "python -c pass": ["-c", "pass"],
    "python -c 'import numpy'": ["-c", "import numpy"],
    "polymae models": [*_POLYMAE, "models"],
    "polymae dialects": [*_POLYMAE, "dialects"],
    "polymae weights list": [*_POLYMAE, "weights", "list"],
}


def seconds(arguments: list[str]) -> float:
    """Seconds from the start of a Python with these arguments to its end."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    passed = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"python {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return passed


def main() -> None:
    """Measure and print; write the table to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    args = parser.parse_args()
    commands = OTHERS | HELPS
    measured: dict[str, list[float]] = {name: [] for name in commands}
    for arguments in commands.values():  # has the files in memory
        seconds(arguments)
    for _ in range(args.repetitions):
        for name, arguments in commands.items():
            measured[name].append(seconds(arguments))
    rows = [f"| `{name}` | {min(took):.3f} | {median(took):.3f} | {max(took):.3f} |" for name, took in measured.items()]
    text = (
        f"# How soon a command answers\n\nMeasured by `benchmarks/startup.py` ({args.repetitions} repetitions, taking turns) on "
        f"{processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release().split('-')[0]}, files in the page "
        f"cache. Python {platform.python_version()}, numpy {version('numpy')}. The fastest counts: the others show what else the "
        "machine did.\n\n| | fastest, s | median, s | slowest, s |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text)
    if late := [name for name in HELPS if min(measured[name]) > LIMIT]:
        raise SystemExit(f"More than {LIMIT} s: {', '.join(late)}.")


if __name__ == "__main__":
    main()
