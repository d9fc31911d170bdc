"""A report as Markdown, short enough for the text of a pull request."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from ..options import LEVELS
from .format import level_cell
from .report import Report

MARKS = {"fault": "❌", "not comparable": "⚠️", "coverage hole": "⚠️"}
TENSORS = 10  # listed for each framework
CHANGES = 10


def as_markdown(report: Report) -> str:
    """The verdict table, the first wrong tensor of each framework, the limits of the comparison, and folded details."""
    mark = {0: "✅"}.get(report.exit_status, "❌" if report.exit_status == 1 else "⚠️")
    about = report.about
    lines = [f"### {mark} Parity of {_text(about.model)}: {_text(report.headline())}", ""]
    lines += _since(report)
    rows = [
        [_text(judgement.label), f"{MARKS.get(verdict, '✅')} {verdict}",
         *(level_cell(judgement, level, report.levels) for level in LEVELS)]
        for judgement in report.judgements
        for verdict in (report.verdict(judgement),)
    ]  # fmt: skip
    lines += [*_table(("framework", "verdict", *LEVELS), rows), ""]
    lines += [f"- **{_text(judgement.label)}**: {_text(report.reason(judgement))}" for judgement in report.judgements]
    lines += ["", f"Worst E / its limit of each level, in units of roundoff u = 2^-24 from {_text(report.oracle)}.", ""]
    if report.not_compared:
        body = [f"- {_text(words)}" for words in report.not_compared]
        lines += _folded(f"Not compared ({len(body)})", body)
    for judgement in report.judgements:
        nearest = sorted(judgement.findings, key=lambda finding: -finding.ratio)[:TENSORS]
        cells = [
            [f"`{one.name}`", one.verdict, f"{one.error:.3g}", f"{one.limit:.3g}", _text(one.reason)] for one in nearest
        ]
        if cells:
            body = _table(("tensor", "verdict", "E", "limit", "why"), cells)
            lines += _folded(f"{judgement.label}: the {len(cells)} tensors nearest to, or over, their limit", body)
    run = f"weights {about.weights}, content hash {about.content_hash[:16]}, inputs {about.inputs}"
    run += "" if about.mask_ratio is None else f", mask ratio {about.mask_ratio}"
    return "\n".join([*lines, f"<sub>{_text(run)}</sub>", ""])


def _since(report: Report) -> list[str]:
    if report.against is None:
        return []
    changes = report.against.changes
    lines = [f"Since {_text(report.against.source)}: {report.against.summary}."]
    lines += ["", *(f"- {_text(str(change))}" for change in changes[:CHANGES])]
    if len(changes) > CHANGES:
        lines.append(f"- and {len(changes) - CHANGES} more")
    return [*lines, ""]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]


def _folded(title: str, body: Sequence[str]) -> list[str]:
    return [f"<details><summary>{html.escape(title)}</summary>", "", *body, "", "</details>", ""]


def _text(words: str) -> str:
    """Words as they are: the markup characters of Markdown and HTML are escaped."""
    return re.sub(r"([\\`*_{}\[\]<>|#~$@])", r"\\\1", " ".join(words.split()))
