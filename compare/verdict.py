"""From recorded traces to a report: the judgement against the oracle, errors by inaccurate kernels, the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..backends.naming import Arrays
from ..files.errors import Problem
from .judge.kernels import explain, known_kernels, unexplained
from .judge.not_compared import not_compared, suspect_oracle
from .judge.traces import against, judge
from .limits.findings import Judgement
from .options import Comparison
from .report.plot_data import pictures
from .report.report import About, Reference, Report
from .trace import Outcome, Trace

Noisy = Callable[[Mapping[str, float]], "Trace | None"]  # the oracle's trace with this noise behind its kernels


def judge_traces(
    about: About,
    oracle: Trace,
    twins: Sequence[Trace],
    outcomes: Sequence[Outcome],
    comparison: Comparison,
    noisy: Noisy,
    weights: Callable[[], Arrays | None],
) -> Report:
    """A report on the workers' traces.

    noisy: called where a candidate's framework has kernels that are known to be inaccurate. weights: those of the oracle,
    for the error that each operation introduces by itself; None where they cannot be had.
    """
    require_reference(comparison, oracle.label, [outcome.label for outcome in outcomes])
    opened: dict[str, Trace] = {}
    failed: dict[str, Judgement] = {}
    for outcome in outcomes:
        try:
            if outcome.trace is None:
                raise Problem(outcome.reason)
            opened[outcome.label] = Trace(outcome.trace)
        except Problem as problem:
            failed[outcome.label] = Judgement(outcome.label, problem=str(problem))
    judged = dict(zip(opened, judge(oracle, twins, opened, comparison.levels)))
    for judgement in judged.values():
        noise = known_kernels(judgement.environment, oracle.config)
        if noise and not judgement.problem:
            if trace := noisy(noise):
                explain(judgement, oracle, trace, noise)
            elif judgement.verdict == "fault":
                judgement.notices.append(unexplained(noise))
    _localise(judged, opened, oracle, twins, weights)
    judgements = [(judged | failed)[outcome.label] for outcome in outcomes]
    suspect_oracle(oracle, judgements)
    name = f"{oracle.label} {oracle.manifest['dtype']}" + ("" if twins else ", limits a priori")
    reference = _reference(oracle, opened, judged, comparison)
    return Report(
        about,
        tuple(comparison.levels),
        judgements,
        reference,
        len(twins),
        name,
        config=dict(oracle.manifest["config"]),
        digests=dict(oracle.manifest["inputs"]),
        not_compared=not_compared(oracle, opened, judgements, comparison.levels),
        pictures=pictures(oracle, twins, {label: opened[label] for label in judged if not judged[label].problem}),
    )


def _localise(
    judged: Mapping[str, Judgement],
    opened: Mapping[str, Trace],
    oracle: Trace,
    twins: Sequence[Trace],
    weights: Callable[[], Arrays | None],
) -> None:
    """Find the operations that are wrong by themselves, where the weights and SciPy are there for it; else say so."""
    lacking = ""
    try:
        from .judge.localise import localise

        if (arrays := weights()) is None:
            lacking = "the weights of the traces, which --weights gives"
        elif not twins and any(_computed(judgement) for judgement in judged.values()):
            lacking = "float32 twins of the oracle: polymae record --framework numpy --twin 1 ..."
        else:
            localise(list(judged.values()), opened, twins, oracle.config, arrays)
    except ImportError as problem:
        if (problem.name or "").startswith("polymae"):
            raise  # not a missing package
        lacking = f"{problem.name}, which requirements/core.txt installs"
    for judgement in judged.values() if lacking else ():
        judgement.notices.append(f"What each operation introduces by itself was not computed: that needs {lacking}.")


def _computed(judgement: Judgement) -> bool:
    return any(finding.level in ("forward", "loss", "gradients") for finding in judgement.findings)


def require_reference(comparison: Comparison, oracle: str, candidates: Sequence[str]) -> None:
    """Raise Problem where a tolerance was given, but no two runs or no tensors that it would be for."""
    if comparison.rtol is None and comparison.atol is None:
        return
    if not {"forward", "loss", "gradients"} & set(comparison.levels):
        raise Problem(
            "--rtol and --atol are for the levels forward, loss and gradients, and only "
            f"{', '.join(comparison.levels)} is judged; ask for one of those with --level, or leave them out."
        )
    label = comparison.reference
    if label not in (oracle, *candidates) or all(candidate == label for candidate in candidates):
        raise Problem(
            f"--rtol and --atol are for the distance from {label or 'a reference'}, and there is only "
            f"{', '.join(candidates)}; give both, or choose another with --reference."
        )


def _reference(
    oracle: Trace, opened: dict[str, Trace], judged: dict[str, Judgement], comparison: Comparison
) -> Reference | None:
    label = comparison.reference
    traces = {oracle.label: oracle} | opened
    if label is None or label not in traces or (label in judged and judged[label].problem):
        return None
    reference = Reference(
        label,
        rtol=1e-4 if comparison.rtol is None else comparison.rtol,
        atol=1e-5 if comparison.atol is None else comparison.atol,
        asked=comparison.rtol is not None or comparison.atol is not None,
    )
    for name, trace in opened.items():
        if name != label and not judged[name].problem:
            reference.rows[name] = against(traces[label], trace, reference.rtol, reference.atol)
            if reference.asked and not reference.rows[name]:
                judged[name].problem = f"no tensor in common with {label}, which --rtol and --atol are for"
    return reference
