"""Judge runs of training: against the reference of their recipe, or against another run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.spec import Tap
from ...training.recipe import differences
from ..limits.curves import A_PRIORI, CHAOTIC, FACTOR, curve_limit, distance, judge_curve
from ..limits.metrics import U
from .reference import Reference
from .result import Epoch, Judged
from .run import Run

SEEDS = 2.0  # how many times further from the reference than that of other seeds the mean loss of an epoch may be
PAIR = 2 * FACTOR * (A_PRIORI + U)  # of two right runs: each may be as far from the oracle as curves.py allows a priori
MEASURED = 100  # steps after which that was measured
LEAP, WITHIN = 30.0, 10  # later: a distance so many times that of so many steps before is no roundoff that grew
LEAPS = 1000.0  # times the limit: where a loss leaps rather than drifts
# Frameworks add the squares of all gradients in orders of their own, which the twins do not show.
NORM = 10.0
SAME_RATE = 1e-12  # relative: the cosine of two machines may differ by less

_DATA = {"fingerprint": "the list of images", "first_batch": "the first batch", "images": "the number of images"}


def against_reference(run: Run, reference: Reference) -> Judged:
    """A run beside a reference: its first steps in the envelope of the oracle's twins, its epochs within those of other seeds."""
    judged = _begun(run)
    judged.differences = differences(reference.recipe, run.recipe)
    judged.other_data = _other_data(reference.data, run.data)
    if judged.differences or judged.other_data:
        judged.verdict = "not comparable"
        judged.reason = f"another run than {reference.name} is of: {_listed(judged)}"
        return judged
    if not run.data:
        judged.notices.append("It has no checkpoint yet, which would tell its data: the first loss alone does.")
    with_rate = run.steps <= reference.lr.size
    _rates(judged, run.steps[with_rate], run.lr[with_rate], reference.lr[run.steps[with_rate] - 1])
    judged.epochs = _epochs(run, reference)
    begun = run.steps <= reference.oracle.size
    at = run.steps[begun] - 1
    limit = curve_limit(reference.oracle, reference.twins)
    within = at[at < limit.size]
    judged.steps, judged.compared = run.steps[begun].tolist(), int(at.size)
    judged.distances = (distance(run.loss[begun], reference.oracle[at]) / U).tolist()
    judged.limits = (limit[within] / U).tolist()
    judged.judged = int(within.size)
    if not within.size:
        judged.verdict = "not comparable"
        judged.reason = (
            f"it has none of the first {limit.size} steps, in which {reference.name} says what float32 may do"
        )
        return judged
    off = judge_curve(
        Tap("loss", "training"), run.loss[begun], reference.oracle[at], [twin[at] for twin in reference.twins]
    )
    over = np.flatnonzero(np.array(judged.distances)[: within.size] > np.array(judged.limits))
    norm_limit = NORM * curve_limit(reference.oracle_norm, reference.twin_norms)
    norms = at[at < norm_limit.size]
    apart = distance(run.grad_norm[begun][: norms.size], reference.oracle_norm[norms])
    judged.verdict = "roundoff" if off.error else "exact"
    if _part(judged, run, at + 1, over, np.flatnonzero(apart > norm_limit[norms]), off.reason):
        return judged
    far = [epoch for epoch in judged.epochs if epoch.over]
    judged.reason = f"the same run within roundoff for its first {int(within[-1]) + 1} steps ({off.reason})"
    if judged.first_rate is not None:
        judged.verdict, judged.reason = "parts", _wrong_rate(judged)
    elif far:
        judged.verdict = "parts"
        judged.reason += (
            f"; epoch {far[0].epoch + 1} is the first whose mean loss, {far[0].mean:.5g}, is further from {far[0].reference:.5g} "
            f"than {SEEDS:.0f} times that of any other seed"
        )
    elif judged.epochs and len(reference.seeds):
        worst = max(judged.epochs, key=lambda epoch: epoch.ratio)
        judged.reason += (
            f"; mean losses of whole epochs ({len(judged.epochs)}) differ by at most {worst.ratio:.2g} of their limit"
        )
    return judged


def against_run(run: Run, first: Run) -> Judged:
    """A run beside another: their recipes, data and learning rates, and from where their losses part beyond roundoff.

    Without twins nobody knows how much roundoff grows. Up to MEASURED steps after their first difference two right runs are
    allowed PAIR; from then on a run parts where it leaps: LEAP times further within WITHIN steps.
    """
    judged = _begun(run)
    judged.differences = differences(first.recipe, run.recipe)
    judged.other_data = _other_data(first.data, run.data)
    common, mine, theirs = np.intersect1d(run.steps, first.steps, return_indices=True)
    judged.compared = int(common.size)
    if not common.size:
        judged.verdict, judged.reason = "not comparable", f"it has no step in common with {first.label}"
        return judged
    _rates(judged, common, run.lr[mine], first.lr[theirs])
    off = distance(run.loss[mine], first.loss[theirs])
    unequal = np.flatnonzero(off)
    judged.first_bits = int(common[unequal[0]]) if unequal.size else None
    limit = pair_limit(off)
    judged.steps, judged.distances, judged.limits = common.tolist(), (off / U).tolist(), (limit / U).tolist()
    judged.judged = int(limit.size)
    judged.epochs = [
        Epoch(epoch, mean, first.epoch_means[epoch])
        for epoch, mean in run.epoch_means.items()
        if epoch in first.epoch_means and _whole(run, first, epoch)
    ]
    over = np.flatnonzero(off[: limit.size] > limit)
    norms = np.flatnonzero(distance(run.grad_norm[mine], first.grad_norm[theirs])[: limit.size] > NORM * limit)
    named = f" {_listed(judged)}." if judged.differences or judged.other_data else ""
    measured = ""
    if over.size:
        at = int(over[0])
        measured = f"{off[at] / U:.3g} u from {first.label}, where roundoff explains {limit[at] / U:.3g}"
    if _part(judged, run, common, over, norms, measured):
        judged.reason += named
        return judged
    if judged.first_rate is not None and not judged.differences:
        judged.verdict, judged.reason = "parts", _wrong_rate(judged)
        return judged
    if judged.first_bits is None:
        judged.verdict = "exact"
        judged.reason = f"bit for bit the losses of {first.label}, in all {common.size} steps that both have.{named}"
        return judged
    judged.verdict = "roundoff"
    judged.reason = (
        f"the same as {first.label} within roundoff: bits differ from step {judged.first_bits} on, and up to step "
        f"{int(common[limit.size - 1])} losses by at most {off[: limit.size].max() / U:.3g} u.{named}"
    )
    return judged


