"""A report in the terminal: with Rich where it is installed, as plain text where NumPy is alone."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..limits.findings import Judgement
from ..options import LEVELS
from .format import level_cell
from .report import Report

COLOURS = {"fault": "red", "parts": "red", "not comparable": "yellow", "coverage hole": "yellow"}
CHANGES = 12  # that are printed; JSON holds all
PIPE = 160  # columns, where there is no terminal to fit


def print_report(report: Report, written: Sequence[Path] = ()) -> None:
    """Print verdicts against the oracle, the limits of the comparison, the reference's familiar terms, and the files."""
    printer = terminal_printer()
    if report.against and any(change.direction == "worse" for change in report.against.changes):
        _print_against(printer, report)
    title = f"{report.about.model} against {report.oracle}: worst E / its limit, in units of roundoff u = 2^-24"
    printer.table(
        title, ("framework", "verdict", *LEVELS), [_row(report, judgement) for judgement in report.judgements]
    )
    width = max((len(judgement.label) for judgement in report.judgements), default=0)
    for judgement in report.judgements:
        printer.words(f"{judgement.label:<{width}}  ", report.reason(judgement))
        for notice in judgement.notices:
            printer.words(" " * (width + 2), notice)
    if report.not_compared:
        printer.words("not compared: ", "; ".join(report.not_compared))
    if report.reference and report.reference.rows:
        _print_reference(printer, report)
    if report.against and not any(change.direction == "worse" for change in report.against.changes):
        _print_against(printer, report)
    if written:
        printer.words("", "  ".join(map(str, written)), whole=True)


def _row(report: Report, judgement: Judgement) -> list[str]:
    return [
        judgement.label, report.verdict(judgement), *(level_cell(judgement, level, report.levels) for level in LEVELS)
    ]  # fmt: skip


def _print_reference(printer: Any, report: Report) -> None:
    reference = report.reference
    assert reference is not None
    title = f"beside {reference.label}: |a - b| <= atol {reference.atol:g} + rtol {reference.rtol:g} |b|"
    rows = []
    for label in reference.rows:
        if summary := reference.summary(label):
            rows.append([
                label, f"{summary['max_abs']:.3g}", f"{summary['max_rel']:.3g}", f"{summary['atol_needed']:.3g}",
                summary["tensor"], f"{100 * summary['share']:.4g} %", "pass" if summary["passed"] else "fail",
            ])  # fmt: skip
    columns = ("framework", "max abs", "max rel (of any size)", "atol needed", "at", "share within", "result")
    printer.table(title, columns, rows)


def _print_against(printer: Any, report: Report) -> None:
    assert report.against is not None
    changes = report.against.changes
    printer.words("", f"since {report.against.source}: {report.against.summary}")
    for change in changes[:CHANGES]:
        printer.words("  ", str(change))
    if len(changes) > CHANGES:
        printer.words("  ", f"and {len(changes) - CHANGES} more, in the JSON report")


def terminal_printer() -> Any:
    """Rich where it is installed, else plain text: both have `table` and `words`."""
    try:
        return Rich()
    except ImportError:
        return Plain()


class Rich:
    """Tables and text through Rich. Raises ImportError where it is not installed."""

    def __init__(self) -> None:
        from rich.console import Console

        # Piped into a file there is no width to fit. In a narrow terminal cells are folded, never cut.
        self.console = Console(width=None if Console().is_terminal else PIPE)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table, its verdicts coloured."""
        from rich import box
        from rich.markup import escape
        from rich.table import Table

        self.words("", title)
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold", no_wrap=column == "verdict")
        for row in rows:
            cells = [escape(cell) for cell in row]
            if "verdict" in columns:
                cells[1] = f"[{COLOURS.get(row[1], 'green')}]{row[1]}[/]"
            table.add_row(*cells)
        self.console.print("", table, "", sep="\n")

    def words(self, lead: str, text: str, whole: bool = False) -> None:
        """A paragraph with a hanging indent; whole: never broken, to be copied."""
        from rich.text import Text

        paragraph = lead + text if whole else _hanging(lead, text, self.console.width)
        self.console.print(Text(paragraph), soft_wrap=True)


class Plain:
    """The same without any library."""

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table with its columns aligned."""
        widths = [max(map(len, column)) for column in zip(columns, *rows)]
        print(f"\n{title}")
        for row in (columns, ["-" * width for width in widths], *rows):
            print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip())
        print()

    def words(self, lead: str, text: str, whole: bool = False) -> None:
        """A paragraph with a hanging indent."""
        print(lead + text if whole else _hanging(lead, text, shutil.get_terminal_size((PIPE, 24)).columns))


def _hanging(lead: str, text: str, width: int) -> str:
    return textwrap.fill(
        text,
        max(width, len(lead) + 20),
        initial_indent=lead,
        subsequent_indent=" " * len(lead),
        break_on_hyphens=False,
        break_long_words=False,
    )
