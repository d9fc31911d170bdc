"""`polymae runs`: runs of training beside each other, or beside the reference of a recipe."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .options import actions_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae runs` and of its actions."""
    action = actions_of(parser, "runs")
    compare = action(
        "compare", _compare, "say whether runs are the same within roundoff, and from which step they part"
    )
    compare.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="folder that `polymae pretrain --out` made")
    compare.add_argument(
        "--reference", metavar="NAME", help="judge each by a reference (small-cpu, or a file), and not by the first"
    )
    compare.add_argument("--out", type=Path, help="folder for runs.html and runs.json")
    compare.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Run the action and return its status."""
    return int(args.work(args))


def _compare(args: argparse.Namespace) -> int:
    from ..compare.runs.compare import compare_runs
    from ..compare.runs.page import write_files
    from ..compare.runs.reference import read_reference
    from ..compare.runs.terminal import print_runs
    from ..compare.trace import require_folder

    reference = read_reference(args.reference) if args.reference else None
    if args.out:
        require_folder(args.out)
    comparison, read = compare_runs(args.runs, reference)
    written: list[Path] = []
    if args.out:
        written, lacking = write_files(comparison, read, args.out, reference)
        if lacking:
            print(lacking, file=sys.stderr)
    if args.json:
        print(comparison.as_json(), end="")
    else:
        print_runs(comparison, written)
    return comparison.exit_status