def pair_limit(off: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far two right runs may be from each other, relatively, at every step that can be judged [steps or fewer].

    off: their distances [steps].
    """
    limit = np.full(off.shape, PAIR)
    first = int(np.argmax(off > 0)) if off.any() else off.size
    furthest = np.maximum.accumulate(off)
    for step in range(first + MEASURED, off.size):
        limit[step] = max(PAIR, LEAP * furthest[step - WITHIN])
    chaotic = np.flatnonzero(limit > CHAOTIC)
    return limit[: int(chaotic[0])] if chaotic.size else limit


def _begun(run: Run) -> Judged:
    count = int(run.steps.size)
    return Judged(run.label, str(run.path), frameworks=list(run.frameworks), last_step=int(run.steps[-1]), made=count)


def _other_data(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The differences of two descriptions of data; nothing where one of them is not known."""
    known = [name for name in _DATA if one.get(name) is not None and other.get(name) is not None]
    return {name: (one[name], other[name]) for name in known if one[name] != other[name]}


def _listed(judged: Judged) -> str:
    phrases = [f"{name} is {now}, and was {then}" for name, (then, now) in judged.differences.items()]
    phrases += [f"{_DATA[name]} is another" for name in judged.other_data]
    return "; ".join(phrases)


def _rates(judged: Judged, steps: NDArray[np.int64], mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> None:
    """Note the first step whose learning rate differs, with both."""
    unequal = np.flatnonzero(np.abs(mine - theirs) > SAME_RATE * np.abs(theirs))
    if unequal.size:
        at = int(unequal[0])
        judged.first_rate, judged.rates = int(steps[at]), (float(theirs[at]), float(mine[at]))


def _wrong_rate(judged: Judged) -> str:
    theirs, mine = judged.rates
    return f"the learning rate of step {judged.first_rate} is {mine:.9g}, and should be {theirs:.9g}"


def _part(
    judged: Judged,
    run: Run,
    steps: NDArray[np.int64],
    losses: NDArray[np.int64],
    norms: NDArray[np.int64],
    measured: str,
) -> bool:
    """Note the first step that roundoff does not explain, if any, and where to look.

    steps: those compared. losses, norms: the places among them where losses and norms of gradients are over their limits.
    measured: words on the losses' distance.
    """
    if not losses.size and not norms.size:
        return False
    judged.verdict = "parts"
    by_norm = not losses.size or (norms.size and norms[0] < losses[0])
    at = int(norms[0] if by_norm else losses[0])
    step = judged.parts = int(steps[at])
    start = f"parts at step {step}: {measured}. "
    if judged.first_rate is not None and judged.first_rate <= step:
        wrong = _wrong_rate(judged)
        judged.reason = f"{start}{wrong[0].upper()}{wrong[1:]}."
    elif by_norm:
        judged.reason = (
            f"parts at step {step} in the norm of its gradients, while its losses are right so far: look at the gradients "
            "and their scale (accumulation, sums over processes, loss scale)."
        )
    elif not run.lr[run.steps < step].any():
        judged.reason = (
            f"{start}No update came before: look at the first weights, batch and masks of step {step}, "
            "and forward pass."
        )
    elif judged.distances[at] > LEAPS * judged.limits[at]:
        judged.reason = f"{start}It leaps: look at the batch and masks of step {step}, and at the update before it."
    else:
        judged.reason = (
            f"{start}It drifts: look at the update (decay and its groups, moments, rate) rather than at a batch."
        )
    return True


def _whole(run: Run, other: Run, epoch: int) -> bool:
    """Whether two runs have the same steps of an epoch."""
    return np.array_equal(run.steps[run.epochs == epoch], other.steps[other.epochs == epoch])


def _epochs(run: Run, reference: Reference) -> list[Epoch]:
    """The whole epochs of a run beside those of a reference, each with the distance of other seeds."""
    apart = np.abs(reference.seeds - reference.epochs).max(axis=0, initial=0.0)
    # Of an epoch and the next: few seeds may lie near the reference in one epoch by chance.
    wide = [apart[max(0, min(epoch, apart.size - 2)) :][:2].max() for epoch in range(apart.size)]
    return [
        Epoch(epoch, mean, float(reference.epochs[epoch]), float(SEEDS * wide[epoch]) if len(reference.seeds) else 0.0)
        for epoch, mean in run.epoch_means.items()
        if epoch < reference.epochs.size and int((run.epochs == epoch).sum()) == reference.per_epoch
    ]
