"""What a comparison found: one object, from which the terminal table, the JSON and the HTML page are made."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import LEVELS
from .judge import Finding, Judgement
from .metrics import Closeness

# From best to worst; the exit status is that of the worst verdict. A fault outranks what could not be compared.
EXIT_STATUS = {"exact": 0, "roundoff": 0, "explained": 0, "coverage hole": 3, "not comparable": 2, "fault": 1}
SEVERITY = list(EXIT_STATUS)
SCHEMA = "polymae-compare-1"


@dataclass
class Reference:
    """Every candidate beside one of them, in the terms of allclose."""

    label: str
    rtol: float
    atol: float
    asked: bool  # --rtol or --atol was given: failing it is a fault
    rows: dict[str, dict[str, Closeness]] = field(default_factory=dict)  # framework, tensor

    def summary(self, label: str) -> dict[str, Any] | None:
        """The worst of a candidate's tensors in each term, and which tensor needs the largest atol."""
        rows = self.rows.get(label)
        if not rows:
            return None
        needed = max(rows, key=lambda name: _nan_last(rows[name].atol_needed))
        return {
            "max_abs": max(_nan_last(row.max_abs) for row in rows.values()),
            "max_rel": max(_nan_last(row.max_rel) for row in rows.values()),
            "atol_needed": rows[needed].atol_needed,
            "tensor": needed,
            "share": min(row.share for row in rows.values()),
            "passed": all(row.passed for row in rows.values()),
        }


def _nan_last(value: float) -> float:
    return math.inf if math.isnan(value) else value


@dataclass(frozen=True)
class About:
    """What was compared."""

    model: str
    weights: str
    content_hash: str
    inputs: str
    mask_ratio: float


@dataclass
class Report:
    """A comparison."""

    about: About
    levels: tuple[str, ...]
    judgements: list[Judgement]
    reference: Reference | None = None
    twins: int = 0
    oracle: str = "numpy float64"

    @property
    def exit_status(self) -> int:
        """0 parity, 1 fault, 2 could not compare, 3 coverage hole."""
        verdicts = [self.verdict(judgement) for judgement in self.judgements]
        return EXIT_STATUS[max(verdicts, key=SEVERITY.index)] if verdicts else 2

    def verdict(self, judgement: Judgement) -> str:
        """A framework's verdict, with the reference's tolerance where it was asked for."""
        summary = self.reference.summary(judgement.label) if self.reference and self.reference.asked else None
        return "fault" if summary and not summary["passed"] else judgement.verdict

    def reason(self, judgement: Judgement) -> str:
        """The one sentence that goes with a verdict."""
        wrong = judgement.first_wrong
        if wrong:
            return f"first wrong: {wrong.name} ({_amount(wrong)})"
        if judgement.problem:
            return judgement.problem
        unjudged = [finding for finding in judgement.findings if finding.verdict == "not comparable"]
        if unjudged:
            return f"{unjudged[0].name}: {unjudged[0].reason}"
        if judgement.coverage:
            return "; ".join(judgement.coverage[:3]) + (" ..." if len(judgement.coverage) > 3 else "")
        if self.verdict(judgement) == "fault" and self.reference:
            summary = self.reference.summary(judgement.label) or {}
            return (
                f"needs atol {summary['atol_needed']:.2g} at {summary['tensor']}, more than {self.reference.atol:.2g}"
            )
        if not judgement.findings:
            return "nothing was compared"
        explained = [finding for finding in judgement.findings if finding.verdict == "explained"]
        if explained:
            return f"{len(explained)} of {len(judgement.findings)} tensors by the {judgement.explained_by}"
        return f"{len(judgement.findings)} tensors compared"

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return {
            "schema": SCHEMA,
            **asdict(self.about),
            "levels": list(self.levels),
            "oracle": self.oracle,
            "twins": self.twins,
            "exit_status": self.exit_status,
            "frameworks": [self._framework(judgement) for judgement in self.judgements],
        }

    def _framework(self, judgement: Judgement) -> dict[str, Any]:
        first = judgement.first_wrong
        reference = None
        if self.reference and (summary := self.reference.summary(judgement.label)):
            names = {"framework": self.reference.label, "rtol": self.reference.rtol, "atol": self.reference.atol}
            reference = names | summary
        return {
            "framework": judgement.label,
            "verdict": self.verdict(judgement),
            "reason": self.reason(judgement),
            "first_wrong": first.name if first else None,
            "compared": len(judgement.findings),
            "coverage": judgement.coverage,
            "worst": {level: finding.name for level in LEVELS if (finding := judgement.worst(level))},
            "reference": reference,
            "environment": judgement.environment,
            "tensors": [asdict(finding) for finding in judgement.findings],
        }

    def as_json(self) -> str:
        """The report as JSON text. Infinite and NaN numbers become text: JSON has none."""
        return json.dumps(_finite(self.as_dict()), indent=1, allow_nan=False) + "\n"


def _amount(finding: Finding) -> str:
    if math.isinf(finding.error) or not finding.limit:
        return finding.reason
    return f"E {finding.error:.3g} u, limit {finding.limit:.3g}"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def print_report(report: Report, out: Path | None) -> None:
    """The terminal's tables: verdicts against the oracle, then the familiar terms against the reference."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    # Piped into a file there is no width to fit. In a narrow terminal cells are folded, never cut.
    console = Console(width=None if Console().is_terminal else 160)
    title = f"{report.about.model} against {report.oracle}: E and its limit, in units of roundoff u = 2^-24"
    table = Table(title=escape(title))
    for column in ("framework", "verdict", "weights", "inputs", "forward", "loss", "gradients", ""):
        table.add_column(column, overflow="fold", no_wrap=column == "verdict")
    colour = {"fault": "red", "not comparable": "yellow", "coverage hole": "yellow"}
    for judgement in report.judgements:
        verdict = report.verdict(judgement)
        cells = [_level_cell(judgement, level) for level in LEVELS]
        table.add_row(
            escape(judgement.label),
            f"[{colour.get(verdict, 'green')}]{verdict}[/]",
            *cells,
            escape(report.reason(judgement)),
        )
    console.print(table)
    if report.reference and report.reference.rows:
        _print_reference(console, report)
    if out:
        written = escape(f"{out / 'report.html'}  {out / 'report.json'}")
        console.print(f"[dim]{written}[/]", soft_wrap=True)


def _level_cell(judgement: Judgement, level: str) -> str:
    worst = judgement.worst(level)
    if worst is None:
        return "-"
    if worst.verdict == "exact" and level in ("weights", "inputs"):
        return "exact"
    if not worst.limit:
        return worst.verdict
    return f"{worst.error:.3g} of {worst.limit:.3g}"


def _print_reference(console: Any, report: Report) -> None:
    from rich.markup import escape
    from rich.table import Table

    reference = report.reference
    assert reference is not None
    title = f"beside {reference.label}: |a - b| <= atol {reference.atol:g} + rtol {reference.rtol:g} |b|"
    table = Table(title=escape(title))
    for column in ("framework", "max abs", "max rel (of any size)", "atol needed", "at", "share within", "result"):
        table.add_column(column, overflow="fold")
    for label in reference.rows:
        if summary := reference.summary(label):
            table.add_row(
                escape(label), f"{summary['max_abs']:.3g}", f"{summary['max_rel']:.3g}", f"{summary['atol_needed']:.3g}",
                summary["tensor"], f"{100 * summary['share']:.4g} %", "pass" if summary["passed"] else "fail",
            )  # fmt: skip
    console.print(table)
