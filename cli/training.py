"""What the commands of training share: pretrain, finetune, linprobe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..backends import DEVICES, FRAMEWORKS
from ..files.arguments import whole
from ..files.errors import Problem

if TYPE_CHECKING:
    from ..training.recipe import Common
    from ..training.request import Outcome, Request

SAVED = 75  # the status of a run that a signal ended after it was saved (sysexits.h: try again)


def add_training_arguments(parser: argparse.ArgumentParser, recipe: str, weights: str) -> None:
    """The arguments of every task. recipe: the name of the usual one. weights: the help of --weights."""
    parser.add_argument("--framework", choices=FRAMEWORKS, help="which of them (with --resume: that of the run)")
    parser.add_argument(
        "--data", type=Path, help="folder of images, list, .tar, .parquet or .npz (with --resume: the run's)"
    )
    parser.add_argument("--out", type=Path, help="the run's folder (with --resume: that of the run)")
    parser.add_argument("--recipe", help=f"name (`polymae recipes`) or YAML file (default: {recipe})")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="settings of the recipe: epochs=100"
    )
    parser.add_argument("--weights", help=weights)
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on from a run, or a checkpoint in it")
    parser.add_argument("--accept-changes", action="store_true", help="go on although recipe or data differ")
    parser.add_argument("--data-format", help="of the images: folder, tree, flat, list, tar, parquet, npz")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where (default: cpu)")
    parser.add_argument("--threads", type=whole(1), help="of the framework (default: its own)")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def add_classifier_arguments(parser: argparse.ArgumentParser, recipe: str, weights: str) -> None:
    """The same of the tasks that train a classifier."""
    add_training_arguments(parser, recipe, weights)
    parser.add_argument("--eval-data", type=Path, help="images to measure on (default: the val part of --data)")


def train(args: argparse.Namespace, kind: type[Common]) -> int:
    """Train, print the outcome, and return 0; 75 where a signal ended the run after it was saved. kind: the task."""
    from ..training.loop import run_request

    request = requested(args, kind)
    if args.is_program:
        in_fitting_process(request.framework, request.threads)
    return tell(run_request(request, show=True), kind.task, args.json)


def tell(outcome: Outcome, task: str, as_json: bool) -> int:
    """Print how a run ended, and return its status."""
    import json

    if as_json:
        told = {
            "step": outcome.step,
            "loss": outcome.loss,
            "stopped": outcome.stopped,
            "checkpoint": str(outcome.checkpoint),
        }
        print(json.dumps(told if outcome.score is None else told | {"top1": outcome.score}))
    else:
        print(_in_a_line(outcome, task))
    if outcome.stopped == "SIGINT":
        return 130
    return SAVED if outcome.stopped else 0


def _in_a_line(outcome: Outcome, task: str) -> str:
    if outcome.stopped:
        run = outcome.checkpoint.parent.parent
        return f"{outcome.stopped}: saved after step {outcome.step}. To go on: polymae {task} --resume {run}"
    loss = "" if outcome.loss is None else f", loss {outcome.loss:.4f}"
    score = "" if outcome.score is None else f", top-1 {outcome.score:.2f} %"
    return f"{outcome.step} steps{loss}{score}: {outcome.checkpoint}"


def in_fitting_process(framework: str, threads: int | None) -> None:
    """Begin anew where the framework runs in another interpreter, or kernels or threads are chosen when libraries are loaded."""
    import os
    import sys

    from ..backends.blas import thread_variables, variables
    from ..backends.interpreters import interpreter

    wanted = variables(framework)
    if threads:
        wanted |= thread_variables(threads)
    python = interpreter(framework)
    if python != sys.executable or any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(python, [python, "-m", "polymae", *sys.argv[1:]], os.environ | wanted)


def requested(args: argparse.Namespace, kind: type[Common]) -> Request:
    """The request that the arguments make, with what a resumed run knows filled in. Raises Problem."""
    from ..hub.resolve import local
    from ..training.reading import read_recipe
    from ..training.request import Request, resumed

    settings = [*args.set, *([f"data_format={args.data_format}"] if args.data_format else [])]
    eval_data = getattr(args, "eval_data", None)
    if args.resume is not None:
        if args.weights:
            raise Problem("--weights begins a run and --resume goes on with one; leave one of them out.")
        return resumed(
            args.resume, settings, recipe=args.recipe, framework=args.framework, data=args.data, out=args.out, kind=kind,
            changed=args.accept_changes, device=args.device, threads=args.threads, eval_data=eval_data,
        )  # fmt: skip
    missing = [f"--{name}" for name in ("framework", "data", "out") if getattr(args, name) is None]
    if missing:
        raise Problem(
            f"{', '.join(missing)} must be given: polymae {kind.task} --framework torch --data FOLDER --out RUN."
        )
    weights = Path(local(args.weights)) if args.weights else None
    recipe = read_recipe(args.recipe or kind.usual, settings, kind)
    return Request(
        args.framework,
        args.data,
        args.out,
        recipe,
        weights,
        device=args.device,
        threads=args.threads,
        eval_data=eval_data,
    )
