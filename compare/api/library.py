"""Parity of your own model, without MAE: two callables or recorded traces, and the names of tensors (docs/own-models.md).

from polymae.compare import assert_parity
assert_parity(reference_in_float64, candidate, {"x": images, "conv1.weight": weight}, gradients=["conv1.weight.grad"])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import MethodType
from typing import Any

from ...files.errors import Problem
from ..limits.findings import Judgement
from ..manifest import DTYPES, OWN
from ..report.report import About, Report
from ..trace import MANIFEST, Trace, TraceProblem, digest, write_trace
from .arrays import Tensors
from .callables import Arrays, Function, call, rounded, widened
from .chained import Chained, chained
from .explained import explain
from .floor import SUMS, Floor, measured_floor, unfit
from .frameworks import environments, frameworks_called
from .judge import Taps, all_taps, judge, listing, null_gradients, require_alike, require_float64
from .repeated import call_again, excuse_the_unrepeatable
from .result import Parity


def parity(
    reference: Function,
    candidate: Function,
    inputs: Mapping[str, Any],
    taps: Taps | None = None,
    *,
    gradients: Taps = (),
    twins: Sequence[Function] | None = None,
    depth: int | None = None,
    label: str = "candidate",
    environment: Mapping[str, Any] | None = None,
) -> Parity:
    """Judge a float32 model against a float64 one, tensor by tensor, in units of float32 roundoff.

    reference: called with the inputs in float64; returns tensors by tap name, computed in float64. `tapped` makes such a
        function of a module.
    candidate: called with the same numbers in float32; returns tensors by the same names. Arrays, or tensors of any
        framework; a tuple or a list is opened as "0", "1", ..., a lone tensor is "0", where both sides return such.
    inputs: arrays by name, or tensors; floating point is rounded to float32 first. Best with the weights among them.
    taps: the tensors to judge, in the order of computation; None: all that the reference returns, in its order, and where no
        gradients are listed either, those by their names ("conv1.weight.grad", "grad/x": names.py) as gradients. Integers,
        booleans and Tap(name, operation, exact=True) must agree bit for bit.
    gradients: further tensors to judge, in the order of the backward pass: elements that are zero in exact arithmetic (a bias
        before a batch norm) are judged by the size of the other gradients.
    twins: other right float32 implementations, never the candidate itself; how far they are from the reference is the
        floor of each limit. None: the reference itself, in float32. An empty list: the a-priori bound by depth.
    depth: layers in a row, for the a-priori bound; None: the number of taps that are no gradients.
    environment: framework, version, device and further facts of the candidate for the report.

    Limits need float32 runs whose roundings are independent. One implementation on one machine always rounds alike, so
    up to three runs are made by moving every input (not integers) to a neighbouring float32 number at random: all later
    roundings fall out anew, and a badly conditioned model shows it. A float64 run on noisy inputs would not do: it has
    none of the roundings inside. Their products (matrix products, convolutions, forward and backward) are summed in one
    chain each, the order that costs most of those that a right port may take: for references and twins in NumPy and
    PyTorch; others have limits twice as wide. A twin that decides otherwise than the reference (an integer tap) is left
    out. Where the reference cannot run in float32 the limit is a priori, and the result says so.

    Each side is called twice on the same inputs: one that gives other numbers is named, and its numbers are not judged.
    Infinities that both have at the same places agree; one on one side only is a fault. A failure while it runs (a callable
    raises, which `.cause` then is, or is random, or half precision costs as much) is "not comparable" with the reason.
    Raises Problem where there is nothing to compare, a name comes twice, or the candidate is its own twin or reference.
    """
    if _same(reference, candidate):
        raise Problem(
            "The candidate is the reference itself, which agrees with itself in any case; give the other one."
        )
    if twins is not None and any(_same(twin, candidate) for twin in twins):
        raise Problem("The candidate is among the twins; a subject may not set its own limit.")
    narrow = rounded(inputs)
    judgement = Judgement(label, environment=dict(environment or {}))
    listed = listing(taps, gradients)
    try:
        oracle = call("the reference", reference, widened(narrow))
        listed = listed if taps is not None else all_taps(oracle, listed, list(narrow))
        require_float64(oracle, listed)
        steady = call_again("the reference", reference, widened(narrow), oracle, listed, roundoff=2.0**-53)
        floor = measured_floor(reference, twins, narrow, oracle, listed)
        for i, twin in enumerate(twins or ()):
            call_again(
                f"twin {i + 1}", chained(twin, seed=i), narrow, floor.runs[i], listed
            )  # the twins' own runs come first
        with frameworks_called() as called:
            run = call(f"the {label}", candidate, narrow)
        require_alike(f"the {label}", run, oracle)
        repeated = call_again(f"the {label}", candidate, narrow, run, listed)
    except Problem as problem:
        judgement.problem = str(problem)
        return _result([judgement], narrow, 0, cause=problem.__cause__)
    judge([(judgement, run)], oracle, floor, listed, depth)
    where = environments(called, judgement.environment)
    if len(where) == 1 and not judgement.environment.get("framework"):
        judgement.environment |= where[0]
    explain(judgement, where, reference, widened(narrow), oracle, null_gradients(oracle, listed))
    excuse_the_unrepeatable(judgement, repeated)
    judgement.notices += steady.notices + repeated.notices
    return _result([judgement], narrow, len(floor.runs))


def _same(one: Function, other: Function) -> bool:
    """Whether two callables are one. A method is a new object at every access."""
    return one is other or (isinstance(one, MethodType) and one == other)


def assert_parity(
    reference: Function,
    candidate: Function,
    inputs: Mapping[str, Any],
    taps: Taps | None = None,
    *,
    gradients: Taps = (),
    twins: Sequence[Function] | None = None,
    depth: int | None = None,
) -> Parity:
    """`parity` for a test: raises AssertionError with the report's sentence unless the candidate is right in full."""
    result = parity(reference, candidate, inputs, taps, gradients=gradients, twins=twins, depth=depth)
    if not result.ok:
        raise AssertionError(result.reason) from result.cause
    return result


