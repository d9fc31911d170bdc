"""`polymae profile`: measure how accurate each framework's kernels are."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from ..backends import DEVICES, FRAMEWORKS
from ..files.arguments import read_names
from ..files.errors import Problem

MODEL = "mae_vit_base_patch16"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae profile`."""
    parser.add_argument(
        "--frameworks", default="all", help=f"comma-separated, of {', '.join(FRAMEWORKS)} (default: all)"
    )
    parser.add_argument("-m", "--model", help=f"whose tensors to measure on (default: {MODEL})")
    parser.add_argument("--device", choices=DEVICES, help="where (default: cpu)")
    parser.add_argument(
        "--operations",
        nargs="?",
        const="all",
        metavar="NAMES",
        help="measure the operations that people build networks of instead, on inputs of their own: all, or comma-separated",
    )
    parser.add_argument(
        "--settings",
        action="store_true",
        help="with --operations: again under each setting by which libraries choose their kernels (ten times as long)",
    )
    parser.add_argument("--out", type=Path, help="with --operations: write the table, in Markdown")
    parser.add_argument(
        "--remember",
        action="store_true",
        help="keep the inaccurate kernels in compare/judge/kernels.json, with --operations in operations.json",
    )


def run(args: argparse.Namespace) -> int:
    """Print the table and return 0."""
    if args.operations is not None:
        return _operations(args)
    for option in ("settings", "out"):
        if getattr(args, option):
            raise Problem(f"--{option} is for --operations; add that, or leave out --{option}.")
    from ..compare.profile import NOTABLE, notable, profile, remember
    from ..compare.report.terminal import terminal_printer

    model, device = args.model or MODEL, args.device or "cpu"
    rows = profile(read_names(args.frameworks, FRAMEWORKS, "framework"), model, device)
    frameworks = list(dict.fromkeys(row["framework"] for row in rows))
    by_place = {(row["framework"], row["operation"]): row for row in rows}
    table = []  # an operation in every line: there are more of them than fit beside each other
    for operation in dict.fromkeys(row["operation"] for row in rows):
        of_operation = [by_place.get((framework, operation)) for framework in frameworks]
        cells = ["-" if row is None else f"{row['error']}{' *' if notable([row]) else ''}" for row in of_operation]
        table.append([operation, *cells])
    printer = terminal_printer()
    title = f"error that each operation adds by itself, in units of roundoff ({model}, {device})"
    versions = {row["framework"]: row["version"] for row in rows}
    printer.table(title, ("operation", *(f"{name} {versions[name]}" for name in frameworks)), table)
    printer.words("", f"*: more than {NOTABLE:g} times that of NumPy's float32")
    if args.remember:
        remember(rows)
    return 0


def _operations(args: argparse.Namespace) -> int:
    """Measure operations, print every framework's largest errors, and write and remember them where asked."""
    from ..backends.operations import OPERATIONS
    from ..compare.operations.measure import LEAST
    from ..compare.operations.profile import profile_operations
    from ..compare.operations.rows import judged, remember
    from ..compare.operations.settings import fitting
    from ..compare.operations.table import markdown, matrix
    from ..compare.profile import NOTABLE
    from ..compare.report.terminal import terminal_printer

    if args.model is not None:
        raise Problem("--model has no meaning with --operations, whose inputs are their own; leave out --model.")
    if args.device not in (None, "cpu"):
        raise Problem(f"--operations measures on a CPU, not on {args.device}; leave out --device.")
    if args.remember and not args.settings:
        raise Problem("--remember keeps what an error depends on, too: add --settings, which measures that.")
    if args.out and not args.out.parent.is_dir():
        raise Problem(f"{args.out.parent} is no folder; make it, or give --out another path.")
    names = [name for name in FRAMEWORKS if name != "numpy"]
    frameworks = read_names(args.frameworks, names, "framework with operations")
    operations = read_names(args.operations, tuple(OPERATIONS), "operation")
    settings = fitting() if args.settings else []
    profile = profile_operations(
        frameworks, operations, settings, lambda line: print(line, file=sys.stderr, flush=True)
    )
    judgement = judged(profile)
    printer = terminal_printer()
    shown, table = matrix(profile, judgement)
    versions = [f"{name} {profile.environments[name]['version']}" for name in shown]
    printer.table("largest error of each operation, in units of roundoff (cpu)", ("operation", *versions), table)
    printer.words(
        "", f"*: more than {LEAST:g} u, and more than {NOTABLE:g} times that of NumPy's and PyTorch's float32"
    )
    for row in judgement.wrong:
        operation = f"{row['operation']}{' of ' + row['of'] if 'of' in row else ''} ({row['inputs']})"
        printer.words("", f"wrong, not remembered: {row['framework']} {row['version']}, {operation}: {row['why']}")
    if args.out:
        args.out.write_text(markdown(profile, judgement, f"polymae {shlex.join(sys.argv[1:])}"))
    if args.remember:
        remember(judgement, profile)
    return 0
