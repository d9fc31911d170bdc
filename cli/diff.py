"""`polymae diff A B`: whether two checkpoints hold the same weights, and which tensors differ how."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

_LINES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae diff`."""
    parser.add_argument("a", metavar="A", help="a checkpoint of any format and dialect")
    parser.add_argument("b", metavar="B", help="another one")
    parser.add_argument("-m", "--model", help="which model they are, where the files do not tell (as convert_weights)")
    parser.add_argument("--from", "--dialect", dest="source", metavar="DIALECT", help="the spelling of A")
    parser.add_argument("--from-b", metavar="DIALECT", help="the spelling of B")
    parser.add_argument("--json", action="store_true", help="machine-readable output, with every tensor")


def run(args: argparse.Namespace) -> int:
    """Print the differences; return 0 for the same weights and 1 for different ones."""
    from ..convert.difference import compare_files
    from ..hub.resolve import local

    comparison = compare_files(local(args.a), local(args.b), args.model, args.source, args.from_b)
    if args.json:
        facts = {"same": comparison.same, "a": args.a, "b": args.b}
        facts |= {"hashes": comparison.hashes, "tensors": comparison.count}
        print(json.dumps(facts | {"differences": [asdict(one) for one in comparison.differences]}, indent=2))
        return int(not comparison.same)
    print(comparison.summary())
    print_some([f"{one.name}: {one.said}" for one in comparison.differences])
    return int(not comparison.same)


def print_some(lines: list[str]) -> None:
    """Print the first lines, indented, and how many more there are."""
    for line in lines[:_LINES]:
        print(f"  {line}")
    if len(lines) > _LINES:
        print(f"  and {len(lines) - _LINES:,} more (--json lists them all)")
