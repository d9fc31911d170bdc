"""`pipeline(task, model)`: from images to pictures or classes, in any framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from ..files.errors import Problem
from ..training.measured import Asked, Ready, as_paths, ready, ready_model
from ..training.predict import Predicting, predictions
from ..training.reconstruct import Reconstructing, Reconstruction, reconstructions, save
from .advice import require_known
from .sources import find, our_name


class Reconstructions(list[Reconstruction]):
    """What was painted of several images, in their order."""

    def save(self, directory: str | Path) -> list[Path]:
        """Write DIRECTORY/<image>.png, four panels, and DIRECTORY/<image>/ with each as a file and mask.npy; returns the former.

        Each image has a name of its own. Raises Problem where something else would be written over.
        """
        return save(self, Path(directory))


class Task(NamedTuple):
    """What a pipeline does. asks: the request; made: how many things that makes, and an iterator of them; kept: all of them."""

    asks: type[Any]
    made: Callable[[Any], tuple[int, Iterator[Any]]]
    kept: Callable[[Iterator[Any]], list[Any]]
    usual: str  # the model where none is named


TASKS = {
    "masked_image_modeling": Task(Reconstructing, reconstructions, Reconstructions, "mae_vit_base_patch16"),
    "image_classification": Task(Predicting, predictions, list, "vit_base_patch16"),
}
_MODEL = [one.name for one in fields(Asked) if one.name not in ("framework", "weights")]
_LOADED = ("mean", "std")  # those of them that a model which is loaded takes


class Pipeline:
    """A loaded model, and the task that it is called for.

    model: with runtime, model (the framework's own), config and augmentation (how images are prepared).
    """

    def __init__(self, task: str, model: Ready, options: dict[str, Any]):
        self.task, self.model, self._options = task, model, options

    def __call__(self, images: Any, **options: Any) -> list[Any]:
        """Of each image a Reconstruction, or a Prediction with its likeliest classes.

        images: a path, a folder, a pattern, a Pillow image, an array uint8 [height, width, C], or a list of these. options:
        those of `pipeline`, for this call. Raises Problem for a name of nothing; an image that cannot be decoded has its
        problem said in its place.
        """
        task = TASKS[self.task]
        given = self._options | _checked(f"The pipeline {self.task}", options, _of_call(self.task))
        return task.kept(task.made(task.asks(self.model, images, **given))[1])


def pipeline(task: str, model: Any = None, framework: str = "torch", **options: Any) -> Pipeline:
    """A function of images: pipeline("masked_image_modeling", "mae_visualize_vit_base")("photos/").

    task: masked_image_modeling (the original, the masked picture, the reconstruction and both put together, as uint8) or
    image_classification (the likeliest classes). model: a model's name (mindformers', too), for which the best weights
    that are published are taken; a published checkpoint's name, a path, a run's folder, a URL, a Hugging Face id; or a model
    that is loaded, whose framework is its own. options: mask_ratio (None: as in the model's training) and seed of
    the masks; topk, names (a file), features and pooling of classes; batch_size and workers; of the model, model_config (as -m
    takes it), image_size, mean, std, device, threads, dtype, norm_pix_loss. Raises Problem for what cannot be had; a failed
    download never becomes a random model.
    """
    require_task(task)
    if "model_config" in options:
        options["model"] = our_name(options.pop("model_config"))
    about = {name: options.pop(name) for name in _MODEL if name in options}
    given = _checked("pipeline", options, [*_of_call(task), *_MODEL, "model_config"])
    return Pipeline(task, _ready(TASKS[task].usual if model is None else model, framework, about), given)


def require_task(task: str) -> None:
    """Raise Problem for a task that is none."""
    if task not in TASKS:
        raise Problem(f"The task is {task!r}; it must be {' or '.join(TASKS)}.", code="bad-argument")


def _ready(model: Any, framework: str, about: dict[str, Any]) -> Ready:
    if isinstance(model, Ready):
        return model
    if isinstance(model, (str, Path)):
        found = find(model)
        size = about.get("image_size")
        about |= {} if not isinstance(size, int) else {"image_size": (size, size)}
        return ready(Asked(framework, found.path, **{"norm_pix_loss": found.norm_pix_loss, **about}))
    wrong = [name for name in about if name not in _LOADED]
    if wrong:
        raise Problem(
            f"{', '.join(wrong)} cannot be given for a model that is loaded already; give them where it is loaded, or the "
            "path of its weights here.",
            code="bad-argument",
        )
    told = {name: getattr(model, name) for name in ("mask_ratio", "images") if hasattr(model, name)}
    return ready_model(model, **told, **about)


def _of_call(task: str) -> list[str]:
    """The options that a call takes."""
    return [one.name for one in fields(TASKS[task].asks) if one.name not in ("asked", "images")]


def _checked(function: str, options: dict[str, Any], known: list[str]) -> dict[str, Any]:
    require_known(function, options, known)
    as_paths(options, "names")
    return options
