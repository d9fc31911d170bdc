"""`polymae pretrain`: pre-train a masked autoencoder in any framework."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..backends import DEVICES, FRAMEWORKS
from ..files.arguments import whole
from ..files.errors import Problem

if TYPE_CHECKING:
    from ..training.pretrain import Request

SAVED = 75  # the status of a run that a signal ended after it was saved (sysexits.h: try again)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae pretrain`."""
    parser.add_argument("--framework", choices=FRAMEWORKS, help="which of them (with --resume: that of the run)")
    parser.add_argument(
        "--data", type=Path, help="folder of images, list, .tar, .parquet or .npz (with --resume: the run's)"
    )
    parser.add_argument("--out", type=Path, help="the run's folder (with --resume: that of the run)")
    parser.add_argument("--recipe", help="name (`polymae recipes`) or YAML file (default: official-base)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="settings of the recipe: epochs=100"
    )
    parser.add_argument("--weights", help="checkpoint of any framework to begin with, or a published one by name")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on from a run, or a checkpoint in it")
    parser.add_argument("--accept-changes", action="store_true", help="go on although recipe or data differ")
    parser.add_argument("--data-format", help="of the images: folder, tree, flat, list, tar, parquet, npz")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where (default: cpu)")
    parser.add_argument("--threads", type=whole(1), help="of the framework (default: its own)")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def run(args: argparse.Namespace) -> int:
    """Train, print the outcome, and return 0; 75 where a signal ended the run after it was saved."""
    import json

    from ..training.pretrain import run_request

    request = requested(args)
    if args.is_program:
        _in_fitting_process(request)
    outcome = run_request(request, show=True)
    if args.json:
        facts = {
            "step": outcome.step,
            "loss": outcome.loss,
            "stopped": outcome.stopped,
            "checkpoint": str(outcome.checkpoint),
        }
        print(json.dumps(facts))
    elif outcome.stopped:
        run = outcome.checkpoint.parent.parent
        print(f"{outcome.stopped}: saved after step {outcome.step}. To go on: polymae pretrain --resume {run}")
    else:
        loss = "" if outcome.loss is None else f", loss {outcome.loss:.4f}"
        print(f"{outcome.step} steps{loss}: {outcome.checkpoint}")
    if outcome.stopped == "SIGINT":
        return 130
    return SAVED if outcome.stopped else 0


def _in_fitting_process(request: Request) -> None:
    """Begin anew where the framework runs in another interpreter, or kernels or threads are chosen when libraries are loaded."""
    import os
    import sys

    from ..backends.blas import thread_variables, variables
    from ..backends.interpreters import interpreter

    wanted = variables(request.framework)
    if request.threads:
        wanted |= thread_variables(request.threads)
    python = interpreter(request.framework)
    if python != sys.executable or any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(python, [python, "-m", "polymae", *sys.argv[1:]], os.environ | wanted)


def requested(args: argparse.Namespace) -> Request:
    """The request that the arguments make, completed from the run that is resumed. Raises Problem."""
    from ..hub.resolve import local
    from ..training.pretrain import Request, resumed
    from ..training.reading import read_recipe

    settings = [*args.set, *([f"data_format={args.data_format}"] if args.data_format else [])]
    if args.resume is not None:
        if args.weights:
            raise Problem("--weights begins a run and --resume goes on with one; leave one of them out.")
        return resumed(
            args.resume, settings, recipe=args.recipe, framework=args.framework, data=args.data, out=args.out,
            changed=args.accept_changes, device=args.device, threads=args.threads,
        )  # fmt: skip
    missing = [f"--{name}" for name in ("framework", "data", "out") if getattr(args, name) is None]
    if missing:
        raise Problem(
            f"{', '.join(missing)} must be given: polymae pretrain --framework torch --data FOLDER --out RUN."
        )
    weights = Path(local(args.weights)) if args.weights else None
    recipe = read_recipe(args.recipe or "official-base", settings)
    return Request(args.framework, args.data, args.out, recipe, weights, device=args.device, threads=args.threads)
