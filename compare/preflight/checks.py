"""Checks of the environment, the optimizer, the schedule, the loop and a resumed run, from the files of the processes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...backends.spec import Param, params
from ...training import checkpoints
from ...training.recipe import Recipe
from ..record.environment import MATH_MODES
from . import law
from .result import Check
from .work import predicted_memory

CLOSE = 1e-4  # relative: of settings that are read off float32 numbers
RATES = 1e-12  # relative: of float64 learning rates
LOSSES = 1e-4  # relative: of a loss in float32 on the right batch; that of another batch is percents away
# Distance of a step in mixed precision, in units of the precision's roundoff, that is still its roundoff.
MIXED = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
MIXED_LOSS, MIXED_GRADIENTS = 16.0, 128.0


def check_tf32(environment: Mapping[str, Any]) -> Check:
    """Nothing that this process was set to rounds float32 to fewer bits."""
    causes = []
    if environment.get("tf32"):
        causes.append("TF32 is on")
    precision = environment.get("float32_matmul_precision", "highest")
    if precision != "highest":
        causes.append(f"products of float32 are computed in the precision {precision!r}")
    variables = environment.get("variables", {})
    causes += [f"{name}={value}" for name, value in variables.items() if "TF32" in name and value != "0"]
    causes += [f"{name}={variables[name]}" for name in MATH_MODES if variables.get(name, "STRICT").upper() != "STRICT"]
    if causes:
        return Check(
            "tf32", "failed", f"{', '.join(causes)}: what is multiplied is rounded to fewer bits than float32 has"
        )
    version = f"{environment['framework']} {environment['version']} on {environment['device']}"
    return Check("tf32", "passed", f"off, in {version}, {environment.get('threads') or 'its'} threads", environment)


def check_optimizer(seen: Mapping[str, Any], recipe: Recipe) -> Check:
    """Decay groups, betas, bias correction, eps and clipping of the real model's optimizer."""
    wrong = [*_wrong_decay(seen, recipe), *_wrong_moments(seen, recipe)]
    settings = recipe.optimizer
    if wrong:
        return Check("optimizer", "failed", "; ".join(wrong[:4]), {"wrong": wrong})
    decayed = sum(law.decays(p.name, len(p.shape), recipe) for p in _trained(recipe))
    return Check(
        "optimizer", "passed",
        f"decay {settings.weight_decay:g} of {decayed} parameters and 0 of {len(_trained(recipe)) - decayed}, betas "
        f"{settings.betas[0]:g} and {settings.betas[1]:g}, eps {settings.eps:g}, clipping {settings.clip_grad or 'none'}",
    )  # fmt: skip


def check_update(update: Mapping[str, Any]) -> Check:
    """One update of the real model by its own gradients, at the highest rate, against the law in float64."""
    wrong = _wrong_update(update)
    if wrong:
        return Check("update", "failed", "; ".join(wrong), update)
    worst, name = update["weights"]
    return Check(
        "update", "passed",
        f"each weight of the real model after a step at rate {update['lr']:.4g} is at most {worst:.2g} of what roundoff may do "
        f"from float64's (most in {name}); gradients of norm {update['gradient_norm']:.4g} are scaled by "
        f"{update['clipped_to']:.4g}",
        update,
    )  # fmt: skip


def _trained(recipe: Recipe) -> list[Param]:
    return [param for param in params(recipe.config) if param.trainable]


def _wrong_decay(seen: Mapping[str, Any], recipe: Recipe) -> list[str]:
    groups: dict[tuple[str, float], list[str]] = {}
    for param in params(recipe.config):
        low, high = seen["decay"][param.name]
        wanted = (
            recipe.optimizer.weight_decay
            if param.trainable and law.decays(param.name, len(param.shape), recipe)
            else 0.0
        )
        if max(abs(low - wanted), abs(high - wanted)) > 1e-6:
            off = high if abs(high - wanted) > abs(low - wanted) else low
            groups.setdefault((f"{wanted:g}", round(off, 6)), []).append(param.name)
    return [
        f"{names[0]} and {len(names) - 1} others decay by {off:g}, where the recipe's rule says {wanted}"
        for (wanted, off), names in groups.items()
    ]


