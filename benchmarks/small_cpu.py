"""The recipe small-cpu in every framework: how long it takes, and whether each run is the reference's.

    .venv/bin/python benchmarks/small_cpu.py --data mnist-10k --out docs/benchmarks/small-cpu.md

The command that the README shows, one framework after the other, with the same number of threads; then `polymae runs compare
--reference small-cpu` judges the runs. Exit status 1 where one is not the reference's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from polymae.backends import FRAMEWORKS
from polymae.backends.blas import thread_variables
from polymae.compare.record.environment import processor


def lines(path: Path) -> list[dict[str, float]]:
    """The JSON lines of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def main() -> int:
    """Train, judge, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="mnist-10k")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frameworks", nargs="+", default=list(FRAMEWORKS), choices=FRAMEWORKS)
    parser.add_argument("--runs", type=Path, help="folder in which the runs stay")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows, versions = [], {}
    with tempfile.TemporaryDirectory() as place:
        folder = args.runs or Path(place)
        runs = [folder / name for name in args.frameworks]
        for run in runs:
            began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                [sys.executable, "-m", "polymae", "pretrain", "--framework", run.name, "--data", args.data, "--out", str(run),
                 "--recipe", "small-cpu", "--threads", str(args.threads)],
                check=True, stdout=subprocess.DEVNULL, env=os.environ | thread_variables(args.threads),
            )  # fmt: skip
            wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
            log, state = lines(run / "log.txt"), json.loads((run / "checkpoints/last/state.json").read_text())
            versions[run.name] = state["versions"][run.name]
            waiting = sum(line["waiting_for_data"] for line in log) / len(log)
            rows.append(
                f"| {run.name} {versions[run.name]} | {wall:.0f} s | {cpu:.0f} s | {log[-1]['train_loss']:.4f} "
                f"| {log[-1]['knn_top1']:.1f} % | {waiting:.2%} |"
            )
            print(rows[-1], file=sys.stderr, flush=True)
        judged = subprocess.run(
            [sys.executable, "-m", "polymae", "runs", "compare", *map(str, runs), "--reference", "small-cpu"],
            stdout=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "120"},
        )  # fmt: skip
    head = [
        "# small-cpu in every framework",
        "",
        "Written by `benchmarks/small_cpu.py`: 744 steps of 128 digits, the README's command.",
        "",
        f"Machine: {processor()}, {args.threads} thread{'s' if args.threads > 1 else ''} for each framework.",
        "",
        "| framework | time | processor | loss of the last epoch | kNN after it | waiting for data |",
        "|---|---|---|---|---|---|",
    ]
    text = "\n".join([*head, *rows, "", "```", judged.stdout.strip(), "```"]) + "\n"
    if args.out:
        args.out.write_text(text)
    print(text, end="")
    return judged.returncode


if __name__ == "__main__":
    raise SystemExit(main())
