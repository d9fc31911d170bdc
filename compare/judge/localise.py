"""Tell the operation that is wrong from those that only receive and pass on its error (docs/decisions/localisation.md).

NumPy and SciPy only: the traces may come from other machines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from ...backends.config import Config
from ...backends.gradient_taps import gradient_taps
from ...backends.naming import Arrays
from ...backends.spec import Shape, taps
from ..limits.findings import Finding, Judgement
from ..limits.tolerance import ALONE, APriori, Limit, outliers, scalar_limit, tensor_limit
from ..trace import Trace
from .kernels import known_kernels
from .local_error import OwnTaps, introduced, oracle_model

# The error of an accurate kernel where NumPy's is better than most: PyTorch's gelu backward has 2.3 u, the twins 0.8.
FLOORS = {"gelu": 2.0, "gelu backward": 2.0}
FIT = 3.0  # times that: the error that a twin may introduce without being compared with the others


def localise(
    judgements: Sequence[Judgement],
    traces: Mapping[str, Trace],
    twins: Sequence[Trace],
    config: Config,
    weights: Arrays,
) -> None:
    """Give every finding the error that its operation introduced, with a limit; one over it becomes a fault.

    traces: by the judgements' labels. weights: the oracle's, float32, by spec name. Without twins there is no limit, and
    nothing is done.
    """
    judged = [judgement for judgement in judgements if judgement.label in traces and judgement.findings]
    levels = {finding.level for judgement in judged for finding in judgement.findings}
    if not twins or not levels & {"forward", "loss", "gradients"}:
        return
    model = oracle_model(config, weights)
    floors: dict[str, dict[str, float]] = {}  # by tensor, by twin
    shapes: dict[str, Shape] = {}
    for twin in twins:
        run_taps = OwnTaps(twin)
        for name, size in introduced(run_taps, model, "gradients" in levels):
            floors.setdefault(name, {})[str(twin.path.stem)] = size
        shapes |= run_taps.shapes
    exact = {tap.name for tap in taps(config) if tap.exact}
    for judgement in judged:
        findings = {finding.name: finding for finding in judgement.findings}
        kernels = known_kernels(judgement.environment, config)
        # A tensor that cannot be compared (it holds NaN, say) is nobody's input: no operation on it could be blamed.
        without = {name for name, finding in findings.items() if finding.verdict == "not comparable"}
        run_taps = OwnTaps(traces[judgement.label], shapes, without)
        left: dict[str, str] = {}  # twins that set no limit somewhere, and where first
        for name, size in introduced(run_taps, model, "gradients" in levels):
            if name not in findings or name not in floors or name in without:
                continue
            finding = findings[name]
            finding.introduced = size
            if name in exact:
                limit = Limit(0.0, 0.0, "it must be exact")
            else:
                fit = _fit(finding, floors[name])
                left |= {twin: name for twin in floors[name] if twin not in fit and twin not in left}
                limit = _limit(finding, list(fit.values()))
            kernel = kernels.get(finding.operation, 0.0)
            finding.introduced_limit = (
                limit.value * math.hypot(limit.floor, kernel) / limit.floor if kernel else limit.value
            )
            if size > limit.value:
                _blame(judgement, finding, limit, kernel)
        judgement.notices += [
            f"{twin}'s {name} is {floors[name][twin]:.3g} u off on its own inputs, far beyond the other twins': "
            "it sets no limit for what its operation introduces"
            for twin, name in left.items()
        ]
        _amplify(findings, config)


def _fit(finding: Finding, twins: Mapping[str, float]) -> dict[str, float]:
    """The twins that may set a limit: not one that introduces far more than the others."""
    out = outliers(list(twins.values()), finding.size, FIT * FLOORS.get(finding.operation, 1.0))
    return {twin: size for index, (twin, size) in enumerate(twins.items()) if index not in out}


def _limit(finding: Finding, twins: Sequence[float]) -> Limit:
    sizes = [FLOORS.get(finding.operation, 1.0), *twins]
    if finding.name.endswith("loss"):
        return scalar_limit(sizes, APriori(0))
    return tensor_limit(finding.size, sizes, APriori(0), ALONE)


def _blame(judgement: Judgement, finding: Finding, limit: Limit, kernel: float) -> None:
    """Make it a fault of this operation, or explained where its kernel is known to be that inaccurate."""
    distance = f"off by {finding.introduced:.3g} u on its own inputs, limit {limit.value:.3g} (kappa x floor {limit.floor:.2f})"
    if finding.introduced > finding.introduced_limit:
        finding.reason = f"{distance}; end to end: {finding.reason}"
        finding.verdict = "fault"
        return
    if finding.verdict in ("exact", "roundoff"):
        environment = judgement.environment
        named = f"{finding.operation} kernel ({kernel:.3g} u) of {environment['framework']} {environment['version']}"
        judgement.explained_by = judgement.explained_by or named
        finding.verdict, finding.reason = "explained", f"{distance}, by the {named}"


def _amplify(findings: Mapping[str, Finding], config: Config) -> None:
    """The amplification of every part of the model: the error at its output over that at its input."""
    backward = [tap.name for tap in gradient_taps(config) if tap.name.count(".") < 2]
    chains = (["patch_embed", *reversed(backward)], [f"dy/{name}" for name in backward])
    for chain in chains:
        for before, after in pairwise(chain):
            if before in findings and after in findings and 0 < findings[before].error < math.inf:
                findings[after].amplification = findings[after].error / findings[before].error