def _wrong_moments(seen: Mapping[str, Any], recipe: Recipe) -> list[str]:
    (beta1, beta2), eps, gradient = recipe.optimizer.betas, recipe.optimizer.eps, seen["gradient"]
    decay = recipe.optimizer.weight_decay
    wrong = []
    for kind, beta, place in (("first", beta1, "m"), ("second", beta2, "v")):
        for steps, name in ((1, "first"), (2, "second")):
            if off := _off(seen[name][place], 1 - beta**steps, CLOSE):
                kept = (1 - off) ** (1 / steps) if off < 1 else math.nan
                wrong.append(f"the {kind} moment after {steps} steps has beta {kept:.4g}, the recipe's is {beta:g}")
                break
    step = gradient / (gradient + eps)
    shrink = {p.name: 1 - decay if law.decays(p.name, len(p.shape), recipe) else 1.0 for p in _trained(recipe)}
    for name, wanted in (
        ("first", dict.fromkeys(shrink, -step)),
        ("second", {one: -step * rest - step for one, rest in shrink.items()}),
    ):
        if any(_off({one: seen[name]["weights"][one]}, wanted[one], CLOSE) for one in wanted):
            wrong.append(f"the {name} update of a constant gradient has another size: bias correction or rate differ")
    if _off({one: seen["loaded"][one] for one in shrink}, -step, CLOSE):
        wrong.append(
            "an update that goes on from a state has another size: its steps or moments are not those that were loaded"
        )
    most = recipe.optimizer.clip_grad
    if most is not None and (off := _off(seen["clip"], (1 - beta1) / 10, 1e-3)):
        wrong.append(f"gradients of ten times the norm {most:g} are scaled by {off / (1 - beta1):.3g}, not by 0.1")
    trained = {one: seen["eps"][one] for one in shrink}
    if eps > 1e-16 and (off := _off(trained, -0.5, 1e-3)):
        wrong.append(f"a gradient of the size of eps, {eps:g}, changes a weight by {-off:.3g} of the rate, not by half")
    return wrong


def _off(bounds: Mapping[str, Sequence[float]], wanted: float, relative: float) -> float:
    """The element that is furthest from a number, where it is further than relative to it; else 0."""
    furthest = max((value for pair in bounds.values() for value in pair), key=lambda value: abs(value - wanted))
    return furthest if not abs(furthest - wanted) <= relative * abs(wanted) else 0.0


def _wrong_update(update: Mapping[str, Any]) -> list[str]:
    wrong = []
    if not update["norm"] <= CLOSE:
        wrong.append(f"the gradients' norm is {update['norm']:.2g} off, relatively")
    if not update["m"] <= 1e-3:
        wrong.append(f"the first moments of a real step are {update['m']:.2g} off, relatively")
    for kind, words in (("v", "second moments"), ("weights", "weights")):
        worst, name = update[kind]
        if not worst <= 1:
            wrong.append(
                f"after a real step the {words} are {worst:.3g} times off what roundoff may do, most in {name}"
            )
    return wrong


def check_schedule(
    rates: Mapping[str, float],
    per_epoch: int,
    recipe: Recipe,
    loop: Sequence[float],
    tried: Recipe,
    tried_per_epoch: int,
) -> Check:
    """Learning rates against the law: of the recipe at sampled steps, and those that the loop really took.

    rates: by step. loop: of the loop's first steps, with the recipe and the steps an epoch that it had.
    """
    peak = law.peak_rate(recipe)
    of_loop = {str(step): rate for step, rate in enumerate(loop)}
    for words, rates_seen, of, each in (
        ("the loop took at", of_loop, tried, tried_per_epoch),
        ("the schedule has at", rates, recipe, per_epoch),
    ):
        for text, lr in rates_seen.items():
            wanted = law.rate(of, each, int(text))
            if abs(lr - wanted) > RATES * peak:
                near = [shift for shift in (-1, 1) if abs(lr - law.rate(of, each, int(text) + shift)) <= RATES * peak]
                also = f", that of step {int(text) + near[0]}" if near else ""
                return Check(
                    "schedule",
                    "failed",
                    f"the rate that {words} step {text} is {lr:.6g}{also}; the recipe's is {wanted:.6g}",
                )
    return Check(
        "schedule", "passed",
        f"{len(rates)} rates of {recipe.schedule.epochs * per_epoch:,} steps and the loop's first {len(loop)} equal the "
        f"formula's (peak {peak:.4g})",
        {"peak": peak, "steps_per_epoch": per_epoch},
    )  # fmt: skip


def check_loop(lines: Sequence[Mapping[str, Any]], oracle: Sequence[float], tried: Recipe) -> Check:
    """The loop's first losses against the oracle's on the batches that must come first, made here."""
    # While the rate is 0 the weights are the initial ones, also at the second step.
    still = 2 if tried.schedule.warmup_epochs > 0 else 1
    off = [abs(line["loss"] - exact) / abs(exact) for line, exact in zip(lines[:still], oracle)]
    limit = LOSSES if tried.computing.precision == "float32" else MIXED_LOSS * MIXED[tried.computing.precision]
    words = ", ".join(f"{line['loss']:.7g} ({exact:.7g})" for line, exact in zip(lines[:still], oracle))
    if not all(distance <= limit for distance in off):
        return Check(
            "loop",
            "failed",
            f"the first losses of the training loop are not the oracle's on the right batches: {words}",
        )
    return Check(
        "loop", "passed", f"the training loop's first losses are the oracle's on the right batches: {words}",
        {"relative": off},
    )  # fmt: skip


