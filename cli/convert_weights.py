"""`convert_weights FRAMEWORK -c FILE`: any checkpoint into a framework's own file."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..backends.errors import Problem
from . import Parser, run_safely

if TYPE_CHECKING:
    from ..convert.checkpoint import Checkpoint
    from ..convert.tensors import Progress

# What each target is, for --help. NumPy is imported only once there is something to convert: --help stays fast.
TARGETS = {
    "torch": "a .pth file for torch.load, or .safetensors where the output ends so",
    "megengine": "a .pkl file for megengine.load",
    "mindspore": "a .ckpt file for mindspore.load_checkpoint",
    "oneflow": "a folder for oneflow.load",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `convert_weights`."""
    parser = Parser(
        prog="convert_weights",
        description="Convert the weights of a masked autoencoder, or its classifier, bit for bit. Reads .pth, "
        ".safetensors, MegEngine .pkl, MindSpore .ckpt and OneFlow folders; needs none of the frameworks.",
    )
    frameworks = parser.add_subparsers(dest="framework", metavar="FRAMEWORK", required=True)
    for framework, what in TARGETS.items():
        add_arguments(frameworks.add_parser(framework, help=what, description=f"Write {what}."))
    args = parser.parse_args(argv)
    return run_safely(f"convert_weights {args.framework}", lambda: run(args))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that all frameworks share, with the names that the upstream converters gave them."""
    parser.add_argument(
        "-c", "--checkpoint", "--ckpt", "--torch_path", metavar="FILE", required=True, help="what to convert"
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", "--mindspore_path", metavar="PATH", help="where to write (default: pretrained/<model>)"
    )
    parser.add_argument(
        "-m", "--model", help="a named model, a JSON file or 'embed_dim=...,depth=...' (default: found by the shapes)"
    )
    parser.add_argument("--encoder-only", action="store_true", help="convert the encoder alone, without the decoder")
    parser.add_argument("--dialect", metavar="NAME", help="the spelling of the file, where its names do not tell")


def run(args: argparse.Namespace) -> int:
    """Convert one checkpoint; print what was read and written; return 0."""
    from ..convert.checkpoint import open_checkpoint
    from ..convert.choice import model_of
    from ..convert.writing import format_for, write_checkpoint

    if args.output:
        format_for(args.framework, Path(args.output))  # a wrong ending shows before anything is read
    checkpoint = open_checkpoint(args.checkpoint, args.dialect)
    model, config = model_of(checkpoint, args.model)
    print(f"read   {describe(checkpoint)}")
    weights = checkpoint.weights(config, args.encoder_only)
    output = Path(args.output) if args.output else _default_output(args.framework, model, args.encoder_only)
    if checkpoint.extras and output.exists() and output.samefile(args.checkpoint):
        raise Problem(
            f"{output} also holds {', '.join(checkpoint.extras)}, which would be lost; write to another file with -o."
        )
    size = sum(array.nbytes for array in weights.values())
    with _progress_bar(2 * size) as progress:
        digest = write_checkpoint(args.framework, output, config, weights, progress)
    print(f"wrote  {output}: {len(weights)} tensors, {size / 1e6:,.1f} MB, read back and compared")
    print(f"sha256 {digest}")
    return 0


def describe(checkpoint: Checkpoint) -> str:
    """A checkpoint in one line."""
    from ..convert.formats import FORMATS

    kinds = {"mae": "autoencoder", "encoder": "encoder only", "classifier": "classifier"}
    parts = [FORMATS[checkpoint.format].NAME, f"{checkpoint.dialect} names", kinds[checkpoint.contents]]
    parts.append(checkpoint.model or "no named model")
    if checkpoint.extras:
        parts.append(f"ignored: {', '.join(checkpoint.extras[:8])}")
    return f"{checkpoint.path}: {', '.join(parts)}"


def _default_output(framework: str, model: str, encoder_only: bool) -> Path:
    from ..convert.tensors import CheckpointProblem
    from ..convert.writing import default_ending

    if "=" in model:
        raise CheckpointProblem("A model given by its sizes has no name; say where to write with -o.")
    name = Path(model).stem if model.endswith(".json") else model
    return Path("pretrained") / f"{name}{'_encoder' if encoder_only else ''}{default_ending(framework)}"


@contextmanager
def _progress_bar(total: int) -> Iterator[Progress]:
    """A bar on the terminal's error stream; silent where that is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("writing and checking"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.advance(task, done)


if __name__ == "__main__":
    raise SystemExit(main())
