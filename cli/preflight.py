"""`polymae preflight`: prove in minutes that a training will be right, before it takes days."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from ..backends import DEVICES, FRAMEWORKS
from ..compare.preflight.names import CHECKS
from ..files.arguments import above_zero, read_names, whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae preflight`."""
    parser.add_argument("--framework", choices=FRAMEWORKS, required=True, help="which of them")
    parser.add_argument("--data", type=Path, required=True, help="folder of images, list, .tar, .parquet or .npz")
    parser.add_argument("--recipe", help="name (`polymae recipes`) or YAML file (default: official-base)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="settings of the recipe: epochs=100"
    )
    parser.add_argument("--only", metavar="CHECK,...", help=f"some of {', '.join(CHECKS)} (default: all)")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where (default: cpu)")
    parser.add_argument("--threads", type=whole(1), help="of the framework (default: one for each core)")
    parser.add_argument(
        "--seconds", type=above_zero, default=60.0, help="that measuring speed and memory may take (default: 60)"
    )
    parser.add_argument("--python", metavar="PATH", help="interpreter that runs the framework")
    parser.add_argument("--out", type=Path, help="folder for preflight.html and preflight.json")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def run(args: argparse.Namespace) -> int:
    """Try it, print the checks, and return 0, 1 where one failed, 2 where one could not run."""
    import json

    from ..compare.preflight.page import print_preflight, require_page, write_files
    from ..compare.preflight.running import Flight, preflight
    from ..training.reading import read_recipe

    names = partial(read_names, known=CHECKS, kind="check")
    flight = Flight(
        args.framework, args.data, read_recipe(args.recipe or "official-base", args.set), args.recipe or "official-base",
        device=args.device, threads=args.threads, wanted=names(args.only or "all"), seconds=args.seconds, python=args.python,
    )  # fmt: skip
    if args.out is not None:
        require_page(args.out)
    result = preflight(flight)
    written = write_files(result, args.out) if args.out is not None else []
    if args.json:
        print(json.dumps(result.as_dict(), indent=1))
    else:
        print_preflight(result, written)
    return result.exit_status
