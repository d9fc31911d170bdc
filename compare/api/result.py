"""The result of a comparison of somebody's own model: the report, for Python code and a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from ..limits.findings import Finding, Judgement, worst_verdict
from ..report.report import Report
from .places import shown

COLUMNS = ("tensor", "operation", "verdict", "E", "limit", "why")


@dataclass(frozen=True)
class Parity:
    """The verdict on one or more candidates. Errors E and limits are in units of float32 roundoff, u = 2^-24.

    cause: a callable's exception, where it kept everything from being compared, with its traceback.
    """

    report: Report
    cause: BaseException | None = None

    @property
    def ok(self) -> bool:
        """Whether every candidate is right, with nothing missing."""
        return self.exit_status == 0

    @property
    def exit_status(self) -> int:
        """0 parity, 1 fault, 2 could not compare, 3 coverage hole."""
        return self.report.exit_status

    @property
    def judgements(self) -> list[Judgement]:
        """One for each candidate."""
        return self.report.judgements

    @property
    def worst(self) -> Judgement:
        """The candidate with the worst verdict, the first of them."""
        worst = worst_verdict(self.report.verdict(judgement) for judgement in self.judgements)
        return next(judgement for judgement in self.judgements if self.report.verdict(judgement) == worst)

    @property
    def verdict(self) -> str:
        """The worst of the candidates': exact, roundoff, coverage hole, not comparable or fault."""
        return self.report.verdict(self.worst)

    @property
    def reason(self) -> str:
        """The sentence that goes with the verdict."""
        return f"{self.worst.label}: {self.verdict}: {self.report.reason(self.worst)}"

    @property
    def first_wrong(self) -> Finding | None:
        """The first tensor, in the order of computation, that is not right."""
        return self.worst.first_wrong

    @property
    def findings(self) -> list[Finding]:
        """Every tensor of every candidate, judged."""
        return [finding for judgement in self.judgements for finding in judgement.findings]

    def __getitem__(self, name: str) -> Finding:
        """The finding of one tensor, of the worst candidate. Raises KeyError where it was not compared."""
        for finding in self.worst.findings:
            if finding.name == name:
                return finding
        raise KeyError(f"{name} was not compared; {', '.join(finding.name for finding in self.worst.findings)} were")

    def as_json(self) -> str:
        """The report as JSON text, in the schema of `polymae compare`."""
        return self.report.as_json()

    def print(self) -> None:
        """Print the report."""
        print(self)

    def __repr__(self) -> str:  # shown by pytest for `assert parity(...).ok`
        return f"Parity({self.reason!r})"

    def __str__(self) -> str:
        return "\n\n".join(self._text(judgement) for judgement in self.judgements)

    def _text(self, judgement: Judgement) -> str:
        report = self.report
        lines = [
            f"{judgement.label} against {report.oracle}: {report.verdict(judgement)}",
            report.reason(judgement),
            *(textwrap.indent(shown(self.cause), "  ").splitlines() if self.cause else ()),
            *judgement.notices,
        ]
        if judgement.coverage and judgement.verdict != "coverage hole":
            lines.append("; ".join(judgement.coverage))
        if judgement.findings:
            lines += ["", *_table([COLUMNS, *(_row(finding) for finding in judgement.findings)])]
        return "\n".join(lines)


def _row(finding: Finding) -> tuple[str, ...]:
    limit = f"{finding.limit:.3g}" if finding.limit else "-"
    return (finding.name, finding.operation, finding.verdict, f"{finding.error:.3g}", limit, finding.reason)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    used = [column for column in zip(*rows) if any(column[1:])]  # without the column of operations that nobody named
    widths = [max(map(len, column)) for column in used]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip() for row in zip(*used)]
