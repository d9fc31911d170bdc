"""`polymae record`: run one framework and write a trace."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from ..compare.options import LEVELS, Run
from ..files.errors import Problem
from .options import add_options, given_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae record`."""
    add_options(parser, Run)
    parser.add_argument(
        "--gradients", action="store_true", help="also the level gradients: of the loss, for every parameter"
    )


def run(args: argparse.Namespace) -> int:
    """Record and return 0."""
    from ..backends.interpreters import interpreter
    from ..compare.record.child import record_in_process
    from ..compare.record.record import record
    from ..hub.resolve import local

    options = given_options(args, Run)
    if "weights" in options:
        options["weights"] = local(options["weights"])
    run = Run(**options)
    if args.gradients:
        run = replace(run, levels=tuple(level for level in LEVELS if level in (*run.levels, "gradients")))
    if (python := interpreter(run.framework)) == sys.executable:
        record(run)
    elif (outcome := record_in_process(run, python)).trace is None:
        raise Problem(outcome.reason)
    print(f"wrote {run.out}: {run.framework} {run.dtype}, {', '.join(run.levels)}")
    return 0
