"""What the commands that use a trained model have in common: the model's options, progress, files of results."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backends import DEVICES, FRAMEWORKS
from ..files.arguments import above_zero, whole

if TYPE_CHECKING:
    from ..training.measured import Asked


def add_model(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """The options of the model that is used."""
    parser.add_argument("--framework", choices=FRAMEWORKS, required=required, help="which of them runs the model")
    parser.add_argument(
        "--weights", required=required, help="checkpoint of any framework, a published one by name, or a run's folder"
    )
    parser.add_argument("-m", "--model", help="the model of the weights, where they do not tell (`polymae models`)")
    parser.add_argument(
        "--image-size", type=whole(1), nargs="+", help="pixels, or height and width; position tables are interpolated"
    )
    parser.add_argument("--mean", type=float, nargs="+", help="of each channel, in [0, 1] (default: ImageNet's)")
    parser.add_argument("--std", type=float, nargs="+", help="of each channel (default: ImageNet's)")
    parser.add_argument(
        "--crop-ratio",
        type=above_zero,
        help="of the resized image's sides, what is kept (default: 224/256, as official)",
    )
    parser.add_argument("--batch-size", type=whole(1), default=64, help="images computed together (default: 64)")
    parser.add_argument("--workers", type=whole(0), default=2, help="threads that read images (default: 2)")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where (default: cpu)")
    parser.add_argument("--threads", type=whole(1), help="of the framework (default: its own)")
    parser.add_argument("--dtype", default="float32", help="of the model's numbers (default: float32)")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def asked(args: argparse.Namespace) -> Asked:
    """The model that the arguments ask for, downloaded if need be; begins anew where its framework needs another process."""
    from ..hub.resolve import local
    from ..training.measured import Asked
    from .training import in_fitting_process

    if args.is_program:
        in_fitting_process(args.framework, args.threads)
    return Asked(
        args.framework, Path(local(args.weights)), args.model, _size(args), _numbers(args.mean), _numbers(args.std),
        args.crop_ratio, args.device, args.threads, args.dtype,
    )  # fmt: skip


def _size(args: argparse.Namespace) -> tuple[int, int] | None:
    if args.image_size is None:
        return None
    if len(args.image_size) > 2:
        args.parser.error(f"--image-size takes a side, or height and width, not {len(args.image_size)} numbers.")
    return args.image_size[0], args.image_size[-1]


def _numbers(given: list[float] | None) -> tuple[float, ...] | None:
    return None if given is None else tuple(given)


@contextmanager
def progress(what: str, quiet: bool) -> Iterator[tuple[Callable[[int], None], Callable[[int], None]]]:
    """A bar on stderr; gives what is called with the total, and what is called with how many more are done."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=quiet, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield (
            lambda total: bar.update(task, total=total),
            lambda more: bar.advance(task, more),
        )


def write_json(path: Path, facts: Any) -> None:
    """Write a JSON file, complete or not at all."""
    from ..files.atomic import replacing

    with replacing(path) as new:
        new.write_text(
            json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", errors="surrogateescape"
        )
