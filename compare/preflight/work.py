"""The work of a preflight's processes: it runs the training's own code, and writes the numbers, unjudged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ...backends.initial import initial_weights
from ...backends.installing import in_words
from ...backends.naming import Arrays
from ...backends.runtime import Runtime, load_backend
from ...files.atomic import replacing
from ...training.memory import peak_memory
from ...training.pretrain import Request, open_batches, run_request, training_options
from ...training.recipe import Recipe
from ...training.scaling import LossScale
from ...training.steps import parts, take
from ..levels import gradients, inputs
from ..levels.curve import training_curve
from ..levels.small import training_config
from ..levels.subject import Named, Subject
from ..options import Run
from ..record.environment import recorded_environment
from ..record.inputs import random_inputs, read_inputs
from ..record.record import record
from .jobs import CURVE, STEPS, WORKERS, Job, as_job, read_job_recipe
from .updates import first_update, observed_settings

GROWTH = 4  # from one measured batch to the next


def do(run: Run) -> None:
    """Do a job and write its file. Raises Problem as the work does."""
    job = as_job(run)
    WORK[job.work](job, read_job_recipe(job))


def environment(job: Job, recipe: Recipe) -> None:
    """The recorded environment of this process, which is prepared as for a training."""
    runtime = _prepared(job)
    config = training_config(recipe.config)
    model = runtime.build(config, initial_weights(config), job.device)
    _write(job.out, recorded_environment(runtime, job.device, model))


def batches(job: Job, recipe: Recipe) -> None:
    """The first batches by loaders of several numbers of workers, and the order of two epochs."""
    made = open_batches(job.data, recipe)
    arrays: dict[str, Any] = {}
    for workers in WORKERS:
        with made.loader(0, STEPS, workers, recipe.data.ahead, 0, job.places) as loader:
            for step, batch in loader:
                arrays |= {f"{workers}/{step}/{name}": array for name, array in batch.items()}
    each = made.steps_per_epoch
    for epoch in (0, 1):
        arrays[f"order/{epoch}"] = np.concatenate([made.indices(epoch * each + step) for step in range(each)])
    with replacing(job.out) as new, new.open("wb") as file:
        np.savez(file, **arrays)


def optimizer(job: Job, recipe: Recipe) -> None:
    """The optimizer's changes of each parameter under known gradients, and rates of the schedule."""
    runtime = _prepared(job)
    per_epoch = open_batches(job.data, recipe).steps_per_epoch
    schedule = recipe.schedule_of(per_epoch)
    steps = sampled_steps(recipe, per_epoch)
    observed = observed_settings(runtime, recipe, job.device)
    _write(job.out, observed | {"rates": {step: schedule.rate(step) for step in steps}})


