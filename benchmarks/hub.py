"""How long hub.list takes beyond the framework's own import, in each framework's hub.

    .venv/bin/python benchmarks/hub.py --out docs/benchmarks/hub.md

Every measurement is a process of its own; the hubs take turns, and the median of the repetitions counts. The repository lies in
the hub's cache, as after a first download, so no network is used.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median

from polymae.compare.record.environment import processor

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 1.0  # seconds that hub.list may take beyond the import
# By framework: what its user imports, and its list. mindspore_hub lists what is on its server; ours is mindspore_hub_conf.py's.
HUBS = {
    "torch": ("import torch.hub", "torch.hub.list('someone/polymae:main', trust_repo=True, verbose=False)"),
    "megengine": ("import megengine.hub", "megengine.hub.list('someone/polymae:main')"),
    "mindspore": ("import mindspore, runpy", "runpy.run_path({root!r} + '/mindspore_hub_conf.py')['list_models']()"),
    "oneflow": ("import oneflow.hub", "oneflow.hub.list('someone/polymae:main', trust_repo=True)"),
}
_TIMED = """
import json, sys, time
started = time.perf_counter()
{imports}
imported = time.perf_counter()
if {new!r}:
    sys.pycache_prefix = {new!r}  # an empty folder: nothing of ours is compiled yet
before = time.perf_counter()
names = {work}
print(json.dumps([imported - started, time.perf_counter() - before, len(names)]))
"""


@dataclass
class Times:
    """Seconds of one hub's repetitions: the framework's import, hub.list, and hub.list where nothing is compiled yet."""

    imports: list[float] = field(default_factory=list)
    lists: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    names: int = 0


def caches(folder: Path) -> dict[str, str]:
    """The repository in each hub's cache, as someone/polymae:main, and the environment that has it looked for there."""
    megengine = hashlib.sha1(b"someone_polymae_main").hexdigest()[:16]
    places = {
        "TORCH_HOME": "someone_polymae_main", "ONEFLOW_HOME": "someone_polymae_main",
        "MGE_HOME": f"{version('megengine').replace('.', '_')}_{megengine}",
    }  # fmt: skip
    for home, name in places.items():
        (folder / home / "hub").mkdir(parents=True)
        (folder / home / "hub" / name).symlink_to(ROOT)
    return {home: str(folder / home) for home in places}


def measure(framework: str, environment: dict[str, str], new: str) -> tuple[float, float, int]:
    """Seconds of the framework's import and of hub.list in a new process, and how many names it gives."""
    imports, work = HUBS[framework]
    script = _TIMED.format(imports=imports, work=work.format(root=str(ROOT)), new=new)
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, cwd=environment["HOME"]
    )
    if done.returncode:
        raise SystemExit(f"{framework} failed:\n{done.stderr[-2000:]}")
    seconds, listed, names = json.loads(done.stdout.splitlines()[-1])
    return seconds, listed, names


def table(measured: dict[str, Times]) -> str:
    """The measurements as a Markdown table."""
    lines = [
        "| hub | names | import of the framework, s | hub.list beyond it, s | slowest | right after a download, s | slowest |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {times.names} | {median(times.imports):.2f} | {median(times.lists):.3f} | {max(times.lists):.3f} "
        f"| {median(times.new):.3f} | {max(times.new):.3f} |"
        for name, times in measured.items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print; write the table to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    args = parser.parse_args()
    measured = {framework: Times() for framework in HUBS}
    with tempfile.TemporaryDirectory(prefix="polymae-bench-") as name:
        environment = {**caches(Path(name)), "HOME": name}
        for framework in HUBS:  # compiles what is not yet, and has the files in memory
            measure(framework, environment, "")
        for repetition in range(args.repetitions):
            for framework, times in measured.items():
                seconds, listed, times.names = measure(framework, environment, "")
                times.imports.append(seconds)
                times.lists.append(listed)
                times.new.append(measure(framework, environment, f"{name}/{framework}{repetition}")[1])
    versions = ", ".join(f"{package} {version(package)}" for package in ("numpy", *HUBS))
    text = (
        "# Listing a hub's entries\n\nMeasured by `benchmarks/hub.py` "
        f"({args.repetitions} repetitions, taking turns; the median counts) on {processor()}, {os.cpu_count()} cores, "
        f"{platform.system()} {platform.release().split('-')[0]}, files in the page cache. Python {platform.python_version()}, "
        f"{versions}. Right after a download Python has compiled nothing of PolyMAE yet. For MindSpore, `list_models` of "
        f"mindspore_hub_conf.py.\n\n{table(measured)}"
    )
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text)
    if late := [name for name, times in measured.items() if max(median(times.lists), median(times.new)) > LIMIT]:
        raise SystemExit(f"More than {LIMIT} s: {', '.join(late)}.")


if __name__ == "__main__":
    main()
