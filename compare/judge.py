"""Judge recorded runs against the float64 oracle. NumPy only: the traces may come from other machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..backends.config import Config, ViTConfig
from ..backends.spec import Tap, loss_taps, params, taps
from . import LEVELS
from .metrics import U, closeness, coherence, error, not_finite, unequal, worst_row
from .tolerance import HIGHEST_FLOOR, NULL, null_limit, scalar_limit, tensor_limit
from .trace import Trace, TraceProblem

Verdict = Literal["exact", "roundoff", "explained", "not comparable", "fault"]


@dataclass
class Finding:
    """One tensor of one framework, judged."""

    name: str
    level: str
    operation: str
    verdict: Verdict
    error: float = 0.0  # E, in units of roundoff; for exact tensors the number of unequal elements
    limit: float = 0.0
    floor: float = 0.0
    reason: str = ""
    worst_row: tuple[int, ...] = ()
    worst_row_error: float = 0.0
    coherence: float = 0.0
    size: int = 0  # elements

    @property
    def ratio(self) -> float:
        """Error over limit: above 1 is a fault."""
        return self.error / self.limit if self.limit else (float("inf") if self.verdict == "fault" else 0.0)


@dataclass
class Judgement:
    """One framework's run, judged: its findings in the order in which a fault would show."""

    label: str
    findings: list[Finding] = field(default_factory=list)
    problem: str = ""  # why there is nothing, or not everything, to judge
    explained_by: str = ""  # the inaccurate kernels that account for what is over its limit
    coverage: list[str] = field(default_factory=list)  # tensors missing from the trace, or unknown to the spec
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """exact, roundoff, explained, fault, coverage hole or not comparable."""
        found = {finding.verdict for finding in self.findings}
        if "fault" in found:
            return "fault"
        if self.problem or not self.findings or "not comparable" in found:
            return "not comparable"
        if self.coverage:
            return "coverage hole"
        if "explained" in found:
            return "explained"
        return "roundoff" if "roundoff" in found else "exact"

    @property
    def first_wrong(self) -> Finding | None:
        """The first tensor, in the order of computation, that is not right; for gradients, of the backward pass."""
        wrong = [finding for finding in self.findings if finding.verdict == "fault"]
        computed = [finding for finding in wrong if finding.level in ("forward", "loss")]
        return next(iter(computed or wrong), None)

    def worst(self, level: str) -> Finding | None:
        """The finding of a level that comes nearest to its limit, or is furthest over it."""
        found = [finding for finding in self.findings if finding.level == level]
        return max(found, key=lambda finding: (finding.verdict == "fault", finding.ratio), default=None)


def expected(config: Config, gradients: bool) -> Iterator[tuple[str, Tap]]:
    """Level and tensor of everything that a whole trace holds, in the order of computation."""
    second = "labels" if isinstance(config, ViTConfig) else "noise"
    for name in ("imgs", second):
        yield "inputs", Tap(f"input/{name}", "copy", exact=True)
    for tap in (*taps(config), *loss_taps(config)):
        yield ("loss" if tap.name.split(".")[-1] in ("loss", "target") else "forward"), tap
    for param in reversed(params(config) if gradients else ()):  # the backward pass ends where the forward began
        yield "gradients", Tap(f"grad/{param.name}", param.role)


def judge(
    oracle: Trace, twins: Sequence[Trace], candidates: Mapping[str, Trace], levels: Sequence[str] = LEVELS
) -> list[Judgement]:
    """Judge every candidate tensor by tensor, holding one tensor of each trace in memory at a time."""
    judgements = [Judgement(label, environment=c.manifest["environment"]) for label, c in candidates.items()]
    config = oracle.config
    wanted = [(level, tap) for level, tap in expected(config, oracle.manifest["gradients"]) if level in levels]
    blocks = config.depth + getattr(config, "decoder_depth", 0)
    comparable = []
    for judgement, candidate in zip(judgements, candidates.values()):
        judgement.problem = incomparable(oracle, candidate)
        if judgement.problem:
            continue
        comparable.append((judgement, candidate))
        if "weights" in levels:
            judgement.findings += _weights(oracle, candidate)
        judgement.coverage = _coverage(config, oracle, candidate, levels)
    for level, tap in wanted:
        reference = oracle[tap.name]
        twin_tensors = [] if tap.exact else [twin[tap.name] for twin in twins]
        for judgement, candidate in comparable:
            if tap.name not in candidate:
                continue
            try:
                actual = candidate[tap.name]
            except TraceProblem as problem:
                judgement.problem = judgement.problem or str(problem)
                continue
            judgement.findings.append(judge_tensor(level, tap, actual, reference, twin_tensors, blocks))
    return judgements


def incomparable(oracle: Trace, candidate: Trace) -> str:
    """Why two traces are not of the same run: the field of the manifest that differs, or nothing."""
    for name in ("config", "mask_ratio", "source", "inputs"):
        ours, theirs = oracle.manifest.get(name), candidate.manifest.get(name)
        if name == "config":
            # Not the manifests': one recorded before there was a setting does not hold its default.
            ours, theirs = _settings(oracle.config, candidate.config), _settings(candidate.config, oracle.config)
        if ours != theirs:
            return f"{name} differs from the oracle's ({_shortened(theirs)}, not {_shortened(ours)}); record both from the same"
    if candidate.manifest["dtype"] == "bfloat16":
        return "recorded in bfloat16, whose roundoff hides porting faults; record in float32"
    if oracle.manifest["gradients"] and not candidate.manifest["gradients"]:
        return "recorded without gradients; record it with --gradients"
    return ""


