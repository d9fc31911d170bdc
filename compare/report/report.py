"""The result of a comparison: one object, from which the terminal table, JSON, JUnit, Markdown and the page are made."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ...files.errors import Problem
from ..limits.findings import EXIT_STATUS, SEVERITY, Finding, Judgement, worst_verdict
from ..limits.metrics import Closeness
from ..options import LEVELS
from .format import amount, short
from .plot_data import Pictures

SCHEMA = "polymae-compare-2"  # the file report.schema.json describes it


class ReportProblem(Problem, ValueError):
    """A file that is no report of ours."""


@dataclass
class Reference:
    """Every candidate beside one of them, in the terms of allclose."""

    label: str
    rtol: float
    atol: float
    asked: bool  # --rtol or --atol was given: failing it is a fault
    rows: dict[str, dict[str, Closeness]] = field(default_factory=dict)  # framework, tensor
    stored: dict[str, dict[str, Any]] = field(default_factory=dict)  # summaries that were read from a file

    def summary(self, label: str) -> dict[str, Any] | None:
        """The worst of a candidate's tensors in each term, and which tensor needs the largest atol."""
        rows = self.rows.get(label)
        if not rows:
            return self.stored.get(label)
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
    """The subject of a comparison."""

    model: str
    weights: str
    content_hash: str
    inputs: str
    mask_ratio: float | None  # None: not a masked autoencoder


KINDS = ("verdict", "level", "tensor", "new", "gone")


@dataclass(frozen=True)
class Change:
    """One difference between the two reports."""

    framework: str
    kind: str  # of KINDS
    name: str  # of the level or tensor; empty for the framework itself
    before: str
    after: str
    direction: str  # better, worse, or empty where it is neither
    ratio: float = 0.0  # of the errors, after over before; 0 where there is none

    def __str__(self) -> str:
        subject = " ".join(word for word in (self.framework, self.name) if word)
        if self.kind in ("new", "gone"):
            return f"{subject}: {self.kind}"
        times = f" ({short(self.ratio)} times)" if self.ratio else ""
        return f"{subject}: {self.before} -> {self.after}{times}{', ' + self.direction if self.direction else ''}"


@dataclass(frozen=True)
class Against:
    """The differences from an older report, the most important first."""

    source: str
    changes: list[Change]

    @property
    def summary(self) -> str:
        """How many became worse and better."""
        counts = {way: sum(change.direction == way for change in self.changes) for way in ("worse", "better")}
        others = len(self.changes) - sum(counts.values())
        return f"{counts['worse']} worse, {counts['better']} better, {others} new, gone or otherwise"

    @classmethod
    def read(cls, values: dict[str, Any]) -> Against:
        """From JSON."""
        return cls(values["source"], [Change(**change) for change in values["changes"]])


