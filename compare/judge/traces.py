"""Judge recorded runs against the float64 oracle. NumPy only: the traces may come from other machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.config import Config
from ...backends.spec import Tap
from ..levels import expected, weights
from ..limits.findings import Finding, Judgement
from ..limits.floors import Floors
from ..limits.metrics import Closeness, U, closeness, error
from ..limits.tensors import judge_tensor
from ..limits.tolerance import APriori, longest_sum
from ..options import LEVELS
from ..record.environment import suspects
from ..trace import Trace, TraceProblem
from .each import Rule, Source, judge_each


def judge(
    oracle: Trace, twins: Sequence[Trace], candidates: Mapping[str, Trace], levels: Sequence[str] = LEVELS
) -> list[Judgement]:
    """Judge every candidate tensor by tensor, holding one tensor of each trace in memory at a time.

    Raises TraceProblem for a twin whose tensor has another shape than the oracle's.
    """
    judgements = [Judgement(label, environment=c.manifest["environment"]) for label, c in candidates.items()]
    config = oracle.config
    levels = [level for level in levels if level in oracle.levels]
    a_priori = APriori(config.depth + getattr(config, "decoder_depth", 0), longest_sum(config))
    floors = Floors(a_priori)
    comparable: list[tuple[Judgement, Trace]] = []
    for judgement, candidate in zip(judgements, candidates.values()):
        judgement.problem = incomparable(oracle, candidate, levels)
        if judgement.problem:
            continue
        judgement.notices += notices(oracle, candidate, levels)
        comparable.append((judgement, candidate))
        if "weights" in levels:
            judgement.findings += weights.judge(oracle.manifest, candidate.manifest)
        judgement.coverage = _coverage(oracle, candidate, levels)

    def rule_of(level: str, tap: Tap, reference: NDArray[Any]) -> Rule:
        twin_tensors = {} if tap.exact else _twins(twins, tap.name, reference)
        overflowing = _overflowing(tap, reference, twin_tensors)
        fit = [] if overflowing else floors.fit(level, tap, reference, twin_tensors)

        def rule(judgement: Judgement, candidate: Source) -> Finding | None:
            try:
                actual = candidate[tap.name]
            except TraceProblem as problem:
                judgement.problem = judgement.problem or str(problem)
                return None
            if overflowing:
                return Finding(
                    tap.name, level, tap.operation, "not comparable", size=reference.size, reason=overflowing
                )
            return judge_tensor(level, tap, actual, reference, fit, a_priori)

        return rule

    listed = expected(config, levels, oracle.manifest["inputs"])
    judge_each((one for one in listed if oracle.selects(one[1].name)), oracle, comparable, rule_of)
    for judgement, _ in comparable:
        judgement.notices += floors.notices
        judgement.coverage += _nothing_of(judgement, config, levels)
    return judgements


def _twins(twins: Sequence[Trace], name: str, oracle: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """A tensor of every twin that recorded it, by the twin's file. Raises TraceProblem for one of another shape."""
    tensors = {}
    for twin in twins:
        if twin.selects(name):
            label = twin.path.stem if twin.path.stem not in tensors else str(twin.path)
            tensors[label] = twin[name]
            if tensors[label].shape != oracle.shape:
                raise TraceProblem(f"{name} in {twin.path} cannot set a limit: its shape; record it again.")
    return tensors


def _overflowing(tap: Tap, oracle: NDArray[Any], twins: Mapping[str, NDArray[Any]]) -> str:
    """Why float32 has no number where float64 has one, and the remedy; nothing where it has. A curve ends there."""
    if tap.operation == "training" or not np.isfinite(oracle).all():
        return ""
    if lost := [label for label, tensor in twins.items() if not np.isfinite(tensor).all()]:
        return f"float32 overflows here in the twins ({', '.join(lost)}), float64 does not; scale the inputs"
    return ""


def _nothing_of(judgement: Judgement, config: Config, levels: Sequence[str]) -> list[str]:
    """The levels of the comparison of which nothing was compared, be it that --taps left all of it out."""
    levels_judged = {finding.level for finding in judgement.findings}
    wanted = dict.fromkeys(level for level, _ in expected(config, levels))
    return [f"nothing of the level {level} was compared" for level in wanted if level not in levels_judged]


