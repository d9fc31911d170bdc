"""The judgement of runs in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..report.format import short
from ..report.terminal import terminal_printer
from .result import Judged, Runs

COLUMNS = ("run", "verdict", "frameworks", "steps", "judged", "distance/limit, u", "parts at", "settings that differ")


def print_runs(result: Runs, written: Sequence[Path] = ()) -> None:
    """Print a row and a reason for each run, the settings that differ, the epochs, and the files."""
    printer = terminal_printer()
    printer.table(
        f"Losses beside {result.beside}, in units of roundoff u = 2^-24", COLUMNS, [_row(one) for one in result.judged]
    )
    for one in result.judged:
        printer.words(f"{one.label}  ", one.reason)
        for notice in one.notices:
            printer.words("  ", notice)
    if any(one.differences for one in result.judged):
        rows = [
            [one.label, name, str(then), str(now)]
            for one in result.judged
            for name, (then, now) in one.differences.items()
        ]
        printer.table("settings that differ", ("run", "setting", result.beside, "here"), rows)
    if rows := epoch_rows(result):
        printer.table("mean loss of each epoch", ("epoch", result.beside, *(one.label for one in result.judged)), rows)
    if written:
        printer.words("", "  ".join(map(str, written)), whole=True)


def _row(one: Judged) -> list[str]:
    worst = one.worst
    return [
        one.label, one.verdict, ", ".join(one.frameworks) or "-", str(one.last_step or "-"), str(one.judged or "-"),
        f"{short(worst[0])}/{short(worst[1])}" if worst else "-", str(one.parts or "-"), str(len(one.differences)),
    ]  # fmt: skip


def epoch_rows(result: Runs) -> list[list[str]]:
    """For each epoch that a run has whole: its number from 1, the mean loss of the other, and that of each run."""
    rows: dict[int, list[str]] = {}
    for place, one in enumerate(result.judged):
        for epoch in one.epochs:
            row = rows.setdefault(
                epoch.epoch, [str(epoch.epoch + 1), f"{epoch.reference:.6g}", *("-" for _ in result.judged)]
            )
            row[2 + place] = f"{epoch.mean:.6g}" + (" over" if epoch.over else "")
    return [rows[epoch] for epoch in sorted(rows)]
