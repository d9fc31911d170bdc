"""`polymae knn`: how well the features of a frozen encoder tell classes apart, by nearest neighbours."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..files.arguments import above_zero, whole
from .measuring import add_model, asked, progress, write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae knn`."""
    add_model(parser)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="images with labels: train is the bank and val is classified; else halves",
    )
    parser.add_argument("--data-format", help="of the images: folder, list, tar, parquet, npz (default: found out)")
    parser.add_argument("-k", type=whole(1), default=20, help="neighbours that vote (default: 20)")
    parser.add_argument("--temperature", type=above_zero, default=0.07, help="of their weights (default: 0.07)")
    parser.add_argument("--images", type=whole(1), help="at most so many in the bank and of the queries, drawn")
    parser.add_argument("--seed", type=whole(0), default=0, help="of what is drawn (default: 0)")
    parser.add_argument("--pooling", choices=("gap", "cls"), help="of an autoencoder's tokens (default: gap)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the result")


def run(args: argparse.Namespace) -> int:
    """Measure, print the result and return 0."""
    from ..training.knn import Neighbouring, measure

    given = Neighbouring(
        asked(args), args.data, args.data_format, args.k, args.temperature, args.images, args.seed, args.pooling,
        args.batch_size, args.workers,
    )  # fmt: skip
    with progress("encoding", quiet=args.json) as (begun, after):
        result = measure(given, begun, after)
    if args.out is not None:
        write_json(args.out, result.facts())
    if args.json:
        print(json.dumps(result.facts()))
    else:
        print(
            f"kNN top-1 {result.top1:.3f}  top-5 {result.top5:.3f}  ({result.queries} images by the {args.k} nearest of "
            f"{result.bank})"
        )
    return 0
