"""`polymae profile`: measure how accurate each framework's kernels are."""

from __future__ import annotations

import argparse

from ..backends import DEVICES, FRAMEWORKS
from .choices import chosen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae profile`."""
    parser.add_argument(
        "--frameworks", default="all", help=f"comma-separated, of {', '.join(FRAMEWORKS)} (default: all)"
    )
    parser.add_argument("-m", "--model", default="mae_vit_base_patch16", help="whose tensors to measure on")
    parser.add_argument("--device", default="cpu", choices=DEVICES)
    parser.add_argument(
        "--remember", action="store_true", help="keep the inaccurate kernels in compare/judging/kernels.json"
    )


def run(args: argparse.Namespace) -> int:
    """Print the table and return 0."""
    from ..compare.profile import NOTABLE, notable, profile, remember
    from ..compare.reporting.terminal import terminal_printer

    rows = profile(chosen(args.frameworks, FRAMEWORKS, "framework"), args.model, args.device)
    frameworks = list(dict.fromkeys(row["framework"] for row in rows))
    by_place = {(row["framework"], row["operation"]): row for row in rows}
    table = []  # an operation in every line: there are more of them than fit beside each other
    for operation in dict.fromkeys(row["operation"] for row in rows):
        own = [by_place.get((framework, operation)) for framework in frameworks]
        cells = ["-" if row is None else f"{row['error']}{' *' if notable([row]) else ''}" for row in own]
        table.append([operation, *cells])
    printer = terminal_printer()
    title = f"error that each operation adds by itself, in units of roundoff ({args.model}, {args.device})"
    versions = {row["framework"]: row["version"] for row in rows}
    printer.table(title, ("operation", *(f"{name} {versions[name]}" for name in frameworks)), table)
    printer.words("", f"*: more than {NOTABLE:g} times that of NumPy's float32")
    if args.remember:
        remember(rows)
    return 0
