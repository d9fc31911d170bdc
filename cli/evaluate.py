"""`polymae evaluate`: top-1, top-5 and loss of a classifier on a labelled data set."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..files.arguments import whole
from ..files.errors import Problem
from .measuring import add_model, asked, progress, write_json

if TYPE_CHECKING:
    from ..training.parts import Part


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae evaluate`."""
    add_model(parser, required=False)
    parser.add_argument(
        "--data", type=Path, help="a folder for each class, list, .tar, .parquet, .npz; or what holds val/"
    )
    parser.add_argument("--data-format", help="of the images: folder, list, tar, parquet, npz (default: found out)")
    parser.add_argument("--split", choices=("train", "val"), help="which part (default: val, where there are parts)")
    parser.add_argument(
        "--class-map",
        type=Path,
        metavar="FILE",
        help="which of the model's classes the data's are: `n01498041 6` lines",
    )
    parser.add_argument("--names", type=Path, metavar="FILE", help="the names of the model's classes, a line each")
    parser.add_argument(
        "--official-loss",
        action="store_true",
        help="also the loss as the official code has it: unweighted over batches",
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the result with all classes")
    parser.add_argument("--confusion", type=Path, metavar="FILE.png", help="write the confusion matrix as a picture")
    parser.add_argument(
        "--processes", type=whole(1), default=1, metavar="N", help="that share the images, and give one's numbers"
    )
    parser.add_argument("--part", type=_part, metavar="I/N", help="only this part of the images, as 2/4; with --scores")
    parser.add_argument("--scores", type=Path, metavar="FILE.npz", help="write the scores of every image")
    parser.add_argument("--merge", type=Path, nargs="+", metavar="FILE.npz", help="put parts together, and run nothing")


def run(args: argparse.Namespace) -> int:
    """Evaluate, or put parts together, print the result and return 0."""
    if args.confusion is not None:
        from ..training.confusion import require_png

        require_png(args.confusion)
    part = _merged(args) if args.merge else _evaluated(args)
    if args.scores is not None:
        part.save(args.scores)
    if args.part is not None and not part.whole:
        print(f"{len(part.scores.places)} of {part.about['images']} images: {args.scores}")
        return 0
    result, facts = part.result(args.official_loss), part.facts(args.official_loss)
    if args.out is not None:
        write_json(args.out, facts)
    if args.confusion is not None:
        from ..training.confusion import draw_confusion

        draw_confusion(result, args.confusion)
    if args.json:
        print(json.dumps(facts))
        return 0
    print(f"top-1 {result.top1:.3f}  top-5 {result.top5:.3f}  loss {result.loss:.4f}  ({result.n} images)")
    if result.official_loss is not None:
        print(f"loss as the official code averages it, in batches of {facts['batch_size']}: {result.official_loss:.4f}")
    return 0


def _evaluated(args: argparse.Namespace) -> Part:
    from ..training.evaluate import Evaluation, evaluate_part

    missing = [f"--{name}" for name in ("framework", "weights", "data") if getattr(args, name) is None]
    if missing:
        raise Problem(
            f"{', '.join(missing)} must be given: polymae evaluate --framework torch --data imagenet/ --weights FILE."
        )
    if args.part is not None and args.scores is None:
        raise Problem(
            f"--part {args.part[0] + 1}/{args.part[1]} has no numbers of its own: give --scores FILE.npz for it."
        )
    if args.part is not None and (args.out or args.confusion):
        raise Problem("--out and --confusion are of all images; give them with --merge, once every part is done.")
    evaluation = Evaluation(
        asked(args), args.data, args.data_format, args.split, args.batch_size, args.workers, args.class_map, args.names,
        args.part or (0, 1),
    )  # fmt: skip
    if args.part is not None and args.processes > 1:
        raise Problem("--processes makes parts of its own; leave out --part, or give each part a process by itself.")
    with progress("evaluating", quiet=args.json) as (begun, after):
        if args.processes > 1:
            from ..training.processes import evaluate_in_processes

            return evaluate_in_processes(evaluation, args.processes, begun, after)
        return evaluate_part(evaluation, lambda total: begun(total // evaluation.part[1]), after)


def _merged(args: argparse.Namespace) -> Part:
    from ..training.parts import joined, read_part

    given = [f"--{name}" for name in ("framework", "weights", "data", "part") if getattr(args, name) is not None]
    given += ["--processes"] if args.processes > 1 else []
    if given:
        raise Problem(f"--merge puts together what was evaluated; leave out {', '.join(given)}.")
    return joined([read_part(path) for path in args.merge], [str(path) for path in args.merge])


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise argparse.ArgumentTypeError(f"{text!r} is not a part such as 2/4: from 1/4 to 4/4.")
    return number - 1, count
