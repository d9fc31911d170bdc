"""Faults that pass the usual checks, beside our verdict, as Markdown: benchmarks/passes_elsewhere.py [the port's framework]."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from mutants.usual_checks import USUAL, side_by_side


def main(port: str = "numpy") -> None:
    """A row for a correct port and for every fault; Markdown."""
    columns = ("run", "max abs difference", *USUAL, "polymae compare")
    print(f"| {' | '.join(columns)} |")
    print(f"|{'|'.join('---' for _ in columns)}|")
    for line in side_by_side(port):
        first = line.judgement.first_wrong
        ours = f"**fault** at `{first.name}`" if first else line.judgement.verdict
        name = "a correct port" if line.name == "none" else line.name
        usual = ["passes" if passed else "fails" for passed in line.passes.values()]
        print(f"| {' | '.join([name, f'{line.max_abs:.1e}', *usual, ours])} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
