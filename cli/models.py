"""`polymae models`: the named models, their sizes and their kinds."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from ..backends.config import MAEConfig
from ..backends.presets import ALIASES, NAMED
from ..backends.spec import params


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae models`."""
    parser.add_argument("--json", action="store_true", help="machine-readable output with every setting")


def run(args: argparse.Namespace) -> int:
    """Print the table and return 0."""
    rows: list[dict[str, Any]] = []
    for name, config in NAMED.items():
        listed = params(config)
        rows.append(
            {
                "name": name,
                "aliases": [alias for alias, target in ALIASES.items() if target == name],
                "kind": "autoencoder" if isinstance(config, MAEConfig) else "classifier",
                "tensors": len(listed),
                "values": sum(param.size for param in listed),
                "config": asdict(config),
            }
        )
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    print(f"{'model':<30}{'kind':<13}{'tensors':>8}{'values':>13}  also called")
    for row in rows:
        print(f"{row['name']:<30}{row['kind']:<13}{row['tensors']:>8}{row['values']:>13,}  {', '.join(row['aliases'])}")
    return 0
