"""Fine-tuning and the linear probe as tasks of the loop: a classifier, its labelled images, top-1 and top-5."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends.averaging import Average
from ..backends.config import ViTConfig
from ..backends.initial import initial_weights
from ..backends.optimization import trainable
from ..backends.runtime import Runtime
from ..data.batches import Batches
from ..data.dataset import Dataset
from ..data.datasets import has_split, open_dataset
from ..data.few import drawn_of_each_class, labels_of
from ..files.errors import Problem
from .autoencoding import due
from .beginning import classifier_weights
from .classifying import FineTuning, Probe
from .evaluate import evaluate_model
from .task import Looked, Official, Task, Weights

if TYPE_CHECKING:
    from .checkpoints import Facts
    from .request import Request


class Classification(Task):
    """The training of a classifier: the whole of it, or the head on a frozen encoder."""

    config: ViTConfig

    def __init__(self, request: Request):
        super().__init__(request)
        self.recipe: FineTuning | Probe = request.recipe
        recipe = self.recipe
        dataset = training_images(request.data, recipe)
        classes = recipe.num_classes or len(dataset.classes)
        self.config = recipe.config_of(classes)
        self.evaluated = self._evaluated(dataset)
        self.begun: Weights | None = None
        if request.weights is not None and request.resume is None:
            self.config, self.begun = classifier_weights(
                request.weights, recipe.model, self.config, recipe.model_settings, recipe.seed, recipe.head_std,
                recipe.norm_from_encoder,
            )  # fmt: skip
        elif request.resume is None and isinstance(recipe, Probe):
            raise Problem(
                "--weights is missing: a probe measures a pre-trained encoder. Give a checkpoint of any framework, or a "
                "pre-training's folder."
            )
        self.batches = Batches(
            dataset, recipe.augmentation_of(self.config), recipe.batch.batch_size, recipe.seed,
            skip_broken=recipe.data.skip_broken, mixing=recipe.mixing_of(classes),
            drop_path=(self.config.depth, recipe.drop_path) if recipe.drop_path else None,
        )  # fmt: skip

    def weights(self) -> Weights:
        """Those of the file that was given, with a fresh head where it has none that fits; else initial ones."""
        return self.begun or initial_weights(self.config, self.recipe.seed, self.recipe.head_std)

    def official(self, path: Path) -> Official:
        """Raises Problem: only pre-training goes on from one."""
        raise Problem(f"{path} is one file; to begin with its weights: --weights {path}")

    def options(self) -> dict[str, Any]:
        """The options of backends' Training."""
        return self.recipe.computing.options(self.request.device)

    def resumed(self, facts: Facts) -> ViTConfig:
        """The model as it was, norms' eps included, which are those of the file that the run began with."""
        return ViTConfig(**facts.config) if facts.config else self.config

    def describe(self) -> dict[str, Any]:
        """The images that are measured on, and the classes."""
        told = {"classes": self.config.num_classes}
        if self.evaluated is None:
            return told
        return told | {"eval_data": self.eval_path, "eval_fingerprint": self.evaluated.dataset.fingerprint()}

    def look(self, runtime: Runtime, model: Any, epoch: int, last: bool, average: Average | None) -> Looked:
        """Top-1, top-5 and loss on the val part, of the weights and of their average, by the official names."""
        line: dict[str, Any] = {"n_parameters": sum(param.size for param in trainable(self.config))}
        if self.evaluated is None or not due(self.recipe.evaluation.evaluate_every_epochs, epoch, last):
            return Looked(line)
        line |= self._measured(runtime, model, "test")
        if average is not None:
            with average.swapped():
                line |= self._measured(runtime, model, "test_ema")
        scalars = {f"perf/{name}": value for name, value in line.items() if name.startswith("test_")}
        return Looked(line, scalars, score=max(line["test_acc1"], line.get("test_ema_acc1", 0.0)))

    def _measured(self, runtime: Runtime, model: Any, name: str) -> dict[str, float]:
        assert self.evaluated is not None
        found = evaluate_model(runtime, model, self.evaluated, self.recipe.data.workers)
        return {f"{name}_acc1": found.top1, f"{name}_acc5": found.top5, f"{name}_loss": found.loss}

    def rank(self, facts: Facts) -> float | None:
        """Top-1, of the weights or their average, whichever is higher."""
        return facts.score

    @property
    def eval_path(self) -> str:
        """Where the images that are measured on were asked for."""
        return str((self.request.eval_data or self.request.data).absolute())

    def _evaluated(self, trained: Dataset) -> Batches | None:
        """The images that are measured on, in their order; None where nothing is to be measured."""
        recipe, given = self.recipe, self.request.eval_data
        if recipe.evaluation.evaluate_every_epochs is None:
            return None
        advice = "Give --eval-data, or measure nothing: --set evaluate_every_epochs=null"
        try:
            if given is None:
                dataset = open_dataset(self.request.data, recipe.data.data_format, "val", labelled=True)
            else:
                dataset = open_dataset(given, None, "val" if has_split(given, "val") else "train", labelled=True)
        except Problem as problem:
            raise Problem(f"There are no images to measure on: {problem} {advice}") from None
        if given is None and self.request.data.is_file():  # of most formats a file has no parts
            whole = open_dataset(self.request.data, recipe.data.data_format, recipe.data.split)
            if whole.fingerprint() == dataset.fingerprint():
                raise Problem(f"{trained.path} holds the images that are trained on, and none to measure on. {advice}")
        require_same_classes(trained, dataset, self.config.num_classes)
        augmentation = recipe.evaluation_of(self.config)
        return Batches(dataset, augmentation, recipe.evaluation.evaluation_batch, 0, drop_last=False, shuffle=False)


def training_images(data: Path, recipe: FineTuning | Probe) -> Dataset:
    """The labelled images that are trained on. Raises Problem for one class only, and for more classes than the head has."""
    dataset = open_dataset(data, recipe.data.data_format, recipe.data.split, labelled=True)
    labels = labels_of(dataset)
    classes, head = len(dataset.classes), recipe.num_classes
    if len(np.unique(labels)) < 2:
        raise Problem(
            f"All {len(labels)} images of {dataset.path} are of one class ({dataset.classes[labels[0]]}); a classifier needs "
            "images of two at least."
        )
    if head is not None and classes > head:
        raise Problem(
            f"{dataset.path} has {classes} classes, and the head has {head} (num_classes): set num_classes={classes}, or "
            "null for as many as the data has."
        )
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise Problem(
            f"{dataset.path} has labels from {labels.min()} to {labels.max()}, and {classes} classes; labels go from 0 to "
            f"{classes - 1}."
        )
    count = recipe.data.labels_per_class
    return dataset if count is None else drawn_of_each_class(dataset, count, recipe.data.labels_seed)


def require_same_classes(trained: Dataset, measured: Dataset, head: int) -> None:
    """Raise Problem where a label of the images that are measured on means another class than in training, or none."""
    ours, theirs = trained.classes, measured.classes
    numbered = trained.format != "folder" and all(name.isdecimal() for name in (*ours, *theirs))
    differ = [] if numbered else [place for place, name in enumerate(theirs) if ours[place : place + 1] != (name,)]
    if differ:
        place = differ[0]
        here = ours[place] if place < len(ours) else "none"
        raise Problem(
            f"Class {place} is {here} in {trained.path} and {theirs[place]} in {measured.path}: their labels mean different "
            "classes. Both need the same class folders or names."
        )
    if len(theirs) > head:
        raise Problem(
            f"{measured.path} has {len(theirs)} classes, and the head has {head}: set num_classes={len(theirs)}, or give other "
            "images to measure on."
        )