def save_trace(
    path: Path | str,
    tensors: Mapping[str, Any],
    *,
    framework: str,
    dtype: str = "float32",
    inputs: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> None:
    """Record a run of your own model as a trace: tensors by tap name, for `parity_of_traces`, perhaps elsewhere.

    dtype: of the run's computation: float64 for the reference (on `widened` inputs), float32 for twins (on `displaced`
    inputs, say) and candidates (on `rounded` inputs). inputs: of all of them; only their digests are kept,
    and traces of other inputs are then refused. Raises Problem for no tensors, or
    for one that is no array of real numbers.
    """
    if not tensors or MANIFEST in tensors:
        raise Problem(f"A trace needs tensors, none of them called {MANIFEST!r}; give at least one.")
    if not framework or dtype not in DTYPES:
        raise Problem(f"framework {framework!r}, dtype {dtype!r}: give a name, and one of {', '.join(DTYPES)}.")
    recorded = Tensors(tensors)
    if recorded.narrow and dtype != "bfloat16":
        name, kind = next(iter(recorded.narrow.items()))
        raise Problem(f"{name} came in {kind}, whose roundoff hides porting faults; run it in {dtype} and record that.")
    digests = None if inputs is None else {name: digest(array) for name, array in rounded(inputs).items()}
    manifest = {
        "framework": framework, "config": {"kind": OWN}, "dtype": dtype, "levels": ["forward"], "taps": None,
        "environment": {"framework": framework, **(environment or {})}, "inputs": digests or {},
        "chained": isinstance(tensors, Chained),
    }  # fmt: skip
    arrays = [(name, recorded[name]) for name in recorded.names]  # raises here, before anything is written
    write_trace(Path(path), manifest, arrays)


def parity_of_traces(
    oracle: Path | str,
    twins: Sequence[Path | str],
    candidates: Sequence[Path | str],
    taps: Taps | None = None,
    *,
    gradients: Taps = (),
    depth: int | None = None,
) -> Parity:
    """`parity` of runs that `save_trace` recorded, one tensor of each in memory at a time. Without twins: a priori.

    A candidate that cannot be read, or has other inputs, is "not comparable". Raises Problem where that is so of the
    oracle or of a twin, where there is no candidate, or where one is also the oracle or a twin.
    """
    paths = [Path(path) for path in candidates]
    if not paths:
        raise Problem("No candidate was given; record one with save_trace.")
    if {path.resolve() for path in paths} & {Path(path).resolve() for path in (oracle, *twins)}:
        raise Problem("A candidate is also the oracle or a twin; a subject may not set its own limit.")
    with ExitStack() as stack:
        reference = stack.enter_context(closing(Trace(Path(oracle))))
        listed = listing(taps, gradients)
        listed = listed if taps is not None else all_taps(reference, listed, list(reference.manifest["inputs"]))
        if reference.manifest["dtype"] != "float64":
            raise Problem(
                f"{oracle} was recorded in {reference.manifest['dtype']}; the oracle must compute in float64."
            )
        require_float64(reference, listed)
        runs = [stack.enter_context(closing(Trace(Path(path)))) for path in twins]
        for twin in runs:
            if why := _other_run(reference, twin) or unfit(twin, reference, listed):
                raise Problem(f"{twin.path} cannot set a limit: {why}.")
        why = f"from {len(runs)} twin(s)" if runs else "a priori, by depth, as no twin was given"
        judgements, comparable = [], []
        for path in paths:
            judgement = Judgement(str(path))
            judgements.append(judgement)
            try:
                trace = stack.enter_context(closing(Trace(path)))
            except TraceProblem as problem:
                judgement.problem = str(problem)
                continue
            judgement.label = f"{trace.label} ({path.name})"
            judgement.environment = trace.manifest["environment"]
            judgement.problem = _other_run(reference, trace)
            if not judgement.problem:
                comparable.append((judgement, trace))
        loose = [twin for twin in runs if not twin.manifest.get("chained")]
        if loose:
            why += (
                f", {SUMS:g} times as wide, as {loose[0].path.name} was not summed in chains (polymae.compare.chained)"
            )
        floor = Floor(runs, [f"limits: {why}"], slack=SUMS if loose else 1.0)
        judge(comparable, reference, floor, listed, depth)
        return _result(judgements, {}, len(runs), digests=reference.manifest["inputs"])


def _other_run(oracle: Trace, trace: Trace) -> str:
    if trace.manifest["dtype"] not in ("float32", "float64"):
        return f"recorded in {trace.manifest['dtype']}, whose roundoff hides porting faults; record in float32"
    ours, theirs = oracle.manifest["inputs"], trace.manifest["inputs"]
    if ours and theirs and ours != theirs:
        names = [name for name in (*ours, *theirs) if ours.get(name) != theirs.get(name)]
        return f"input {names[0]} differs from the oracle's; record both from the same"
    return ""


def _result(
    judgements: list[Judgement],
    inputs: Arrays,
    twins: int,
    digests: Mapping[str, str] | None = None,
    cause: BaseException | None = None,
) -> Parity:
    levels = ("forward", "loss", "gradients")
    about = About("own model", "as given", "", "as given", None)
    digest_of = {name: digest(array) for name, array in inputs.items()} if digests is None else dict(digests)
    report = Report(about, levels, judgements, None, twins, "the reference in float64", digests=digest_of)
    return Parity(report, cause)
