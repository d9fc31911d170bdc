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
    from rich.console import Console
    from rich.table import Table

    from ..compare.profile import notable, profile, remember

    rows = profile(chosen(args.frameworks, FRAMEWORKS, "framework"), args.model, args.device)
    table = Table(title=f"Error that each operation adds by itself, in units of roundoff ({args.model}, {args.device})")
    operations = list(dict.fromkeys(row["operation"] for row in rows))
    for column in ("framework", "version", *operations):
        table.add_column(column)
    for framework in dict.fromkeys(row["framework"] for row in rows):
        own = {row["operation"]: row for row in rows if row["framework"] == framework}
        cells = [f"[red]{row['error']}[/]" if notable([row]) else str(row["error"]) for row in own.values()]
        table.add_row(framework, next(iter(own.values()))["version"], *cells)
    Console().print(table)
    if args.remember:
        remember(rows)
    return 0
