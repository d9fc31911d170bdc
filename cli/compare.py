"""`polymae compare`: judge every framework against the float64 oracle."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..compare.options import Comparison
from ..files.errors import Problem
from .options import add_options, given_options, recording_flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polymae compare`."""
    add_options(parser, Comparison, one_of=("images", "inputs"))
    parser.add_argument(
        "--traces", type=Path, nargs="+", metavar="TRACE", help="judge recorded traces; needs no framework"
    )
    parser.add_argument("--out", type=Path, help="folder for report.html and report.json")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the report as JUnit XML")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the report as Markdown, for a pull request"
    )
    parser.add_argument(
        "--against", type=Path, metavar="JSON", help="an older report.json: say what got better or worse"
    )


def run(args: argparse.Namespace) -> int:
    """Compare, print, write, and return the report's exit status."""
    from ..compare.offline import compare_traces
    from ..compare.report.baseline import against
    from ..compare.report.files import read_report, require_places, write_files
    from ..compare.report.terminal import print_report
    from ..hub.resolve import local

    options = given_options(args, Comparison)
    if args.traces and (flags := recording_flags(args, Comparison)):
        raise Problem(f"--traces judges what was recorded before; leave out {', '.join(flags)}.")
    if "weights" in options:
        options["weights"] = local(options["weights"])
    # A temporary folder may be in memory, and base-size traces are 7 GB.
    comparison = Comparison(**options, scratch=args.out)
    for name in comparison.pythons:
        if name not in (*comparison.frameworks, "numpy"):  # the oracle is NumPy's in any case
            raise Problem(f"--python is given for {name}, which is not compared; leave it out, or add to --frameworks.")
    if "batch" in options and (comparison.images or comparison.inputs):
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
