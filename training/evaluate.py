"""Evaluating a classifier in any framework: top-1, top-5 and loss on a data set, exactly counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.config import ViTConfig
from ..backends.runtime import Runtime
from ..data.batches import Batches
from ..data.dataset import Dataset
from ..data.datasets import has_split, open_dataset
from ..files.errors import Problem
from .classes import labels_to, read_names
from .measured import Asked, as_paths, asked_of, ready
from .parts import Part
from .scores import Result, Scores, Whole

BATCH_SIZE = 64  # as the official evaluation's


@dataclass(frozen=True)
class Evaluation:
    """An evaluation to be done.

    asked: the model. data: a folder for each class, a list, .tar, .parquet or .npz, or a folder that holds val/ of these.
    split: the part of it (None: val, where it has one). class_map, names: files, as training/classes.py reads them.
    batch_size: images that are computed together. part: only this part of the batches, from 0, of so many.
    """

    asked: Asked
    data: Path
    data_format: str | None = None
    split: str | None = None
    batch_size: int = BATCH_SIZE
    workers: int = 2
    class_map: Path | None = None
    names: Path | None = None
    part: tuple[int, int] = (0, 1)


def evaluate(
    framework: str,
    data: str | Path,
    weights: str | Path,
    official_loss: bool = False,
    processes: int = 1,
    **options: Any,
) -> Result:
    """Evaluate a classifier's checkpoint on a data set; the command `polymae evaluate` as a function.

    weights: a file of any format and dialect, or a run's folder. official_loss: also the loss as the official code averages
    it. processes: that share the work, and give the numbers of one. options: those of Asked and Evaluation. Raises Problem for
    anything that a person can mend: data without labels or with other classes than the model's, a file of no classifier, images
    that cannot be decoded (named).
    """
    asked = asked_of(framework, weights, options)
    as_paths(options, "class_map", "names")
    evaluation = Evaluation(asked, Path(data), **options)
    if processes == 1:
        return evaluate_part(evaluation).result(official_loss)
    from .processes import evaluate_in_processes

    return evaluate_in_processes(evaluation, processes).result(official_loss)


def evaluate_part(
    evaluation: Evaluation, begun: Callable[[int], object] = lambda total: None,
    after: Callable[[int], object] = lambda images: None,
) -> Part:  # fmt: skip
    """The scores of an evaluation, or of a part of it. begun: called with how many images there are, once all is checked.

    after: called after each batch with its images. Raises Problem as evaluate.
    """
    dataset = labelled_images(evaluation)
    model = ready(evaluation.asked)
    classes = require_classifier(model.config).num_classes
    if model.headless:
        raise Problem(f"{evaluation.asked.weights} is a classifier without its head, which tells no classes apart.")
    mapped = labels_to(dataset, classes, evaluation.class_map)
    names = model.names
    if evaluation.names is not None:
        names = read_names(evaluation.names, classes)
    elif not names and mapped is None and len(dataset.classes) == classes:
        names = dataset.classes
    batches = Batches(dataset, model.augmentation, evaluation.batch_size, 0, drop_last=False, shuffle=False)
    about = {
        **model.facts(), "dtype": evaluation.asked.dtype, "images": len(dataset), "classes": classes,
        "fingerprint": dataset.fingerprint(), "class_map": None if mapped is None else mapped.tolist(),
        "batch_size": batches.batch_size, "names": list(names),
    }  # fmt: skip
    begun(len(dataset))
    scores = score(
        model.runtime, model.model, batches, evaluation.part, evaluation.workers, labels_to=mapped, after=after
    )
    return Part(scores, about)


def labelled_images(evaluation: Evaluation) -> Dataset:
    """The images to evaluate on. Raises Problem for a data set that cannot be read, or has no labels."""
    dataset = open_evaluation(evaluation.data, evaluation.data_format, evaluation.split)
    _require_labels(dataset)
    return dataset


def open_evaluation(data: Path, data_format: str | None = None, split: str | None = None) -> Dataset:
    """The data set to evaluate on: the part `split`; None: the validation part, or all of a set that has no parts."""
    if split is None:
        whole = not data.is_dir() or not (has_split(data, "val") or has_split(data, "train"))
        split = "train" if whole else "val"
    return open_dataset(data, data_format, split)


def evaluate_model(
    runtime: Runtime, model: Any, batches: Batches, workers: int = 0, names: Sequence[str] = ()
) -> Result:
    """How a classifier does on the images of batches, which are in the data set's order (shuffle=False, drop_last=False).

    workers: threads that read images ahead. names: of the model's classes (default: of the data set's, where they are as many).
    The model is run as it is; a drop path or mixing is no part of these batches. Raises Problem for images without labels, an
    autoencoder, a label that the model has no class for, or logits that are not finite.
    """
    classes = require_classifier(model.config).num_classes
    known = batches.dataset.classes
    scores = score(runtime, model, batches, workers=workers)
    return scores.result(classes, names or (known if len(known) == classes else ()))


def require_classifier(config: Any) -> ViTConfig:
    """The configuration, if it is a classifier's. Raises Problem for an autoencoder's."""
    if not isinstance(config, ViTConfig):
        raise Problem(
            "These weights are an autoencoder's, which names no classes: fine-tune it first, or measure its features "
            "(polymae knn)."
        )
    return config


def score(
    runtime: Runtime,
    model: Any,
    batches: Batches,
    part: tuple[int, int] = (0, 1),
    workers: int = 0,
    labels_to: Whole | None = None,
    after: Callable[[int], object] = lambda images: None,
) -> Scores:
    """The scores of a part of the batches: the first number of `part`, from 0, of so many as the second.

    A part is of whole batches, so that every image is in the same batch, and has the same logits, however many parts there
    are. labels_to: int64, by the data set's label the model's class; the classes named there are then told apart, no others.
    after: called after each batch with its images. Raises Problem as evaluate_model.
    """
    require_classifier(model.config)
    _require_labels(batches.dataset)
    if batches.shuffle or batches.drop_last or batches.skip_broken:
        raise Problem(
            "Evaluation takes every image once, in the data set's order: Batches(..., drop_last=False, shuffle=False), and "
            "skip_broken=False, which would count another image twice."
        )
    steps, (number, count) = batches.steps_per_epoch, part
    first, last = (steps * place // count for place in (number, number + 1))
    columns = None if labels_to is None else np.unique(labels_to)
    scores = [Scores.of(*_nothing(model.config.num_classes), columns)]
    with batches.loader(first, last, workers) as loader:
        for step, batch in loader:
            labels = batch["labels"] if labels_to is None else labels_to[batch["labels"]]
            scores.append(Scores.of(batches.indices(step), labels, logits_of(runtime, model, batch["imgs"]), columns))
            after(len(labels))
    return Scores.joined(scores)


def logits_of(runtime: Runtime, model: Any, imgs: NDArray[np.float32]) -> NDArray[Any]:
    """The logits [N, classes] of images [N, C, height, width], normalised."""
    with runtime.no_grad():
        return runtime.to_numpy(model(runtime.tensors(model, {"imgs": imgs})["imgs"]))


def _nothing(classes: int) -> tuple[Whole, Whole, NDArray[np.float64]]:
    """Places, labels and logits of no images: a part may have no batch."""
    return np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, classes))


def _require_labels(dataset: Dataset) -> None:
    if not dataset.classes:
        raise Problem(
            f"{dataset.path} ({dataset.format}) has no labels, and evaluation needs them: a folder for each class, a list with "
            "`path,label` lines, or labels in the .tar, .parquet or .npz file. `polymae predict` classifies without any."
        )