def _settings(config: Config, other: Config) -> dict[str, Any]:
    """The settings of a configuration that another one has otherwise or does not have, and what it configures."""
    found = {"kind": type(config).__name__, **vars(config)}
    return {
        name: value for name, value in found.items() if value != {"kind": type(other).__name__, **vars(other)}.get(name)
    }


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _coverage(config: Config, oracle: Trace, candidate: Trace, levels: Sequence[str]) -> list[str]:
    known = {tap.name: level for level, tap in expected(config, oracle.manifest["gradients"])}
    missing = [f"{name} is missing" for name, level in known.items() if level in levels and name not in candidate]
    gradient = {f"grad/{param.name}" for param in params(config)}
    return missing + [f"{name} is unknown" for name in candidate.names if name not in known and name not in gradient]


def _weights(oracle: Trace, candidate: Trace) -> list[Finding]:
    ours, theirs = oracle.manifest["weights"], candidate.manifest["weights"]
    found = []
    for name, digest in ours.items():
        same = theirs.get(name) == digest
        reason = "same bits" if same else "the model holds other bits than the checkpoint"
        found.append(
            Finding(f"weights/{name}", "weights", "load", "exact" if same else "fault", float(not same), reason=reason)
        )
    return found


def judge_tensor(
    level: str, tap: Tap, actual: NDArray[Any], oracle: NDArray[Any], twins: Sequence[NDArray[Any]], blocks: int
) -> Finding:
    """One tensor against the oracle's."""
    finding = Finding(tap.name, level, tap.operation, "fault", size=oracle.size)
    if actual.shape != oracle.shape:
        finding.reason = f"shape {actual.shape}, the oracle's is {oracle.shape}"
    elif tap.exact:
        finding.error = unequal(actual, oracle)
        finding.reason = f"{finding.error:.0f} of {oracle.size} elements differ; all must be equal"
        finding.verdict = "fault" if finding.error else "exact"
    elif not np.isfinite(oracle).all():
        finding.verdict = "not comparable"
        finding.reason = "the oracle's is not finite itself (a mask that removes no patch has no loss)"
    elif not_finite(actual, oracle):
        finding.error = float("inf")
        finding.reason = f"{not_finite(actual, oracle)} of {oracle.size} elements are NaN or infinite"
    else:
        _measure(finding, actual, oracle, twins, blocks)
    return finding


def _measure(
    finding: Finding, actual: NDArray[Any], oracle: NDArray[Any], twins: Sequence[NDArray[Any]], blocks: int
) -> None:
    null = np.abs(oracle) <= NULL * np.abs(oracle).max(initial=0) if finding.level == "gradients" else None
    if null is not None and null.any():
        _measure_null(finding, actual, oracle, twins, null)
        if (finding.verdict == "fault" and finding.reason) or null.all():
            return
        actual, oracle, twins = actual[~null], oracle[~null], [twin[~null] for twin in twins]
    actual = actual.astype(np.float64)  # once, for all the measures below
    finding.error = error(actual, oracle)
    errors = [error(twin, oracle) for twin in twins]
    limit = scalar_limit(errors, blocks) if oracle.ndim == 0 else tensor_limit(oracle.size, errors, blocks)
    finding.limit, finding.floor, finding.reason = limit.value, limit.floor, limit.reason
    finding.worst_row, finding.worst_row_error = worst_row(actual, oracle)
    finding.coherence = coherence(actual, oracle, finding.error)
    if finding.error == 0:
        finding.verdict = "exact"
    elif not finding.floor <= HIGHEST_FLOOR:
        finding.verdict = "not comparable"
        finding.reason = "float32 says nothing about it on these inputs: its twins are as far from the oracle"
    else:
        finding.verdict = "roundoff" if finding.error <= finding.limit else "fault"


def _measure_null(
    finding: Finding, actual: NDArray[Any], oracle: NDArray[Any], twins: Sequence[NDArray[Any]], null: NDArray[np.bool_]
) -> None:
    """Judge the elements whose gradient is zero in exact arithmetic by their size beside that of their siblings."""
    sibling = _rms(oracle[~null])
    sizes = [_rms(twin[null]) / (U * sibling) if sibling else 0.0 for twin in twins]
    limit = null_limit(int(null.sum()), sizes)
    size = _rms(actual[null]) / (U * sibling) if sibling else float("inf") if actual[null].any() else 0.0
    finding.verdict = "roundoff"
    if size > limit.value:
        finding.verdict, finding.error, finding.limit, finding.floor = "fault", size, limit.value, limit.floor
        finding.reason = limit.reason


def _rms(array: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(array.astype(np.float64) ** 2))) if array.size else 0.0


def against(reference: Trace, candidate: Trace, rtol: float, atol: float) -> dict[str, Any]:
    """A candidate beside a reference of the same precision, in the terms of allclose, for every tensor they share."""
    rows = {}
    for name in reference.names:
        if name in candidate and candidate[name].shape == reference[name].shape:
            rows[name] = closeness(candidate[name], reference[name], rtol, atol)
    return rows
