"""`polymae compare`: judge every framework against the float64 oracle."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..backends import DEVICES, FRAMEWORKS
from ..compare import LEVELS
from ..files.errors import Problem
from .choices import above_zero, chosen, whole

# What says how to record, and means nothing for traces that are recorded already.
RECORDING = (
    "frameworks", "model", "images", "inputs", "device", "mask_ratio", "norm_pix_loss", "batch", "allow_tf32", "seed",
    "threads", "time_limit", "keep", "python",
)  # fmt: skip
OF_POWER = ("power", "frameworks", "model", "time_limit", "out", "json", "markdown")  # what means something for --power


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae compare`."""
    parser.add_argument(
        "--frameworks", default="all", help=f"comma-separated, of {', '.join(FRAMEWORKS)} (default: all)"
    )
    parser.add_argument(
        "--weights", help="checkpoint of any framework, or a published one by name (default: seeded, official layout)"
    )
    parser.add_argument("-m", "--model", help="preset, JSON file or img_size=...,... (default: from the file's shapes)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--images", type=Path, nargs="+", metavar="IMAGE", help="photographs to run on")
    source.add_argument("--inputs", type=Path, help=".npz with imgs and noise (or labels), in place of --images")
    parser.add_argument(
        "--traces", type=Path, nargs="+", metavar="TRACE", help="judge recorded traces; needs no framework"
    )
    parser.add_argument("--level", default="all", help=f"comma-separated, of {', '.join(LEVELS)} (default: all)")
    parser.add_argument(
        "--reference", default="torch", choices=(*FRAMEWORKS, "none"), help="beside which to show allclose"
    )
    parser.add_argument("--rtol", type=float, help="for the reference (default 1e-4); given, a failure is a fault")
    parser.add_argument("--atol", type=float, help="for the reference (default 1e-5); given, a failure is a fault")
    parser.add_argument("--device", default="cpu", choices=DEVICES)
    parser.add_argument("--mask-ratio", type=float, default=0.75, help="share of patches removed (default 0.75)")
    parser.add_argument("--norm-pix-loss", action="store_true", help="differentiate the loss of normalised patches")
    parser.add_argument("--batch", type=whole(1), help="random images, where none are given (default 2)")
    parser.add_argument("--allow-tf32", action="store_true", help="let a GPU round to TF32, to see what it costs")
    parser.add_argument("--seed", type=whole(0, 2**32 - 1), default=0, help="of weights, images and noise (default 0)")
    parser.add_argument(
        "--threads", type=whole(1), default=1, help="of each framework (default 1: one order of summation)"
    )
    parser.add_argument(
        "--time-limit",
        type=above_zero,
        metavar="SECONDS",
        help="for each framework's process (default: it is ended where it does nothing for 5 minutes, or computes for an hour)",
    )
    parser.add_argument("--out", type=Path, help="folder for report.html and report.json, or power.json")
    parser.add_argument("--keep", type=Path, help="folder in which converted files and traces stay")
    parser.add_argument(
        "--python", action="append", default=[], metavar="FRAMEWORK=PATH", help="record in another interpreter"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the report as JUnit XML")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the report as Markdown, for a pull request"
    )
    parser.add_argument(
        "--against", type=Path, metavar="JSON", help="an older report.json: say what got better or worse"
    )
    parser.add_argument(
        "--power",
        action="store_true",
        help="plant every known fault in small models (or in --model), and say by how much each is seen",
    )


def run(args: argparse.Namespace) -> int:
    """Compare, print, write, and return the report's exit status."""
    if args.power:
        return _power(args)
    from ..compare.offline import compare_traces
    from ..compare.reporting.against import against
    from ..compare.reporting.files import read_report, require_places, write_files
    from ..compare.reporting.terminal import print_report
    from ..compare.verdict import Comparison
    from ..hub.resolve import local

    if args.traces:
        _refuse(args, RECORDING, "--traces judges what was recorded before")
    args.weights = args.weights and local(args.weights)
    fields = {name: value for name, value in vars(args).items() if name in Comparison.__dataclass_fields__}
    fields |= {
        "frameworks": chosen(args.frameworks, FRAMEWORKS, "framework"),
        "levels": chosen(args.level, LEVELS, "level"),
        "reference": None if args.reference == "none" else args.reference,
        "images": args.images or (),
        "batch": args.batch or 2,
        "scratch": args.out,  # a temporary folder may be in memory, and base-size traces are 7 GB
        "pythons": dict(_interpreter(text) for text in args.python),
    }
    comparison = Comparison(**fields)
    for name in comparison.pythons:
        if name not in (*comparison.frameworks, "numpy"):  # the oracle is NumPy's in any case
            raise Problem(f"--python is given for {name}, which is not compared; leave it out, or add to --frameworks.")
    if args.batch and (args.images or args.inputs):
        raise Problem("--batch is for random images; leave it out, or leave out --images or --inputs.")
    require_places(args.out, args.junit, args.markdown)
    older = read_report(args.against) if args.against else None
    with _folder(args.out):
        if args.traces:
            report = compare_traces(args.traces, comparison)
        else:
            from ..compare.run import compare  # needs more than NumPy

            report = compare(comparison)
    refused = None
    if older:
        try:
            report.against = against(report, older, str(args.against))
        except Problem as problem:  # the report is right all the same, and may have taken minutes
            refused = problem
    written = write_files(report, args.out, args.junit, args.markdown)
    if args.json:
        print(report.as_json(), end="")
    else:
        print_report(report, written)
    if refused:
        raise refused
    return report.exit_status


def _power(args: argparse.Namespace) -> int:
    """Plant the catalogue of faults, print their margins, and return 0 where each is caught at its place, else 1."""
    from ..compare.faults.power import power
    from ..compare.faults.power_table import complaints, markdown, print_power
    from ..compare.reporting.files import require_places
    from ..files.atomic import replacing

    others = [name for name in vars(_defaults()) if name not in OF_POWER]
    _refuse(args, others, "--power plants faults in small models of its own")
    require_places(args.out, None, args.markdown)
    with _folder(args.out):
        found = power(chosen(args.frameworks, FRAMEWORKS, "framework"), time_limit=args.time_limit, model=args.model)
        as_json = json.dumps(found.as_dict(), allow_nan=False)
        if args.out:
            with replacing(args.out / "power.json") as new:
                new.write_text(f"{as_json}\n", encoding="utf-8")
    if args.markdown:
        args.markdown.write_text(markdown(found), encoding="utf-8")
    if args.json:
        print(as_json)
        for sentence in complaints(found):
            print(sentence, file=sys.stderr)
    else:
        print_power(found)
        if args.out:
            print(args.out / "power.json")
    return found.exit_status


def _defaults() -> argparse.Namespace:
    """What every option is where it is not given."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([])


def _refuse(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """Raise Problem where one of these options was given."""
    defaults = _defaults()
    if given := [name for name in names if getattr(args, name) != getattr(defaults, name)]:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise Problem(f"{why}; leave out {options}.")


@contextmanager
def _folder(path: Path | None) -> Iterator[None]:
    """Make the folder for the report; where the work fails, do not leave it behind empty."""
    if path is None or path.exists():
        yield
        return
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            path.rmdir()
        raise


def _interpreter(text: str) -> tuple[str, str]:
    name, found, path = text.partition("=")
    if not found or name not in FRAMEWORKS:
        raise Problem(f"--python {text!r} is not FRAMEWORK=PATH with a framework of {', '.join(FRAMEWORKS)}.")
    return name, str(Path(path).absolute()) if "/" in path else path
