"""`polymae recipes`: the named recipes, or every setting of one."""

from __future__ import annotations

import argparse
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae recipes`."""
    parser.add_argument("recipe", nargs="?", help="name or YAML file: show every setting of it, as YAML")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="change settings")


def run(args: argparse.Namespace) -> int:
    """Print."""
    from ..training.reading import as_yaml, named, read_any_recipe

    if args.recipe:
        print(as_yaml(read_any_recipe(args.recipe, args.set), comments=True), end="")
        return 0
    width = max(map(len, named()))
    for name in named():
        recipe: Any = read_any_recipe(name)
        print(f"{name:{width}}  {recipe.task}: {recipe.about}\n{'':{width}}  reaches: {recipe.reaches}")
    return 0
