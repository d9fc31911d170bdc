"""`polymae dialects`: the spellings of checkpoints that are known."""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae dialects`."""
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(args: argparse.Namespace) -> int:
    """Print a row for each dialect and return 0."""
    from ..convert.dialects import DIALECTS

    rows = [
        {
            "name": d.name,
            "title": d.title,
            "holds": list(d.spellings),
            "detected": not d.explicit,
            "notes": dict(d.notes),
        }
        for d in DIALECTS.values()
    ]
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    width = max(len(name) for name in DIALECTS)
    for row in rows:
        holds = ", ".join(map(str, row["holds"]))  # type: ignore[call-overload]
        print(f"{row['name']:<{width}}  {row['title']} ({holds}){'' if row['detected'] else '; must be asked for'}")
    return 0
