"""What a comparison would notice: every fault of the catalogue, planted, recorded and judged (docs/power.md).

A fault's margin is its error over the limit, at the level where that is largest: below 1 it would not be noticed.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from polymae.backends import FRAMEWORKS
from polymae.compare import LEVELS
from polymae.compare.limits.findings import Finding, Judgement
from polymae.compare.record.environment import suspects
from polymae.compare.report.power import ENOUGH, EXACT

from . import FAULTS, Fault
from .harness import CORRECT, Bench
from .models import MODELS


@dataclass
class Row:
    """One fault in one framework.

    level: where its margin is largest. located_at: what a report calls wrong first; expected: where it was planted.
    notice: no tensor is wrong, and it is told in a notice under the verdict only; there is no error, the margin is EXACT.
    margins: the largest of each level where it is noticed. size: of the fault, where it is a number. smallest: the
    size, or else the fraction of this fault, that would still be noticed, if the error is proportional to it; None
    for a fault that shows in exact comparisons only.
    """

    name: str
    framework: str
    model: str
    level: str = ""
    margin: float = 0.0
    located_at: str = ""
    expected: str = ""
    margins: dict[str, float] = field(default_factory=dict)
    size: float | None = None
    smallest: float | None = None
    notice: bool = False
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether the fault is noticed by far, and at the right place."""
        return self.margin >= ENOUGH and self.located_at == self.expected


@dataclass
class Power:
    """What the catalogue's faults did, and what the same models did without one (framework, model, judgement)."""

    rows: list[Row] = field(default_factory=list)
    correct: list[tuple[str, str, Judgement]] = field(default_factory=list)

    @property
    def false_alarms(self) -> list[tuple[str, str, Judgement]]:
        """The correct runs that were not found to be correct."""
        return [run for run in self.correct if run[2].verdict not in ("exact", "roundoff", "explained")]

    @property
    def exit_status(self) -> int:
        """0 where every fault has its margin and its place, and no correct run is called wrong; else 1."""
        return 0 if all(row.passed for row in self.rows) and not self.false_alarms else 1

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the faults, one row for every framework."""
        return {"faults": [asdict(row) for row in self.rows]}


def power(
    frameworks: Sequence[str] = FRAMEWORKS,
    faults: Sequence[str] = tuple(FAULTS),
    time_limit: float | None = None,
    model: str | None = None,
) -> Power:
    """Plant every fault in every framework and judge what comes out; the rows are in the catalogue's order.

    time_limit: seconds for each framework's process; None: as long as it gets on. model: plant in this one what fits and
    shows in one pass of it; None: every fault in the small model that has a place for it. Raises Problem where the oracle
    cannot be recorded.
    """
    whole = Power()
    with (
        tempfile.TemporaryDirectory(prefix="polymae-power-") as folder,
        Bench(Path(folder), faults, time_limit, models=(model,) if model else MODELS) as bench,
    ):
        for found in powers(bench, frameworks):
            whole.rows += found.rows
            whole.correct += found.correct
    whole.rows.sort(key=lambda row: list(FAULTS).index(row.name))
    return whole


def powers(bench: Bench, frameworks: Sequence[str]) -> Iterator[Power]:
    """The same of one framework after another, while the next one is recorded."""
    pool = ThreadPoolExecutor(2)
    try:
        yield from pool.map(partial(power_of, bench), frameworks)
    finally:
        bench.stop.set()  # or a Ctrl-C would wait for the workers, who know nothing of it
        pool.shutdown(cancel_futures=True)


def power_of(bench: Bench, framework: str) -> Power:
    """The same of one framework."""
    found = Power()
    for model, judgements in bench.judged(framework):
        correct = judgements[CORRECT]
        found.correct.append((framework, model, correct))
        found.rows += [
            _row(FAULTS[name], judgement, correct, framework, model)
            for name, judgement in judgements.items()
            if name != CORRECT
        ]
    return found


def _row(fault: Fault, judgement: Judgement, correct: Judgement, framework: str, model: str) -> Row:
    row = Row(fault.name, framework, model, expected=fault.located_at, size=fault.size, problem=judgement.problem)
    wrong = [finding for finding in judgement.findings if margin(finding) > 0]
    for level in LEVELS:
        if there := [margin(finding) for finding in wrong if finding.level == level]:
            row.margins[level] = max(there)
    if first := judgement.first_wrong or next(iter(wrong), None):
        row.located_at = first.name
    elif told := _told(judgement, correct):
        row.notice, row.margins = True, {"environment": EXACT}
        row.located_at = f"environment/{told}"
    row.level = max(row.margins, key=lambda level: row.margins[level], default="")
    row.margin = row.margins.get(row.level, 0.0)
    if measured := [margin for margin in row.margins.values() if margin < EXACT]:
        row.smallest = (1.0 if fault.size is None else fault.size) / max(measured)
    return row


def margin(finding: Finding) -> float:
    """How far a tensor is over its limit, end to end or of its operation alone: 0 where it is not wrong, at most EXACT."""
    if finding.verdict == "not comparable" and math.isinf(finding.error):
        return EXACT  # of another shape, or not finite
    if finding.verdict != "fault":
        return 0.0
    alone = finding.introduced / finding.introduced_limit if finding.introduced_limit else 0.0
    return min(EXACT, max(finding.ratio, alone))


def _told(judgement: Judgement, correct: Judgement) -> str:
    """The first thing of a run's environment that a reader is warned of, and is not so in the correct run."""
    for name, value in judgement.environment.items():
        if value != correct.environment.get(name) and suspects({name: value}):
            return name
    return ""
