"""`polymae predict`: the likeliest classes, or the features, of images."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..files.arguments import whole
from .measuring import add_model, asked, progress

if TYPE_CHECKING:
    from ..training.predict import Prediction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae predict`."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="files, folders of images, patterns in quotes")
    add_model(parser)
    parser.add_argument("--topk", type=whole(1), default=5, help="likeliest classes (default: 5)")
    parser.add_argument("--names", type=Path, metavar="FILE", help="the names of the model's classes, a line each")
    parser.add_argument("--features", type=Path, metavar="FILE", help="write features to this .npy or .parquet file")
    parser.add_argument("--pooling", choices=("gap", "cls"), help="of an autoencoder's features (default: gap)")
    parser.add_argument("--out", type=Path, metavar="FILE.jsonl", help="write a line of JSON for each image")


def run(args: argparse.Namespace) -> int:
    """Predict, print a line for each class or image, and return 0; 1 if an image could not be decoded."""
    import numpy as np

    from ..files.atomic import replacing
    from ..training.features import require_writable, write_features
    from ..training.predict import Predicting, predictions

    if args.features is not None:
        require_writable(args.features)
    predicting = Predicting(
        asked(args), tuple(args.images), args.topk, args.names, args.features is not None, args.pooling, args.batch_size,
        args.workers,
    )  # fmt: skip
    total, made = predictions(predicting)
    names: list[str] = []
    rows: list[Any] = []
    broken = 0
    with ExitStack() as stack:
        file = None
        if args.out is not None:
            new = stack.enter_context(replacing(args.out))
            file = stack.enter_context(new.open("w", encoding="utf-8", errors="backslashreplace"))
        for one in _with_progress(made, total, quiet=args.json or args.features is None):
            broken += bool(one.problem)
            if one.features is not None:
                names.append(one.image)
                rows.append(one.features)
            tell(one, args.json, file)
        if rows:
            write_features(args.features, names, np.stack(rows))
    if broken:
        print(f"{broken} of {total} images could not be decoded.", file=sys.stderr)
    return 1 if broken else 0


def _with_progress(made: Iterable[Prediction], total: int, quiet: bool) -> Iterable[Prediction]:
    with progress("predicting", quiet) as (begun, after):
        begun(total)
        for one in made:
            yield one
            after(1)


def tell(one: Prediction, as_json: bool, file: TextIO | None = None) -> None:
    """Print a prediction; file: also as a line of JSON to this file."""
    line = json.dumps(one.facts(), ensure_ascii=False)
    if file is not None:
        file.write(line + "\n")
    if one.problem:
        print(f"broken: {one.image}: {one.problem}", file=sys.stderr)
    if as_json:
        print(line)
    elif one.top:
        print(one.image)
        for likely in one.top:
            print(f"  {100 * likely.probability:6.2f} %  {likely.number:>4}  {likely.name}".rstrip())
