"""The result of comparing runs: a verdict for each, and one exit status for all."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ...files.version import __version__

Verdict = Literal["exact", "roundoff", "parts", "not comparable"]
EXIT_STATUS = {"exact": 0, "roundoff": 0, "not comparable": 2, "parts": 1}
_SEVERITY = list(EXIT_STATUS)  # a run that parts outranks one that could not be compared


@dataclass
class Epoch:
    """The mean loss of a whole epoch (counted from 0) beside the reference's. limit: on their distance; 0 for none."""

    epoch: int
    mean: float
    reference: float
    limit: float = 0.0

    @property
    def ratio(self) -> float:
        """Distance over limit; 0 where there is no limit."""
        return abs(self.mean - self.reference) / self.limit if self.limit else 0.0

    @property
    def over(self) -> bool:
        """Whether it is further than it may be."""
        return self.ratio > 1 or not math.isfinite(self.mean)


@dataclass
class Judged:
    """One run, judged.

    made: its steps. compared: those that the other has, too: `steps`, with their distances in units of roundoff u = 2^-24,
    of which the first `judged` have a limit. differences: settings, and other_data: facts of the data, each with the other's
    value and the run's.
    """

    label: str
    path: str
    verdict: Verdict = "not comparable"
    reason: str = ""
    notices: list[str] = field(default_factory=list)
    frameworks: list[str] = field(default_factory=list)
    made: int = 0
    last_step: int = 0
    compared: int = 0
    judged: int = 0
    parts: int | None = None  # the first step that roundoff does not explain, by its loss or its gradients
    first_bits: int | None = None  # the first step whose loss differs at all; of two runs
    first_rate: int | None = None  # the first step whose learning rate differs
    rates: tuple[float, float] = (0.0, 0.0)  # the other's and the run's, at that step
    differences: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    other_data: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    steps: list[int] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)

    @property
    def worst(self) -> tuple[float, float] | None:
        """Distance and limit, in u, of the judged step that is nearest to its limit or furthest over it."""
        pairs = zip(self.distances, self.limits)
        return max(pairs, key=lambda pair: pair[0] / pair[1], default=None)


@dataclass
class Runs:
    """Runs beside a reference, or beside the first of them."""

    beside: str
    judged: list[Judged]
    of_reference: bool
    made: dict[str, str] = field(default_factory=dict)  # by what the reference was made

    @property
    def verdict(self) -> str:
        """The worst verdict of a run."""
        return max((one.verdict for one in self.judged), key=_SEVERITY.index)

    @property
    def exit_status(self) -> int:
        """0 the same within roundoff, 1 a run parts, 2 one could not be compared."""
        return EXIT_STATUS[self.verdict]

    @property
    def headline(self) -> str:
        """One sentence about all of them."""
        parting = [one for one in self.judged if one.verdict == "parts"]
        lost = [one for one in self.judged if one.verdict == "not comparable"]
        if parting:
            first = parting[0]
            where = f" at step {first.parts}" if first.parts else ""
            more = f", and {len(parting) - 1} more" if len(parting) > 1 else ""
            return f"{first.label} parts from {self.beside}{where}{more}"
        if lost:
            return f"{', '.join(one.label for one in lost)} cannot be compared with {self.beside}"
        if self.verdict == "exact":
            return f"Bit for bit as {self.beside}"
        return f"The same as {self.beside} within roundoff"

    def as_json(self) -> str:
        """Everything, as one JSON object; numbers that JSON has not are text."""
        tree = {
            "polymae": __version__, "beside": self.beside, "reference": self.of_reference, "verdict": self.verdict,
            "exit_status": self.exit_status, "headline": self.headline, "made": self.made,
            "runs": [asdict(one) for one in self.judged],
        }  # fmt: skip
        return json.dumps(_finite(tree), indent=1) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
