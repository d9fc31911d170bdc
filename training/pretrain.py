"""Pre-training: one loop for every framework, from a recipe, a data set and a folder to a run that can be gone on with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..backends.config import MAEConfig
from ..backends.initial import initial_weights
from ..backends.optimization import State as Moments
from ..backends.runtime import Runtime, load_backend
from ..convert.checkpoint import open_checkpoint
from ..convert.training_state import read_training_checkpoint
from ..data.batches import Batch, Batches
from ..data.datasets import open_dataset
from ..files.atomic import replacing
from ..files.errors import Problem
from ..files.version import __version__
from . import checkpoints, run
from .checkpoints import Facts, Snapshot
from .official import recipe_in
from .reading import as_yaml, read_recipe, recipe_of
from .recipe import Recipe, differences
from .scaling import LossScale
from .signals import Signals
from .steps import Taken, take
from .watching import Watcher

_LOOKED_AT = 128  # images of the first batch whose digest tells whether the data is the same


class NotFinite(Problem):
    """Loss or gradients that are not finite; the batch and the weights before it are in the run's folder."""


@dataclass(frozen=True)
class Request:
    """A pre-training to be done.

    data: a folder, list or file of images. out: the run's folder. weights: a checkpoint to begin with, of any framework.
    resume: a run, or a checkpoint in it, to go on from. changed: go on although recipe or data differ. threads: None leaves
    the framework's default. dtype: float64 for the oracle.
    """

    framework: str
    data: Path
    out: Path
    recipe: Recipe
    weights: Path | None = None
    resume: Path | None = None
    changed: bool = False
    device: str = "cpu"
    threads: int | None = None
    dtype: str = "float32"


@dataclass(frozen=True)
class Outcome:
    """How a run ended. stopped: by which signal, "" where it came to its end."""

    step: int
    loss: float | None
    stopped: str
    checkpoint: Path


def pretrain(
    framework: str,
    data: str | Path,
    out: str | Path,
    recipe: Recipe | str | Path | None = None,
    settings: tuple[str, ...] = (),
    **options: Any,
) -> Outcome:
    """Pre-train a masked autoencoder; the command `polymae pretrain` as a function.

    recipe: a Recipe, the name of one, or a YAML file; settings: "name=value" changes of a named one. options: those of
    Request. Raises Problem for anything that a person can mend, NotFinite among them.
    """
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe, settings)
    request = Request(framework, Path(data), Path(out), recipe, **options)
    return run_request(request)


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


def resumed(
    path: Path,
    settings: Sequence[str] = (),
    recipe: str | None = None,
    framework: str | None = None,
    data: Path | None = None,
    out: Path | None = None,
    **options: Any,
) -> Request:
    """The request that goes on from a run, or a checkpoint in it, as it was, but for what is given.

    Raises Problem where it cannot be gone on from.
    """
    if path.is_file():
        missing = [name for name, value in (("framework", framework), ("data", data), ("out", out)) if value is None]
        if framework is None or data is None or out is None:
            raise Problem(
                f"{path} is a checkpoint of the official code; to go on from it also give --{' --'.join(missing)}."
            )
        return Request(framework, data, out, read_recipe(recipe or recipe_in(path), settings), resume=path, **options)
    start = checkpoints.find(path)
    facts = checkpoints.facts_of(start)
    then = read_recipe(recipe or facts.recipe, settings)
    return Request(
        framework or facts.framework, data or Path(facts.data["path"]), out or start.parent.parent, then, resume=start,
        dtype=facts.dtype, **options,
    )  # fmt: skip


def open_batches(data: Path, recipe: Recipe) -> Batches:
    """The batches of a run. Raises Problem for a data set that cannot be read, or fills none."""
    return Batches(
        open_dataset(data, recipe.data.data_format, recipe.data.split), recipe.augmentation, recipe.batch.batch_size,
        recipe.seed, recipe.config.num_patches, skip_broken=recipe.data.skip_broken,
    )  # fmt: skip


def training_options(recipe: Recipe, device: str) -> dict[str, Any]:
    """The options of backends' Training that a recipe asks for."""
    computing = recipe.computing
    return {
        "mask_ratio": recipe.mask_ratio, "precision": computing.precision, "device": device, "compiled": computing.compiled,
    }  # fmt: skip