@dataclass
class Report:
    """A comparison."""

    about: About
    levels: tuple[str, ...]
    judgements: list[Judgement]
    reference: Reference | None = None
    twins: int = 0
    oracle: str = "numpy float64"
    config: dict[str, Any] = field(default_factory=dict)  # the model's settings
    digests: dict[str, str] = field(default_factory=dict)  # SHA-256 of each input
    not_compared: list[str] = field(default_factory=list)  # the coverage statement, a sentence each
    pictures: Pictures | None = None
    power: list[dict[str, Any]] | None = None  # name, level, margin, located_at of every planted fault
    against: Against | None = None

    @property
    def exit_status(self) -> int:
        """0 parity, 1 fault, 2 could not compare, 3 coverage hole."""
        verdicts = [self.verdict(judgement) for judgement in self.judgements]
        return EXIT_STATUS[worst_verdict(verdicts)] if verdicts else 2

    def verdict(self, judgement: Judgement) -> str:
        """A framework's verdict, with the reference's tolerance where one was chosen."""
        summary = self.reference.summary(judgement.label) if self.reference and self.reference.asked else None
        return "fault" if summary and not summary["passed"] else judgement.verdict

    def reason(self, judgement: Judgement) -> str:
        """The one sentence that goes with a verdict."""
        wrong = judgement.first_wrong
        if wrong:
            tf32 = ", with TF32 on: record without --allow-tf32" if judgement.environment.get("tf32") else ""
            return f"first wrong: {wrong.name} ({amount(wrong)}){tf32}"
        if judgement.problem:
            return judgement.problem
        unjudged = [finding for finding in judgement.findings if finding.verdict == "not comparable"]
        if unjudged:
            return f"{unjudged[0].name}: {unjudged[0].reason}"
        if judgement.coverage:
            more = " ..." if len(judgement.coverage) > 3 else ""
            # Somebody's own model has no settings, and no version of ours makes it complete.
            advice = (
                "record it again with this version of polymae"
                if self.config
                else "return and list the same on both sides"
            )
            return f"{'; '.join(judgement.coverage[:3])}{more}; {advice}"
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

    def headline(self) -> str:
        """The whole comparison in one sentence."""
        by_verdict: dict[str, list[str]] = {}
        for judgement in self.judgements:
            by_verdict.setdefault(self.verdict(judgement), []).append(judgement.label)
        wrong = [f"{name} in {', '.join(by_verdict[name])}" for name in reversed(SEVERITY[3:]) if name in by_verdict]
        if wrong:
            return "; ".join(wrong)
        return f"parity in {', '.join(judgement.label for judgement in self.judgements)}" if by_verdict else "nothing"

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON holds it (report.schema.json)."""
        reference = self.reference
        return {
            "schema": SCHEMA,
            **asdict(self.about),
            "config": self.config,
            "digests": self.digests,
            "levels": list(self.levels),
            "oracle": self.oracle,
            "twins": self.twins,
            "exit_status": self.exit_status,
            "reference": reference
            and {
                "framework": reference.label,
                **{name: getattr(reference, name) for name in ("rtol", "atol", "asked")},
            },
            "frameworks": [self._framework(judgement) for judgement in self.judgements],
            "not_compared": self.not_compared,
            "pictures": self.pictures and self.pictures.as_dict(),
            "power": self.power,
            "against": self.against and asdict(self.against),
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
            "problem": judgement.problem,
            "explained_by": judgement.explained_by,
            "coverage": judgement.coverage,
            "notices": judgement.notices,
            "worst": {level: finding.name for level in LEVELS if (finding := judgement.worst(level))},
            "reference": reference,
            "environment": judgement.environment,
            "tensors": [asdict(finding) for finding in judgement.findings],
        }

    def as_json(self) -> str:
        """The report as JSON text. Infinite and NaN numbers become text: JSON has none."""
        return json.dumps(_finite(self.as_dict()), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "the report") -> Report:
        """The report in a JSON text, without its images. Raises ReportProblem for anything else, naming the source."""
        try:
            content = json.loads(text)
        except ValueError as problem:
            raise ReportProblem(f"{source} is not JSON ({problem}); give a report.json of polymae compare.") from None
        schema = content.get("schema") if isinstance(content, dict) else None
        if schema != SCHEMA:
            raise ReportProblem(f"{source} has schema {schema}, this version reads {SCHEMA}; make it again.")
        try:
            return cls._read(content)
        except (LookupError, TypeError, ValueError, AttributeError) as problem:
            raise ReportProblem(f"{source} is not a whole report ({problem!r}); make it again.") from None

    @classmethod
    def _read(cls, content: dict[str, Any]) -> Report:
        reference = None
        if terms := content["reference"]:
            reference = Reference(terms["framework"], terms["rtol"], terms["atol"], terms["asked"])
            for row in content["frameworks"]:
                if row["reference"]:
                    reference.stored[row["framework"]] = {
                        name: value if name in ("tensor", "passed") else float(value)
                        for name, value in row["reference"].items()
                        if name not in ("framework", "rtol", "atol")
                    }
        return cls(
            About(**{item.name: content[item.name] for item in fields(About)}),
            tuple(content["levels"]),
            [_judgement(row) for row in content["frameworks"]],
            reference,
            pictures=Pictures.read(content["pictures"]) if content["pictures"] else None,
            against=Against.read(content["against"]) if content["against"] else None,
            **{name: content[name] for name in ("twins", "oracle", "config", "digests", "not_compared", "power")},
        )


def _judgement(row: dict[str, Any]) -> Judgement:
    numbers = {item.name for item in fields(Finding) if item.type == "float"}
    findings = []
    for tensor in row["tensors"]:
        values = _floats({name: value for name, value in tensor.items() if name in numbers})
        findings.append(Finding(**tensor | values | {"worst_row": tuple(tensor["worst_row"])}))
    names = ("problem", "explained_by", "coverage", "environment", "notices")
    return Judgement(row["framework"], findings, **{name: row[name] for name in names})


def _floats(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
