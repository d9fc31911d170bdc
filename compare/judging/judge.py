"""Judge recorded runs against the float64 oracle. NumPy only: the traces may come from other machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.config import Config
from .. import LEVELS
from ..recording.environment import suspects
from ..recording.trace import Trace, TraceProblem
from .findings import Finding, Judgement
from .levels import expected
from .metrics import Closeness, U, closeness, error
from .tensors import judge_tensor


def judge(
    oracle: Trace, twins: Sequence[Trace], candidates: Mapping[str, Trace], levels: Sequence[str] = LEVELS
) -> list[Judgement]:
    """Judge every candidate tensor by tensor, holding one tensor of each trace in memory at a time."""
    judgements = [Judgement(label, environment=c.manifest["environment"]) for label, c in candidates.items()]
    config = oracle.config
    levels = [level for level in levels if level in oracle.levels]
    blocks = config.depth + getattr(config, "decoder_depth", 0)
    comparable = []
    for judgement, candidate in zip(judgements, candidates.values()):
        judgement.problem = incomparable(oracle, candidate, levels)
        if judgement.problem:
            continue
        judgement.notices += notices(oracle, candidate, levels)
        comparable.append((judgement, candidate))
        if "weights" in levels:
            judgement.findings += _weights(oracle, candidate)
        judgement.coverage = _coverage(config, candidate, levels)
    for level, tap in expected(config, levels):
        if not oracle.selects(tap.name):
            continue
        reference = oracle[tap.name]
        twin_tensors = [] if tap.exact else _twins(twins, tap.name, reference)
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


def _twins(twins: Sequence[Trace], name: str, oracle: NDArray[Any]) -> list[NDArray[Any]]:
    """A tensor of every twin that recorded it. Raises TraceProblem for one that cannot set a limit."""
    found = {twin.path: twin[name] for twin in twins if twin.selects(name)}
    for path, tensor in found.items():
        if tensor.shape != oracle.shape or not (np.isfinite(tensor).all() or not np.isfinite(oracle).all()):
            raise TraceProblem(f"{name} in {path} cannot set a limit (its shape, or NaN in it); record it again.")
    return list(found.values())


def notices(oracle: Trace, candidate: Trace, levels: Sequence[str]) -> list[str]:
    """What a reader should know beside a verdict: tensors left out on purpose, and what may have changed the numbers."""
    wanted = [tap.name for _, tap in expected(oracle.config, levels)]
    found = []
    for trace, whose in ((candidate, ""), (oracle, " by the oracle")):
        if left := sum(not trace.selects(name) for name in wanted):
            patterns = " ".join(trace.manifest["taps"])
            found.append(f"{left} of {len(wanted)} tensors were not recorded{whose}: --taps {patterns}")
    return found + suspects(candidate.manifest["environment"])


# What has to be the same for two runs to be comparable, and the levels for which it matters (none: all).
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
    """The settings of a configuration that another one has otherwise or does not have, and what it configures."""
    found = {"kind": type(config).__name__, **vars(config)}
    return {
        name: value for name, value in found.items() if value != {"kind": type(other).__name__, **vars(other)}.get(name)
    }


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _coverage(config: Config, candidate: Trace, levels: Sequence[str]) -> list[str]:
    """Tensors that a trace of these levels should hold and does not, and those that no level knows."""
    known = dict.fromkeys(tap.name for _, tap in expected(config))
    wanted = [tap.name for _, tap in expected(config, levels)]
    missing = [f"{name} is missing" for name in wanted if name not in candidate and candidate.selects(name)]
    return missing + [f"{name} is unknown" for name in candidate.names if name not in known]


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


def against(reference: Trace, candidate: Trace, rtol: float, atol: float) -> dict[str, Closeness]:
    """A candidate beside a reference of the same precision, in the terms of allclose, for what one run of both gives."""
    rows = {}
    for _, tap in expected(reference.config, ("inputs", "forward", "loss", "gradients")):
        name = tap.name
        if name in reference and name in candidate and candidate[name].shape == reference[name].shape:
            rows[name] = closeness(candidate[name], reference[name], rtol, atol)
    return rows
