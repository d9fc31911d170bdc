"""The loop of training: one for every framework and task, from a request to a run's folder that can be gone on with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..backends.averaging import Average, Averaged
from ..backends.optimization import State as Moments
from ..backends.runtime import Runtime, load_backend
from ..data.batches import Batch
from ..files.atomic import replacing
from ..files.errors import Problem
from ..files.version import __version__
from . import checkpoints, run
from .autoencoding import Autoencoding
from .checkpoints import Facts, Snapshot
from .classification import Classification
from .classifying import FineTuning, Probe
from .reading import as_yaml, kind_of, recipe_of
from .recipe import Common, Recipe, differences, tree_of
from .request import Outcome, Request
from .scaling import LossScale
from .signals import Signals
from .steps import Taken, take
from .task import Task, Weights
from .watching import Watcher

_LOOKED_AT = 128  # images of the first batch whose digest tells whether the data is the same
TASKS: Mapping[str, type[Task]] = {  # by the recipe's
    Recipe.task: Autoencoding,
    FineTuning.task: Classification,
    Probe.task: Classification,
}


class NotFinite(Problem):
    """Loss or gradients that are not finite; the batch and the weights before it are in the run's folder."""


def run_request(request: Request, show: bool = False) -> Outcome:
    """Do what is asked for. show: progress on stderr."""
    start = None
    if request.resume is not None:
        start = request.resume if request.resume.is_file() else checkpoints.find(request.resume)
    if start is None or start.parent.parent != Path(request.out).resolve():
        run.require_new(request.out)
    elif (last := checkpoints.steps_of(request.out)[-1]) != int(start.name):
        raise Problem(
            f"{request.out} goes on to step {last}, which going on from step {start.name} in the same folder would remove. "
            f"Give another folder as --out, or go on from its end: --resume {request.out}"
        )
    runtime = load_backend(request.framework)
    with run.held(request.out):
        return _Run(request, runtime, start, show).go()