def check_resume(
    whole: Path, resumed: Path, config: Any, at: int, lines: Sequence[Sequence[Mapping[str, Any]]]
) -> Check:
    """A run that was killed and gone on with beside one that was not. at: the step that it was gone on from."""
    numbers = [[(line["step"], line["loss"], line["lr"], line["grad_norm"]) for line in one] for one in lines]
    for one, other in zip(*numbers):
        if one != other:
            return Check(
                "resume",
                "failed",
                f"killed and resumed at step {at}, step {one[0]} has the loss {other[1]!r}, not {one[1]!r}",
            )
    if len(numbers[0]) != len(numbers[1]):
        return Check("resume", "failed", f"the resumed run has {len(numbers[1])} steps, not {len(numbers[0])}")
    one, other = (checkpoints.load(checkpoints.find(run), config) for run in (whole, resumed))
    for kind, mine, theirs in (
        ("weights", one.weights, other.weights),
        ("first moments", one.moments.m, other.moments.m),
        ("second moments", one.moments.v, other.moments.v),
    ):
        unlike = [name for name in mine if not np.array_equal(mine[name], theirs[name])]
        if unlike:
            return Check(
                "resume", "failed", f"the {kind} after the resumed run differ in {len(unlike)}, first {unlike[0]}"
            )
    return Check(
        "resume", "passed",
        f"killed by SIGKILL, resumed at step {at}: losses, weights and moments after step {one.facts.step} equal bit for bit",
        {"resumed_at": at, "steps": one.facts.step},
    )  # fmt: skip


def check_precision(distance: Mapping[str, float] | None, recipe: Recipe) -> Check:
    """How far a step in the recipe's precision is from that in float32."""
    precision = recipe.computing.precision
    if distance is None:
        return Check("precision", "passed", "the recipe trains in float32; no mixed precision was asked for")
    unit = MIXED[precision]
    loss, gradients = distance["loss"] / unit, distance["gradients"] / unit
    right = loss <= MIXED_LOSS and gradients <= MIXED_GRADIENTS
    return Check(
        "precision", "passed" if right else "failed",
        f"{precision}: the loss is {distance['loss']:.2g} from float32's and the gradients {distance['gradients']:.2g}, "
        f"relatively: {loss:.2g} and {gradients:.2g} of its roundoffs (at most {MIXED_LOSS:g} and {MIXED_GRADIENTS:g})",
        distance,
    )  # fmt: skip


def check_memory(seen: Mapping[str, Any], limit: int, recipe: Recipe) -> Check:
    """The memory of a step of the real batch, measured or continued from smaller ones, beside the machine's."""
    rows, whole = seen["steps"], int(seen["whole"])
    last = rows[-1]
    measured = last["images"] == whole
    needed = last["memory"] if measured else predicted_memory(rows, whole)
    known = "measured" if measured else f"continued from {int(last['images'])}" if len(rows) > 1 else "not known"
    parts = f", in {recipe.batch.parts} parts" if recipe.batch.parts > 1 else ""
    reason = (
        f"{needed / 1e9:.2f} GB of main memory for {whole} images at a time{parts} ({known}), of {limit / 1e9:.1f} GB"
    )
    figures = {"bytes": needed, "limit": limit, "measured": measured, "steps": rows}
    if problem := seen["problem"]:
        advice = f"a step ends in an error with {problem}; --set micro_batch_size={int(last['images'])} takes so many at a time"
        return Check("memory", "failed", advice, figures)
    if needed <= 0.9 * limit:
        return Check("memory", "passed", reason, figures)
    slope = (last["memory"] - seen["before"]) / last["images"]
    images = max(1, int((0.8 * limit - seen["before"]) / slope)) if slope else whole
    return Check("memory", "failed", f"{reason}; --set micro_batch_size={images} would fit", figures)


def measured_speed(seen: Mapping[str, Any], recipe: Recipe) -> Check:
    """Images a second of steps and of the loader: a report, no verdict."""
    last, loader = seen["steps"][-1], seen["loader"]
    steps, loads = last["images"] / last["seconds"], loader["images"] / loader["seconds"]
    share = max(0.0, 1 - loads / steps)
    advice = f": training would wait for data {share:.0%} of the time; more workers help" if share > 0.05 else ""
    epoch = recipe.batch.batch_size / min(steps, loads)
    return Check(
        "speed", "measured",
        f"steps take {steps:,.3g} images/s (batch {int(last['images'])}), {recipe.data.workers} workers load "
        f"{loads:,.3g}{advice}; a step of {recipe.batch.batch_size} images takes about {epoch:,.3g} s",
        {"step_images_per_second": steps, "loader_images_per_second": loads, "waiting": share},
    )  # fmt: skip
