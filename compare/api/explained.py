"""Kernels of a candidate's framework that are known to be inaccurate, and the errors that they explain in anybody's own model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...backends.intercepted import noise
from ...files.errors import Problem
from ..judge.each import Source
from ..judge.kernels import Inaccuracy, known_operations, named_version, widen
from ..limits.findings import Judgement
from ..limits.metrics import error
from .arrays import Tensors
from .callables import Arrays, Function, call

# Units of roundoff from which on a kernel is worth two more runs of the reference where nothing is wrong.
WIDENING = 2.0
REACH = 4.0  # times its largest error that a kernel may be the cause of an error behind it


def explain(
    judgement: Judgement,
    environments: Sequence[Mapping[str, Any]],
    reference: Function,
    inputs: Arrays,
    oracle: Source,
    null: frozenset[str],
) -> None:
    """Raise the limits of tensors behind known kernels; a fault that is within them is explained.

    The reference runs again in float64 with noise, of the size that the kernel's error has on most inputs, behind each call of
    these operations: once of either sign, and once of one sign for all elements. environments: framework, version and device
    of all that ran. inputs: in float64. null: gradients that are zero in exact arithmetic, which keep their limits. A reference
    that is not in PyTorch shows no operations: then a notice names the kernels.
    """
    known = {str(where["framework"]): known_operations(where) for where in environments}
    sizes: dict[str, float] = {}
    for kernels in known.values():
        for operation, kernel in kernels.items():
            sizes[operation] = max(kernel.typical, sizes.get(operation, 0.0))
    if not sizes or (judgement.verdict != "fault" and max(sizes.values()) < WIDENING):
        return
    runs, met = _noisy_runs(sizes, reference, inputs)
    named = ", ".join(
        f"{operation} kernel ({kernel.typical:.3g} u) of {where['framework']} {named_version(where)}"
        for where in environments
        for operation, kernel in sorted(known[str(where["framework"])].items())
        if operation in met
    )
    for finding in judgement.findings if runs else ():
        if finding.verdict in ("roundoff", "fault") and finding.limit and finding.name not in null:
            expected = oracle[finding.name]
            extra = max((error(run[finding.name], expected) for run in runs if finding.name in run), default=0.0)
            if 0 < extra < float("inf"):
                widen(finding, extra, named, expected.ndim == 0)
    if any(finding.verdict == "explained" for finding in judgement.findings):
        judgement.explained_by = named
    if judgement.verdict == "fault":
        judgement.notices += _beside(judgement, known, met) if met else [_unseen(environments, known)]


def _beside(judgement: Judgement, known: Mapping[str, Mapping[str, Inaccuracy]], met: set[str]) -> list[str]:
    """A note on a fault that kernels may cause which are further off on some inputs than on most."""
    first = judgement.first_wrong
    size = first.error if first else 0.0
    return [
        f"the {operation} kernel of {framework} is up to {kernel.worst:.3g} u off on some inputs ({kernel.inputs}): where the "
        "first wrong tensor is its own and no further off, judge it on other inputs"
        for framework, kernels in known.items()
        for operation, kernel in sorted(kernels.items())
        if operation in met and kernel.worst > 2 * kernel.typical and size <= REACH * kernel.worst
    ]


def _noisy_runs(sizes: Mapping[str, float], reference: Function, inputs: Arrays) -> tuple[list[Tensors], set[str]]:
    """The reference with noise of either sign and of one sign, and the operations that were met; no runs where none was."""
    runs, met = [], set()
    for coherent in (False, True):
        with noise(sizes, coherent) as operations:
            try:
                runs.append(call("the reference", reference, inputs))
            except Problem:  # it may look at its own numbers, and stop at noisy ones
                return [], set()
            met |= operations()
        if not met:
            return [], set()
    return runs, met


def _unseen(environments: Sequence[Mapping[str, Any]], known: Mapping[str, Mapping[str, Inaccuracy]]) -> str:
    """The notice where kernels are known, and the reference's operations cannot be seen."""
    sentences = []
    for where in environments:
        kernels = known[str(where["framework"])]
        worst = sorted(kernels, key=lambda operation: -kernels[operation].typical)
        sizes = ", ".join(f"{operation} {kernels[operation].typical:.3g} u" for operation in worst[:5])
        more = f" and {len(worst) - 5} others" if len(worst) > 5 else ""
        if kernels:
            named = f"{where['framework']} {where['version']} {where['device']}"
            sentences.append(f"{named} has inaccurate kernels ({sizes}{more})")
    return (
        f"{'; '.join(sentences)}: an error of that size behind them is no fault of a port. With a reference in PyTorch, whose "
        "operations can be seen, such an error is explained"
    )