class _Run:
    """One process's part of a run."""

    def __init__(self, request: Request, runtime: Runtime, start: Path | None, show: bool):
        self.request, self.runtime, self.recipe = request, runtime, request.recipe
        recipe = request.recipe
        self.task = TASKS[recipe.task](replace(request, resume=start))
        self.batches = self.task.batches
        dataset = self.batches.dataset
        self.data = {
            "path": str(request.data.absolute()), "images": len(dataset), "fingerprint": dataset.fingerprint(),
            "first_batch": self.batches.digest([0], _LOOKED_AT), **self.task.describe(),
        }  # fmt: skip
        self.per_epoch = self.batches.steps_per_epoch
        self.schedule = recipe.schedule_of(self.per_epoch)
        self.end = recipe.steps(self.per_epoch)
        self.step = 0
        self.scale = LossScale.of(recipe.computing.precision)
        weights, moments, averaged = self._begin(start)
        runtime.setup(request.device, request.threads, recipe.seed)
        self.model = runtime.build(self.task.config, weights, request.device, request.dtype)
        self.optimizer = runtime.optimizer(self.model, recipe.settings)
        if moments is not None:
            self.optimizer.load_state(moments)
        self.average: Average | None = None
        if recipe.averaging is not None:
            self.average = runtime.average(self.model, recipe.averaging)
            if averaged is not None:
                self.average.load_state(averaged)
        self.training = runtime.training(self.model, self.optimizer, average=self.average, **self.task.options())
        self._open_folder(start)
        self.watcher = Watcher(self, show)

    def _begin(self, start: Path | None) -> tuple[Weights, Moments | None, Averaged | None]:
        """Weights, moments and the weights' average to begin with, and the step."""
        if start is None:
            return self.task.weights(), None, None
        if start.is_file():
            official = self.task.official(start)
            self.step = (official.epoch + 1) * self.per_epoch
            if official.scaler and self.scale.scaling:
                growth = int(official.scaler["_growth_tracker"])
                self.scale.load_state_dict({"scale": official.scaler["scale"], "finite": growth})
            return official.weights, official.moments, None
        facts = checkpoints.facts_of(start)
        if not self.request.changed:
            _require_same(start, facts, self.recipe, self.data)
        self.task.config = self.task.resumed(facts)
        snapshot = checkpoints.load(start, self.task.config, self.recipe.settings)
        self.step = facts.step
        if facts.scale and self.scale.scaling:
            self.scale.load_state_dict(facts.scale)
        return snapshot.weights, snapshot.moments, snapshot.averaged

    def _open_folder(self, start: Path | None) -> None:
        """The recipe beside the run, and its lines up to the step that is gone on from."""
        out = self.request.out
        out.mkdir(parents=True, exist_ok=True)
        checkpoints.remove_leftovers(out)
        with replacing(out / run.RECIPE) as new:
            new.write_text(as_yaml(self.recipe), encoding="utf-8")
        if start is not None and start.is_dir():
            source = start.parent.parent
            run.cut_lines(out / run.STEPS, source / run.STEPS, "step", self.step + 1)
            run.cut_lines(out / run.LOG, source / run.LOG, "epoch", self.step // self.per_epoch)

    def go(self) -> Outcome:
        """Train to the end, or until a signal."""
        recipe, saved = self.recipe, self.step
        if not (self.request.out / checkpoints.FOLDER / str(self.step) / checkpoints.STATE).is_file():
            self._save()  # a run can be gone on with from its first moment on, and a disk that is too small shows at once
        lines = run.Lines(self.request.out / run.STEPS)
        stopped = ""
        try:
            with (
                Signals() as signals,
                self.watcher,
                self.batches.loader(self.step, self.end, recipe.data.workers, recipe.data.ahead) as loader,
            ):
                self.watcher.begin(loader)
                for step, batch in loader:
                    lr = self.schedule.rate(step)
                    taken = take(self.training, batch, lr, recipe.batch.parts, self.scale.scale)
                    finite = math.isfinite(taken.norm)
                    if not (math.isfinite(taken.loss) and (finite or self.scale.scaling)):
                        raise self._not_finite(step, batch, taken)
                    self.scale.update(finite)  # where float16 overflowed, nothing was changed
                    self.step = step + 1
                    epoch = step // self.per_epoch
                    norm = taken.norm if finite else None
                    lines.add({"step": self.step, "epoch": epoch, "loss": taken.loss, "lr": lr, "grad_norm": norm})
                    self.watcher.after_step(epoch, taken, lr)
                    if self.step % self.per_epoch == 0:
                        self.watcher.after_epoch(epoch)
                    if self._due():
                        self._save()
                        saved = self.step
                    if stopped := signals.caught:
                        break
        finally:
            lines.close()
        if saved != self.step:
            self._save()
        last = self.request.out / checkpoints.FOLDER / str(self.step)
        return Outcome(self.step, self.watcher.loss, stopped, last, self.watcher.score)

    def _due(self) -> bool:
        saving = self.recipe.checkpoints
        if saving.save_every_steps and self.step % saving.save_every_steps == 0:
            return True
        return bool(saving.save_every_epochs and self.step % (saving.save_every_epochs * self.per_epoch) == 0)

    def _save(self) -> None:
        state, request = self.optimizer.state(), self.request
        version = str(self.runtime.environment(request.device)["version"])
        facts = Facts(
            step=self.step,
            epoch=self.step // self.per_epoch,
            updates=state.step,
            framework=request.framework,
            versions={"polymae": __version__, request.framework: version},
            dtype=request.dtype,
            scale=self.scale.state_dict() if self.scale.scaling else None,
            data=self.data,
            recipe=tree_of(self.recipe),
            loss=self.watcher.epoch_loss,
            score=self.watcher.score if self.step % self.per_epoch == 0 else None,
            config=asdict(self.task.config) if self.recipe.task != Recipe.task else None,
        )
        averaged = None if self.average is None else self.average.state()
        weights = self.runtime.weights(self.model)
        checkpoints.save(request.out, Snapshot(facts, self.task.config, weights, state, averaged))
        kept = self._kept()
        checkpoints.prune(request.out, self.recipe.checkpoints.keep_last, kept)

    def _kept(self) -> set[int]:
        """The steps of checkpoints that stay however many there are."""
        saving, out = self.recipe.checkpoints, self.request.out
        there = checkpoints.steps_of(out)
        kept: set[int] = set()
        if saving.keep_every_epochs:
            kept |= {step for step in there if step % (saving.keep_every_epochs * self.per_epoch) == 0}
        if saving.keep_best:
            ranks = {step: self.task.rank(checkpoints.facts_of(out / checkpoints.FOLDER / str(step))) for step in there}
            measured = {step: rank for step, rank in ranks.items() if rank is not None}
            if measured:
                best = max(measured, key=lambda step: (measured[step], -step))
                checkpoints.point(out / checkpoints.FOLDER / checkpoints.BEST, str(best))
                kept.add(best)
        return kept

    def _not_finite(self, step: int, batch: Batch, taken: Taken) -> NotFinite:
        """Keep what is needed to look into it."""
        folder = self.request.out / run.NOT_FINITE / str(step + 1)
        with replacing(folder) as new:
            new.mkdir()
            np.savez(new / "batch.npz", indices=self.batches.indices(step), **batch)
            np.savez(new / "weights.npz", **self.runtime.weights(self.model))
        names = [self.batches.dataset.name(int(index)) for index in self.batches.indices(step)[:3]]
        last = checkpoints.steps_of(self.request.out)
        resume = f"--resume {self.request.out}" if last else "begin again"
        kind = "loss" if not math.isfinite(taken.loss) else "gradients' norm"
        return NotFinite(
            f"At step {step + 1} the {kind} is {taken.loss if kind == 'loss' else taken.norm}: the run was stopped before it "
            f"changed the weights. Its images ({', '.join(names)}, ...) and the weights before it are in {folder}. "
            f"A lower lr, clip_grad=1.0 or precision=float32 may help: {resume} with --set and --accept-changes."
        )


def _require_same(start: Path, facts: Facts, recipe: Common, data: Mapping[str, Any]) -> None:
    """Raise Problem, listing what differs, where a checkpoint is of another recipe or other data."""
    told = []
    where = str(start / checkpoints.STATE)
    then = recipe_of(facts.recipe, where, kind_of(facts.recipe, where))
    for name, (before, now) in differences(then, recipe).items():
        told.append(f"{name} was {before} and is {now}")
    for name, words in (("fingerprint", "the list of images"), ("first_batch", "the first batch")):
        if facts.data.get(name) != data[name]:
            told.append(
                f"{words} of {data['path']} ({data['images']} images) is another than of {facts.data.get('path')} "
                f"({facts.data.get('images')} images)"
            )
            break
    if facts.data.get("eval_fingerprint") != data.get("eval_fingerprint"):
        told.append(f"the images that are measured on were {facts.data.get('eval_data')}, and are others now")
    if told:
        listed = "\n  ".join(told)
        raise Problem(
            f"{start} is of another run than the one asked for:\n  {listed}\nLeave these settings out to go on as before, "
            "or add --accept-changes."
        )
