"""`make power`: plant every known fault in every backend, and say by how much each is seen."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from polymae.backends import FRAMEWORKS
from polymae.compare.report.power import remember
from polymae.files.arguments import above_zero, read_names
from polymae.files.atomic import replacing

from .power import power
from .power_table import complaints, markdown, print_power


def main(words: list[str] | None = None) -> int:
    """Print the margins, and return 0 where each fault is caught at its place, else 1."""
    parser = argparse.ArgumentParser(prog="make power", description=__doc__)
    parser.add_argument("--frameworks", default="all", help=f"comma-separated, of {', '.join(FRAMEWORKS)}")
    parser.add_argument("-m", "--model", help="plant in this model what fits it (default: small ones of every family)")
    parser.add_argument("--time-limit", type=above_zero, metavar="SECONDS", help="for each framework's process")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every margin as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table, as docs/power.md has it")
    parser.add_argument("--remember", action="store_true", help="keep the margins for the page of every report")
    args = parser.parse_args(words)
    found = power(read_names(args.frameworks, FRAMEWORKS, "framework"), time_limit=args.time_limit, model=args.model)
    texts = {args.json: json.dumps(found.as_dict(), allow_nan=False) + "\n", args.markdown: markdown(found)}
    for path, text in texts.items():
        if path is not None:
            with replacing(path) as new:
                new.write_text(text, encoding="utf-8")
    if args.remember:
        remember(found.as_dict()["faults"])
    print_power(found)
    for sentence in complaints(found):
        print(sentence, file=sys.stderr)
    return found.exit_status


if __name__ == "__main__":
    sys.exit(main())