def notices(oracle: Trace, candidate: Trace, levels: Sequence[str]) -> list[str]:
    """Notices beside a verdict: tensors left out on purpose, and settings that may have changed the numbers."""
    wanted = [tap.name for _, tap in expected(oracle.config, levels, oracle.manifest["inputs"])]
    sentences = []
    for trace, whose in ((candidate, ""), (oracle, " by the oracle")):
        if left := sum(not trace.selects(name) for name in wanted):
            patterns = " ".join(trace.manifest["taps"])
            sentences.append(f"{left} of {len(wanted)} tensors were not recorded{whose}: --taps {patterns}")
    return sentences + suspects(candidate.manifest["environment"])


# Fields that must be the same for two runs to be comparable, and the levels for which it matters (none: all).
SAME: dict[str, tuple[str, ...]] = {
    "config": (),
    "mask_ratio": (),
    "source": (),
    "inputs": (),
    "images": ("inputs",),
    "training": ("optimizer", "curve"),
}


def incomparable(oracle: Trace, candidate: Trace, levels: Sequence[str] = LEVELS) -> str:
    """Why two traces are not of the same run: the field of the manifest that differs, or nothing."""
    for name, concerned in SAME.items():
        ours, theirs = oracle.manifest.get(name), candidate.manifest.get(name)
        if concerned and not set(concerned) & set(levels):
            continue
        if name == "config":
            # Not the manifests': one recorded before there was a setting does not hold its default.
            ours, theirs = _settings(oracle.config, candidate.config), _settings(candidate.config, oracle.config)
        if ours != theirs:
            return f"{name} differs from the oracle's ({_shortened(theirs)}, not {_shortened(ours)}); record both from the same"
    if candidate.manifest["dtype"] == "bfloat16":
        return f"recorded in bfloat16, whose roundoff hides porting faults{_size(oracle, candidate)}; record in float32"
    if lacking := [level for level in levels if level in oracle.levels and level not in candidate.levels]:
        return (
            f"recorded without {', '.join(lacking)}; record it with --level {','.join((*candidate.levels, *lacking))}"
        )
    return ""


def _size(oracle: Trace, candidate: Trace) -> str:
    """How far the last tensor of the forward pass that both have is from the oracle's, in words."""
    for name in ("pred", "logits", "latent", "loss"):
        if name in oracle and name in candidate and candidate[name].shape == oracle[name].shape:
            e = error(candidate[name], oracle[name])
            return f" ({name} is {e:.3g} u from the oracle, {100 * e * U:.2g} %)"
    return ""


def _settings(config: Config, other: Config) -> dict[str, Any]:
    """The settings of a configuration that another one has otherwise or lacks, and its kind of model."""
    settings = {"kind": type(config).__name__, **vars(config)}
    return {
        name: value
        for name, value in settings.items()
        if value != {"kind": type(other).__name__, **vars(other)}.get(name)
    }


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _coverage(oracle: Trace, candidate: Trace, levels: Sequence[str]) -> list[str]:
    """Tensors that a trace of these levels should hold and does not, and those and weights that no level knows."""
    config, given = oracle.config, oracle.manifest["inputs"]
    known = dict.fromkeys(tap.name for _, tap in expected(config, given=given))
    wanted = [tap.name for _, tap in expected(config, levels, given)]
    missing = [f"{name} is missing" for name in wanted if name not in candidate and candidate.selects(name)]
    ours, theirs = oracle.manifest["weights"], candidate.manifest["weights"]
    strange = [f"weights/{name}" for name in theirs if "weights" in levels and name not in ours]
    return missing + [f"{name} is unknown" for name in (*strange, *(n for n in candidate.names if n not in known))]


def against(reference: Trace, candidate: Trace, rtol: float, atol: float) -> dict[str, Closeness]:
    """A candidate beside a reference of the same precision, in the terms of allclose, for the tensors of one run of both."""
    rows = {}
    for _, tap in expected(reference.config, ("forward", "loss", "gradients")):
        name = tap.name
        if name in reference and name in candidate and candidate[name].shape == reference[name].shape:
            rows[name] = closeness(candidate[name], reference[name], rtol, atol)
    return rows
