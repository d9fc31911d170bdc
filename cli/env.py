"""`polymae env`: environments for frameworks that cannot be installed beside this Python."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..backends import FRAMEWORKS
from ..files.errors import Problem
from .options import actions_of

_CHOICES = [name for name in FRAMEWORKS if name != "numpy"]  # NumPy's backend runs wherever PolyMAE does


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae env` and of its actions."""
    action = actions_of(parser, "env")
    adding = action("add", _add, "make an environment for a framework with uv, try it, and remember it")
    adding.add_argument("names", metavar="framework", nargs="+", choices=_CHOICES, help=", ".join(_CHOICES))
    using = action(
        "use", _use, "remember an interpreter that is there already, once it has computed with the framework"
    )
    using.add_argument("name", metavar="framework", choices=_CHOICES, help=", ".join(_CHOICES))
    using.add_argument("python", help="its path, such as ENVIRONMENT/bin/python; PolyMAE must be installed there")
    listing = action("list", _list, "list what is remembered")
    listing.add_argument("--json", action="store_true", help="machine-readable output")
    path = action("path", _path, "print the interpreter of a framework, and nothing else on stdout")
    path.add_argument("name", metavar="framework", choices=_CHOICES, help=", ".join(_CHOICES))
    removing = action("remove", _remove, "forget an interpreter, and remove the environment where `env add` made it")
    removing.add_argument("names", metavar="framework", nargs="+", choices=_CHOICES, help=", ".join(_CHOICES))


def run(args: argparse.Namespace) -> int:
    """Do the chosen action and return 0."""
    return int(args.work(args))


def _add(args: argparse.Namespace) -> int:
    from ..compare.record.venvs import make

    for name in dict.fromkeys(args.names):
        _tell(name, make(name))
    return 0


def _use(args: argparse.Namespace) -> int:
    from ..compare.record.venvs import use

    _tell(args.name, use(args.name, args.python))
    return 0


def _tell(name: str, python: str) -> None:
    from ..backends.installing import installed

    print(f"{name} computes in {python}", flush=True)
    if installed(name):
        print(
            f"It is installed here, too, which comes first: `polymae compare --python {name}={python}` runs it there."
        )


def _list(args: argparse.Namespace) -> int:
    from ..backends.interpreters import home, remembered

    known = remembered()
    if args.json:
        print(json.dumps({"home": str(home()), "interpreters": known}, indent=2))
        return 0
    for name, python in known.items():
        print(f"{name:<10} {python}{'' if Path(python).exists() else '  (it is not there any more)'}")
    if not known:
        print("No environment is remembered: every framework is looked for in this one.", file=sys.stderr)
    return 0


def _path(args: argparse.Namespace) -> int:
    from ..backends.interpreters import remembered

    known = remembered()
    if args.name not in known:
        raise Problem(f"No environment is known for {args.name}; `polymae env add {args.name}` makes one.")
    print(known[args.name])
    return 0


def _remove(args: argparse.Namespace) -> int:
    from ..compare.record.venvs import forget

    for name in dict.fromkeys(args.names):
        for path in forget(name):
            print(f"removed {path}")
        print(f"{name} is looked for in this environment again")
    return 0
