"""`polymae record`: run one framework and write a trace."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..backends import DEVICES, FRAMEWORKS
from ..compare import LEVELS, OF_ONE_RUN
from ..files.errors import Problem
from .choices import chosen, whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae record`."""
    parser.add_argument("--framework", required=True, choices=FRAMEWORKS)
    parser.add_argument(
        "--inputs", required=True, type=Path, help=".npz with imgs [N,C,H,W] and noise [N,L] or labels [N]"
    )
    parser.add_argument("--out", required=True, type=Path, help="the trace to write, .npz")
    parser.add_argument(
        "--weights",
        help="checkpoint of any framework, or a published one by name (default: initial weights from --seed)",
    )
    parser.add_argument("-m", "--model", help="preset, JSON file or img_size=...,... (default: from the file's shapes)")
    parser.add_argument("--device", default="cpu", choices=DEVICES)
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64", "bfloat16"))
    parser.add_argument("--mask-ratio", type=float, default=0.75)
    parser.add_argument("--norm-pix-loss", action="store_true", help="train on patches normalised one by one")
    parser.add_argument(
        "--level",
        default=",".join(OF_ONE_RUN),
        help=f"comma-separated, of {', '.join(LEVELS)}, or all (default: %(default)s)",
    )
    parser.add_argument(
        "--gradients", action="store_true", help="also the level gradients: of the loss, for every parameter"
    )
    parser.add_argument(
        "--taps",
        nargs="+",
        metavar="PATTERN",
        help="write only these tensors: 'blocks.*' 'grad/blocks.0.*' loss (of every level at least one)",
    )
    parser.add_argument(
        "--images",
        type=Path,
        nargs="+",
        default=(),
        metavar="IMAGE",
        help="of the level inputs, which starts from the JPEG",
    )
    parser.add_argument(
        "--allow-tf32", action="store_true", help="let a GPU round what it multiplies to TF32 (an Ascend: HF32)"
    )
    parser.add_argument(
        "--threads", type=whole(1), default=1, help="of each framework (default 1: one order of summation)"
    )
    parser.add_argument("--seed", type=whole(0, 2**32 - 1), default=0)
    parser.add_argument(
        "--twin", type=whole(0, 2**32 - 1), metavar="SEED", help="NumPy: sum matrix products in a random order"
    )
    parser.add_argument(
        "--kernel-noise", metavar="OPERATION=SIZE,...", help="NumPy: relative noise behind operations, in u"
    )
    parser.add_argument("--fault", help="plant a named fault, to see it caught")


def run(args: argparse.Namespace) -> int:
    """Record and return 0."""
    from ..backends.interpreters import interpreter
    from ..compare.recording.record import Run, record
    from ..compare.recording.worker import record_in_process
    from ..hub.resolve import local

    args.weights = args.weights and local(args.weights)
    levels = chosen(args.level, LEVELS, "level")
    if args.gradients:
        levels = tuple(level for level in LEVELS if level in (*levels, "gradients"))
    fields = {name: value for name, value in vars(args).items() if name in Run.__dataclass_fields__}
    recorded = Run(**fields | {"levels": levels, "images": tuple(args.images), "taps": args.taps and tuple(args.taps)})
    if (python := interpreter(args.framework)) == sys.executable:
        record(recorded)
    elif (outcome := record_in_process(recorded, python)).trace is None:
        raise Problem(outcome.reason)
    print(f"wrote {args.out}: {args.framework} {args.dtype}, {', '.join(levels)}")
    return 0