class _Run:
    """One process's part of a run."""

    def __init__(self, request: Request, runtime: Runtime, start: Path | None, show: bool):
        self.request, self.runtime, self.recipe = request, runtime, request.recipe
        recipe, config = request.recipe, request.recipe.config
        self.config: MAEConfig = config
        self.batches = open_batches(request.data, recipe)
        dataset = self.batches.dataset
        self.data = {
            "path": str(request.data.absolute()), "images": len(dataset), "fingerprint": dataset.fingerprint(),
            "first_batch": self.batches.digest([0], _LOOKED_AT),
        }  # fmt: skip
        self.per_epoch = self.batches.steps_per_epoch
        self.schedule = recipe.schedule_of(self.per_epoch)
        self.end = recipe.steps(self.per_epoch)
        self.step = 0
        self.scale = LossScale.of(recipe.computing.precision)
        weights, moments = self._begin(start)
        runtime.setup(request.device, request.threads, recipe.seed)
        self.model = runtime.build(config, weights, request.device, request.dtype)
        self.optimizer = runtime.optimizer(self.model, recipe.settings)
        if moments is not None:
            self.optimizer.load_state(moments)
        self.training = runtime.training(self.model, self.optimizer, **training_options(recipe, request.device))
        self._open_folder(start)
        self.watcher = Watcher(self, show)

    def _begin(self, start: Path | None) -> tuple[Mapping[str, Any], Moments | None]:
        """Weights and moments to begin with, and the step."""
        if start is None:
            if self.request.weights is None:
                return initial_weights(self.config, self.recipe.seed), None
            return open_checkpoint(self.request.weights).weights(self.config), None
        if start.is_file():
            return self._from_official(start)
        snapshot = checkpoints.load(start, self.config)
        facts = snapshot.facts
        if not self.request.changed:
            _require_same(start, facts, self.recipe, self.data)
        self.step = facts.step
        if facts.scale and self.scale.scaling:
            self.scale.load_state_dict(facts.scale)
        return snapshot.weights, snapshot.moments

    def _from_official(self, path: Path) -> tuple[Mapping[str, Any], Moments]:
        """Weights and moments of a training checkpoint in the official layout, which is saved at an epoch's end."""
        found = read_training_checkpoint(path, self.config)
        self.step = (found.epoch + 1) * self.per_epoch
        if found.scaler and self.scale.scaling:
            self.scale.load_state_dict({"scale": found.scaler["scale"], "finite": int(found.scaler["_growth_tracker"])})
        return found.weights, found.moments

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
                    taken = take(self.training, batch, lr, recipe.batch.accumulate, self.scale.scale)
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
        return Outcome(self.step, self.watcher.loss, stopped, self.request.out / checkpoints.FOLDER / str(self.step))

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
            recipe=asdict(self.recipe),
            loss=self.watcher.epoch_loss,
        )
        checkpoints.save(self.request.out, Snapshot(facts, self.config, self.runtime.weights(self.model), state))
        checkpoints.prune(self.request.out, self.recipe.checkpoints.keep_last, self._kept())

    def _kept(self) -> set[int]:
        """The steps of checkpoints that stay however many there are."""
        saving, out = self.recipe.checkpoints, self.request.out
        there = checkpoints.steps_of(out)
        kept: set[int] = set()
        if saving.keep_every_epochs:
            kept |= {step for step in there if step % (saving.keep_every_epochs * self.per_epoch) == 0}
        if saving.keep_best:
            losses = {step: checkpoints.facts_of(out / checkpoints.FOLDER / str(step)).loss for step in there}
            measured = {step: loss for step, loss in losses.items() if loss is not None}
            if measured:
                kept.add(min(measured, key=lambda step: (measured[step], step)))
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


def _require_same(start: Path, facts: Facts, recipe: Recipe, data: Mapping[str, Any]) -> None:
    """Raise Problem, listing what differs, where a checkpoint is of another recipe or other data."""
    told = []
    then = recipe_of(facts.recipe, str(start / checkpoints.STATE))
    for name, (before, now) in differences(then, recipe).items():
        told.append(f"{name} was {before} and is {now}")
    for name, words in (("fingerprint", "the list of images"), ("first_batch", "the first batch")):
        if facts.data.get(name) != data[name]:
            told.append(
                f"{words} of {data['path']} ({data['images']} images) is another than of {facts.data.get('path')} "
                f"({facts.data.get('images')} images)"
            )
            break
    if told:
        listed = "\n  ".join(told)
        raise Problem(
            f"{start} is of another run than the one asked for:\n  {listed}\nLeave these settings out to go on as before, "
            "or add --accept-changes."
        )
