"""`convert_weights FRAMEWORK -c FILE`: any checkpoint into a framework's own file."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as shortened
from typing import TYPE_CHECKING

from ..backends.config import MOST_PIXELS
from ..files.errors import Problem
from . import Parser, run_safely
from .examples import shown_in

if TYPE_CHECKING:
    from ..convert.checkpoint import Checkpoint
    from ..convert.conversion import Prepared
    from ..convert.tensors import Progress

# A description of each target, for --help. NumPy is imported only once there is something to convert: --help stays fast.
TARGETS = {
    "torch": "a .pth file for torch.load, or .safetensors where the output ends so",
    "megengine": "a .pkl file for megengine.load",
    "mindspore": "a .ckpt file for mindspore.load_checkpoint, or .safetensors where the output ends so",
    "oneflow": "a folder for oneflow.load",
    "numpy": "an .npz file for numpy.load",
    "huggingface": "a folder with config.json and model.safetensors for transformers' from_pretrained",
    "timm": "a .safetensors or .pth file for timm.create_model(checkpoint_path=...): encoders and classifiers",
    "safetensors": "a .safetensors file with the official names",
}
_LISTED = 8  # names, of a long list
_DTYPES = ("float32", "float16", "bfloat16", "float64")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `convert_weights`."""
    parser = Parser(
        prog="convert_weights",
        description="Convert the weights of a masked autoencoder, or its classifier, bit for bit, from any project's "
        "checkpoint: facebookresearch/mae, Hugging Face, timm, MAE-MegEngine, mindformers, mindcv, LiBai, FlyEgle. Needs "
        "none of the frameworks, and runs nothing that is in the file.",
        **shown_in("convert_weights"),
    )
    frameworks = parser.add_subparsers(dest="framework", metavar="FRAMEWORK", required=True)
    for framework, target in TARGETS.items():
        texts = shown_in("", f"convert_weights {framework} -c mae_visualize_vit_base.pth")
        add_arguments(frameworks.add_parser(framework, help=target, description=f"Write {target}.", **texts))
    args = parser.parse_args(argv)
    return run_safely(f"convert_weights {args.framework}", lambda: run(args))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that all frameworks share, with the names that the upstream converters gave them."""
    parser.add_argument(
        "-c", "--checkpoint", "--ckpt", "--torch_path", "--torch_pth_path", metavar="FILE", required=True, nargs="+",
        help="what to convert: a file or folder, a published one by name (`polymae weights list`), a URL or hf://owner/name; "
        "several go into one folder",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", "--mindspore_path", "--ms_ckpt_path", metavar="PATH",
        help="where to write (default: pretrained/<model>); a folder for several files",
    )  # fmt: skip
    parser.add_argument(
        "-m", "--model", help="a named model, a JSON file or 'embed_dim=...,depth=...' (default: found by the file)"
    )
    parser.add_argument("--from", "--dialect", dest="source", metavar="DIALECT", help="the spelling of the file, where "
                        "its names do not tell; `polymae dialects` lists them")  # fmt: skip
    parser.add_argument(
        "--prefix", metavar="NAME", help="what the names of the model begin with, where the file holds several"
    )
    parser.add_argument("--to", metavar="DIALECT", help="the spelling to write (default: the framework's own)")
    parser.add_argument("--format", metavar="FORMAT", help="the file format to write (default: the framework's own)")
    parser.add_argument("--encoder-only", action="store_true", help="convert the encoder alone, without the decoder")
    parser.add_argument("--dtype", choices=_DTYPES, help="round to this dtype (default: as in the file)")
    parser.add_argument(
        "--image-size", metavar="N", help="interpolate the position tables for images of N or HxW pixels"
    )
    parser.add_argument(
        "--num-classes", type=int, metavar="K", help="drop a head that has not K classes, and a decoder"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would go where, and write nothing")


def run(args: argparse.Namespace) -> int:
    """Convert every checkpoint; print a line for each file read and written; return 0."""
    from ..convert.identify import dialect_named
    from ..convert.targets import TARGETS as ROWS
    from ..convert.targets import format_for, require_format
    from ..hub.resolve import local

    if "-" in (*args.checkpoint, args.output):
        raise Problem(
            "Standard input and output cannot be used: checkpoints are read in place and verified; name a file.",
            code="bad-argument",
        )
    if args.output == "":
        raise Problem("The path after -o is empty; name a file, or leave out -o.", code="bad-argument")
    dialect = dialect_named(args.to or ROWS[args.framework].dialect)
    if args.format is not None:
        require_format(args.format)
    several = len(args.checkpoint) > 1
    if args.output and not several:  # a wrong ending shows before anything is read
        format_for(args.framework, Path(args.output), args.format)
    if args.output and not (parent := Path(args.output).parent).is_dir():
        raise Problem(
            f"There is no folder {parent} to write to; make it (mkdir -p), or mend the path after -o.",
            code="cannot-write",
        )
    if several and args.output and Path(args.output).is_file():
        raise Problem(f"{args.output} is a file; several checkpoints go into a folder.", code="bad-argument")
    sources = [local(source) for source in args.checkpoint]
    if several:
        _check_several(args, sources)
    for source in sources:
        convert_one(args, source, dialect.name, several)
    return 0


def _check_several(args: argparse.Namespace, sources: list[Path]) -> None:
    """Before anything is written: raise Problem where one is no checkpoint, or would be written over another."""
    from ..convert.formats import find_format

    taken: dict[Path, Path] = {}
    for source in sources:
        find_format(source)
        output = _default_output(args, None, source, True)
        over = next((other for other in sources if other != source and other.resolve() == output.resolve()), None)
        if output in taken or over:
            raise Problem(
                f"{source} would be written to {output}, over {over or f'what {taken[output]} becomes'}; convert them one by "
                "one, each with its own -o. Nothing was written.",
                code="bad-argument",
            )
        taken[output] = source


def convert_one(args: argparse.Namespace, source: Path, dialect: str, several: bool) -> None:
    """Convert one of the checkpoints."""
    from ..convert.conversion import Wish, convert, prepare, require_apart
    from ..convert.dialects import DIALECTS
    from ..convert.targets import format_for
    from ..convert.transform import refuse_inexpressible

    pixels = _image_size(args.image_size)
    wish = Wish(args.model, args.source, args.encoder_only, args.dtype, pixels, args.num_classes, args.prefix)
    prepared = prepare(source, wish)
    checkpoint, weights = prepared.checkpoint, prepared.weights
    named = args.output and not several
    output = Path(args.output) if named else _default_output(args, prepared, source, several)
    form = format_for(args.framework, output, args.format)
    print(f"read   {describe(checkpoint)}")
    if checkpoint.identified.dropped:
        print(f"drop   {_some(checkpoint.identified.dropped)}")
    refuse_inexpressible(DIALECTS[dialect], weights)
    for done in weights.done:
        print(f"change {done}")
    for notice in prepared.notices(DIALECTS[dialect], form):
        print(f"notice {notice}")
    if args.dry_run:
        _print_mapping(prepared, dialect)
        print(f"would write {output}: {DIALECTS[dialect].title}")
        return
    require_apart(source, output, form, (*checkpoint.extras, *weights.done))
    size = sum(tensor.nbytes for tensor in weights.tensors.values())
    with _progress_bar((3 + bool(weights.done)) * size) as progress:
        digest = convert(prepared, dialect, form, output, progress)
    print(f"wrote  {output}: {len(weights.tensors)} tensors, {size / 1e6:,.1f} MB, read back and compared")
    print(f"hash   {digest}")


def describe(checkpoint: Checkpoint) -> str:
    """A checkpoint in one line, but for the model's own tensors that are dropped."""
    from ..convert.dialects import KINDS
    from ..convert.formats import FORMATS

    parts = [FORMATS[checkpoint.format].NAME, f"{checkpoint.dialect} names"]
    parts += [KINDS[checkpoint.contents], checkpoint.model or "no named model"]
    if checkpoint.identified.prefix:
        parts.append(f"without the prefix {checkpoint.identified.prefix}")
    identified = checkpoint.identified
    reported = {*identified.dropped, *identified.outside}
    if ignored := [name for name in checkpoint.extras if name not in reported]:
        parts.append(f"ignored: {_some(ignored)}")
    return f"{checkpoint.path}: {', '.join(parts)}"


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _print_mapping(prepared: Prepared, dialect: str) -> None:
    from ..convert.dialects import DIALECTS

    rows = prepared.mapping(DIALECTS[dialect])
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, (*widths, 0))).rstrip())