def sampled_steps(recipe: Recipe, per_epoch: int) -> list[int]:
    """Steps of a run that show its schedule: the first, those about the end of the warm-up, some between, the last."""
    last = recipe.schedule.epochs * per_epoch - 1
    warm = round(recipe.schedule.warmup_epochs * per_epoch)
    wanted = {*range(4), *range(warm - 2, warm + 3), *(last * i // 40 for i in range(41))}
    return sorted(step for step in wanted if 0 <= step <= last)


def step(job: Job, recipe: Recipe) -> None:
    """A trace of one real step of the real model on a small batch, and of the small model's first steps."""
    record(job, tensors_of=partial(_stepped, recipe=recipe, more=job.out.with_suffix(".json")))


def reference(job: Job, recipe: Recipe) -> None:
    """The same of the oracle or a twin, whose pass is recorded."""
    record(job, tensors_of=_referred)


def _referred(subject: Subject) -> Iterator[Named]:
    yield from inputs.received(subject)
    yield from gradients.record(subject)
    if "curve" in subject.run.levels:
        yield from training_curve(subject.runtime, subject.config, subject.run.device, subject.run.dtype, CURVE)


def _stepped(subject: Subject, recipe: Recipe, more: Path) -> Iterator[Named]:
    """The tensors of a training's step: with both betas 0, the first moment after it is the gradient, bit for bit."""
    runtime, model, run = subject.runtime, subject.model, subject.run
    yield from inputs.received(subject)
    settings = replace(recipe.settings, betas=(0.0, 0.0), clip=None)
    loss, gradients = _gradients(subject, recipe, settings, "float32")
    yield "loss", np.array(loss, run.dtype)
    options = training_options(recipe, run.device) | {"precision": "float32"}
    figures: dict[str, Any] = {"update": first_update(runtime, model, subject.inputs, gradients, recipe, options)}
    runtime.load_weights(model, initial_weights(subject.config, run.seed))
    if (precision := recipe.computing.precision) != "float32":
        figures["precision"] = _distance(loss, gradients, *_gradients(subject, recipe, settings, precision))
    passed = runtime.run(model, subject.inputs, run.mask_ratio).taps
    yield from ((name, passed[name]) for name in ("mask", "ids_restore"))
    yield from ((f"grad/{name}", array) for name, array in gradients.items())
    compiled = recipe.computing.compiled
    yield from training_curve(runtime, subject.config, run.device, run.dtype, CURVE, compiled=compiled)
    _write(more, figures)


def _gradients(subject: Subject, recipe: Recipe, settings: Any, precision: str) -> tuple[float, Arrays]:
    """Loss and gradients by spec name out of a training's step at rate 0, which leaves the weights as they are."""
    runtime = subject.runtime
    optimizer = runtime.optimizer(subject.model, settings)
    training = runtime.training(
        subject.model, optimizer, **(training_options(recipe, subject.run.device) | {"precision": precision})
    )
    parts_of = min(recipe.batch.parts, len(subject.inputs["imgs"]))
    scale = LossScale.of(precision).scale
    while not math.isfinite((taken := take(training, subject.inputs, 0.0, parts_of, scale)).norm) and scale > 1:
        scale /= 2  # as a training would go on
    return taken.loss, dict(optimizer.state().m)


def _distance(loss: float, gradients: Arrays, mixed_loss: float, mixed: Arrays) -> dict[str, float]:
    """How far a step in mixed precision is from that in float32, relatively: the loss, and all gradients together."""
    off = sum(float(np.sum((mixed[name].astype(np.float64) - gradients[name]) ** 2)) for name in gradients)
    size = sum(float(np.sum(array.astype(np.float64) ** 2)) for array in gradients.values())
    return {"loss": abs(mixed_loss - loss) / abs(loss), "gradients": (off / size) ** 0.5 if size else float(off > 0)}


def losses(job: Job, recipe: Recipe) -> None:
    """The oracle's losses of single images' batches in the file of inputs, with the initial weights of a recipe."""
    runtime = _prepared(job)
    config = recipe.config
    model = runtime.build(config, initial_weights(config, recipe.seed), job.device, job.dtype)
    arrays = read_inputs(job.inputs, config)
    values = []
    for part in parts(len(arrays["imgs"]), len(arrays["imgs"]) // recipe.batch.batch_size):
        batch = {name: array[part] for name, array in arrays.items()}
        values.append(float(runtime.run(model, batch, recipe.mask_ratio).taps["loss"]))
    _write(job.out, values)


def measure(job: Job, recipe: Recipe) -> None:
    """Seconds and memory of a step at growing batches, up to the real one or the time; then images a second of the loader."""
    runtime, config = _prepared(job), recipe.config
    before = peak_memory()
    model = runtime.build(config, initial_weights(config, recipe.seed), job.device)
    training = runtime.training(
        model,
        runtime.optimizer(model, recipe.settings),
        **training_options(recipe, job.device),
    )
    whole = -(-recipe.batch.batch_size // recipe.batch.parts)
    rows: list[dict[str, float]] = []
    began, images, problem = perf_counter(), min(2, whole), ""
    while True:
        batch = random_inputs(config, images, recipe.seed)
        try:
            take(training, batch, 0.0)  # compiles, where the framework does
            first = perf_counter()
            take(training, batch, 0.0)
        except Exception as caught:  # each framework has a kind of its own for a device that is full
            if not rows:
                raise
            problem = f"{images} images: {in_words(caught)}"
            break
        rows.append({"images": images, "seconds": perf_counter() - first, "memory": peak_memory()})
        after = min(whole, GROWTH * images)
        expected = 2 * rows[-1]["seconds"] * after / images
        fits = predicted_memory(rows, after) < 0.8 * memory_limit()
        late = len(rows) > 1 and perf_counter() - began + expected > job.seconds
        if images == whole or not fits or late:
            break
        images = after
    _write(
        job.out,
        {"before": before, "steps": rows, "whole": whole, "problem": problem, "loader": _loaded_images(job, recipe)},
    )


def predicted_memory(rows: list[dict[str, float]], images: int) -> float:
    """Bytes that a larger batch will take, by the last two that were measured."""
    if len(rows) < 2:
        return rows[-1]["memory"]
    one, two = rows[-2:]
    return two["memory"] + (two["memory"] - one["memory"]) / (two["images"] - one["images"]) * (images - two["images"])


def memory_limit() -> int:
    """Bytes of main memory that this process may take: the machine's, or its control group's."""
    import os

    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(path).read_text()))
        except (OSError, ValueError):  # there is none, or it says "max"
            continue
    return total


def _loaded_images(job: Job, recipe: Recipe) -> dict[str, float]:
    """Images and seconds of the recipe's loader alone, for a sixth of the time at most."""
    made = open_batches(job.data, recipe)
    many = min(recipe.batch.batch_size, 64)
    images, began = 0, perf_counter()
    last = made.steps_per_epoch * recipe.schedule.epochs
    with made.loader(0, last, recipe.data.workers, recipe.data.ahead, 0, many) as loader:
        for _, batch in loader:
            images += len(batch["imgs"])
            if images >= 2048 or perf_counter() - began > job.seconds / 6:
                break
        seconds = perf_counter() - began
    return {"images": images, "seconds": seconds}


def train(job: Job, recipe: Recipe) -> None:
    """A pre-training, by the loop itself."""
    assert job.folder is not None
    request = Request(
        job.framework, job.data, job.folder, recipe, resume=job.resume, device=job.device, threads=job.threads
    )
    outcome = run_request(request)
    _write(job.out, {"step": outcome.step, "loss": outcome.loss})


def _prepared(job: Job) -> Runtime:
    """The framework, set up as a training sets it up."""
    runtime = load_backend(job.framework)
    runtime.setup(job.device, job.threads, job.seed)
    return runtime


def _write(path: Path, content: Any) -> None:
    with replacing(path) as new:
        new.write_text(json.dumps(content))


WORK: dict[str, Callable[[Job, Recipe], None]] = {
    work.__name__: work for work in (environment, batches, optimizer, step, reference, losses, measure, train)
}
