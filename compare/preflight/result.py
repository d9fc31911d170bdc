"""The outcome of a preflight: a verdict on each check, and one exit status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .names import CHECKS

Verdict = Literal["passed", "failed", "could not run", "measured"]


@dataclass(frozen=True)
class Check:
    """One check. reason: a sentence with the compared numbers and their distance. figures: its numbers, for machines."""

    name: str
    verdict: Verdict
    reason: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Preflight:
    """All requested checks, in the order of CHECKS. subject: framework, model, data and so on, in words."""

    subject: Mapping[str, str]
    checks: tuple[Check, ...]
    seconds: float

    @property
    def exit_status(self) -> int:
        """0 all is right, 1 a check failed, 2 a check could not run."""
        verdicts = {check.verdict for check in self.checks}
        return 1 if "failed" in verdicts else 2 if "could not run" in verdicts or not self.checks else 0

    @property
    def headline(self) -> str:
        """The outcome in a sentence."""
        failed = [check.name for check in self.checks if check.verdict == "failed"]
        lacking = [check.name for check in self.checks if check.verdict == "could not run"]
        passed = sum(check.verdict == "passed" for check in self.checks)
        if failed:
            return f"Do not start: {', '.join(failed)} failed."
        if lacking:
            return f"Not proven: {', '.join(lacking)} could not run."
        left = [name for name in CHECKS if name not in {check.name for check in self.checks}]
        return f"Ready: {passed} checks passed" + (f"; not asked for: {', '.join(left)}." if left else ".")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "subject": dict(self.subject), "status": self.exit_status, "headline": self.headline,
            "seconds": round(self.seconds, 1), "checks": [asdict(check) for check in self.checks],
        }  # fmt: skip
