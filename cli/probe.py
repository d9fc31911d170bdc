"""`polymae probe`: a checkpoint whose elements are their own number, and the check of its conversion."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from ..files.errors import Problem
from .diff import print_some


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae probe`."""
    parser.add_argument(
        "--check", metavar="FILE", help="say whether every element of a converted probe is in its place"
    )
    parser.add_argument("--dialect", "--from", metavar="DIALECT", help="whose names and layouts (`polymae dialects`)")
    parser.add_argument("--format", metavar="FORMAT", help="the file format to write")
    parser.add_argument("-o", "--output", metavar="PATH", help="where to write")
    parser.add_argument("-m", "--model", help="of which model (as convert_weights; default: a small one)")
    parser.add_argument(
        "--contents", choices=("mae", "encoder", "classifier", "headless", "probe"), help="which kind of file"
    )
    parser.add_argument(
        "--part", choices=("low", "high"), default="low",
        help="of the elements' numbers: modulo 2^24, or divided by it, for models of more elements (default: low)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="machine-readable output, with every tensor")


def run(args: argparse.Namespace) -> int:
    """Write or check a probe; return 0, or 1 where elements are not in their places."""
    if args.check is not None:
        return _check(args)
    required = {"--dialect": args.dialect, "--format": args.format, "-o": args.output}
    absent = [name for name, value in required.items() if value is None]
    if absent:
        raise Problem(
            f"To write a probe, {', '.join(absent)} must be given too; --check FILE checks one.", code="bad-argument"
        )
    from ..convert.identify import dialect_named
    from ..convert.probe import parts_of, write_probe
    from ..convert.targets import format_for

    output = Path(args.output)
    format_for(args.format, output, args.format)
    row = dialect_named(args.dialect)
    weights = write_probe(args.dialect, args.format, output, args.model, args.contents, args.part)
    count = sum(tensor.nbytes // 4 for tensor in weights.tensors.values())
    if args.json:
        facts = {"file": str(output), "dialect": row.name, "contents": weights.contents}
        print(json.dumps({**facts, "tensors": len(weights.tensors), "elements": count}, indent=2))
        return 0
    print(f"wrote  {output}: {row.title}, {weights.contents}, {len(weights.tensors)} tensors, {count:,} elements")
    if len(parts_of(weights.config)) > 1:
        print(f"note   this is the part {args.part}; with the other (--part) every element is told apart")
    return 0


def _check(args: argparse.Namespace) -> int:
    from ..convert.probe import check

    count, wrong = check(args.check, args.model, args.dialect, args.part)
    if args.json:
        print(json.dumps({"elements": count, "differences": [asdict(one) for one in wrong]}, indent=2))
        return int(bool(wrong))
    if not wrong:
        print(f"every one of {count:,} elements is in its place")
        return 0
    print(f"{len(wrong)} tensors are not as they must be (A: the probe, B: {args.check})")
    print_some([f"{one.name}: {one.said}" for one in wrong])
    return 1
