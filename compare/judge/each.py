"""The one loop of every judgement: our models' traces and the runs of anybody's own model are judged tensor by tensor here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from ...backends.spec import Tap
from ..limits.findings import Finding, Judgement


class Source(Protocol):
    """Where the tensors of a run come from: a trace, or memory. Reading one may raise Problem."""

    names: list[str]

    def __contains__(self, name: str) -> bool: ...

    def __getitem__(self, name: str) -> NDArray[Any]: ...


Candidates = Sequence[tuple[Judgement, Source]]
Rule = Callable[[Judgement, Source], "Finding | None"]  # None: nothing to report of this tensor
RuleOf = Callable[[str, Tap, NDArray[Any]], Rule]


def judge_each(listed: Iterable[tuple[str, Tap]], oracle: Source, candidates: Candidates, rule_of: RuleOf) -> None:
    """Add a finding to each candidate's judgement for every tensor that it has. Raises Problem for one that the oracle lacks.

    listed: level and tap, in the order of computation. rule_of: of a level, a tap and the oracle's tensor the rule by which a
    candidate's is judged; it is called once for each tensor, so that one tensor of each run is in memory at a time.
    """
    for level, tap in listed:
        rule = rule_of(level, tap, oracle[tap.name])
        for judgement, source in candidates:
            if tap.name in source and (finding := rule(judgement, source)):
                judgement.findings.append(finding)