def _image_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(s.isdecimal() and len(s) < 10 and 1 <= int(s) <= MOST_PIXELS for s in sides):
        raise Problem(
            f"--image-size is {shortened(text)}; it must be a number of pixels (448) or height and width (320x448), each up to "
            f"{MOST_PIXELS:,}.",
            code="bad-argument",
        )
    return int(sides[0]), int(sides[-1])


def _default_output(args: argparse.Namespace, prepared: Prepared | None, source: Path, several: bool) -> Path:
    from ..convert.targets import default_ending

    model, kind = (prepared.model, prepared.weights.contents) if prepared else ("", "")
    if several:
        name = source.name.removesuffix(source.suffix)
    elif "=" in model or model == "own model":
        if args.dry_run:
            return Path(f"unnamed{default_ending(args.framework, args.format)}")
        raise Problem("A model that is none of the named ones; say where to write with -o.", code="bad-argument")
    else:
        name = Path(model).stem if model.endswith(".json") else model
    kind = f"_{kind}" if kind in ("encoder", "headless") and not several else ""
    kind += f"_{args.image_size}" if args.image_size else ""
    kind += f"_{args.dtype}" if args.dtype else ""
    whose = f"_{args.framework}" if args.framework in ("huggingface", "timm") else ""
    folder = Path(args.output) if several and args.output else Path("pretrained")
    return folder / f"{name}{kind}{whose}{default_ending(args.framework, args.format)}"


@contextmanager
def _progress_bar(total: int) -> Iterator[Progress]:
    """A bar on the terminal's error stream; nothing, and nothing imported, where that is not a terminal."""
    import sys

    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("converting and checking"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.advance(task, done)


if __name__ == "__main__":
    raise SystemExit(main())
