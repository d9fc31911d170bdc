"""A model that is measured or used, in any framework, from a file of any dialect or from a run; and its images' way to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.config import Config, MAEConfig, ViTConfig
from ..backends.initial import initial_weights
from ..backends.runtime import Runtime, load_backend, require_device, require_dtype
from ..convert.checkpoint import open_checkpoint
from ..convert.conversion import Prepared, Wish, prepare
from ..data.augment import Augmentation
from ..data.images import MEAN, STD
from ..files.errors import Problem
from . import checkpoints
from .classifying import Classifying
from .reading import read_any_recipe
from .recipe import Recipe

POOLINGS = ("gap", "cls")  # of an autoencoder's tokens


@dataclass(frozen=True)
class Asked:
    """A model to be loaded.

    weights: a checkpoint of any format and dialect, or a run's folder (its newest checkpoint). model: as -m takes it; None:
    what the file shows. image_size: (height, width) in pixels, to which position tables are interpolated; None: the
    model's. mean, std: of each channel, of values in [0, 1]; None: the run's, or ImageNet's. crop_ratio: the share of the
    resized image's sides that is kept; None: the run's, or the official 224/256. device, threads, dtype: of the framework.
    """

    framework: str
    weights: Path
    model: str | None = None
    image_size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_ratio: float | None = None
    device: str = "cpu"
    threads: int | None = None
    dtype: str = "float32"


def asked_of(framework: str, weights: str | Path, options: dict[str, Any]) -> Asked:
    """The model that a function is asked for; its options are taken out of the function's."""
    return Asked(
        framework,
        Path(weights),
        **{name: options.pop(name) for name in [*options] if name in Asked.__dataclass_fields__},
    )


def as_paths(options: dict[str, Any], *names: str) -> None:
    """Make paths of the options of these names that are given as text."""
    options |= {name: Path(options[name]) for name in names if options.get(name) is not None}


@dataclass(frozen=True)
class Ready:
    """A loaded model. augmentation: the evaluation's. hash: of its weights. names: of its classes, where the file has them."""

    runtime: Runtime
    model: Any
    augmentation: Augmentation
    name: str
    hash: str
    names: tuple[str, ...] = ()
    headless: bool = False
    device: str = "cpu"

    @property
    def config(self) -> Config:
        """Of the model."""
        config: Config = self.model.config
        return config

    def features(self, imgs: NDArray[np.float32], pooling: str = "gap") -> NDArray[np.float32]:
        """Features float32 [N, D] of images float32 [N, C, height, width], normalised.

        Of a classifier: as its head gets them. Of an autoencoder: nothing masked, after the norm, the patch tokens' mean
        (gap) or the class token (cls).
        """
        return features_of(self.runtime, self.model, imgs, pooling)

    def facts(self) -> dict[str, Any]:
        """What its numbers depend on, for a report."""
        found = self.runtime.environment(self.device)
        kept = {name: found[name] for name in ("framework", "version", "device")}
        prepared = self.augmentation
        kept |= {"crop_ratio": prepared.crop_ratio, "mean": list(prepared.mean), "std": list(prepared.std)}
        return {**kept, "model": self.name, "weights_hash": self.hash, "input_size": list(self.config.img_size)}


def ready(asked: Asked) -> Ready:
    """Load a model. Raises Problem for a framework, device, file or size that cannot be had, with every problem of the file."""
    runtime = load_backend(asked.framework)
    require_device(runtime, asked.framework, asked.device)
    require_dtype(asked.framework, runtime.DTYPES, asked.dtype)
    path, trained_with = _file_of(asked.weights)
    contents = open_checkpoint(path).contents
    prepared = prepare(path, Wish(asked.model, encoder_only=contents == "encoder", image_size=asked.image_size))
    loaded, config = prepared.load(), prepared.config
    weights: Mapping[str, Any] = loaded.weights
    if contents in ("encoder", "headless"):  # what is not there is not used: neither a decoder nor a head
        weights = {**initial_weights(config, 0), **weights}
    runtime.setup(asked.device, asked.threads)
    model = runtime.build(config, weights, asked.device, asked.dtype)
    augmentation = _augmentation(config, asked, trained_with)
    headless = contents == "headless"
    return Ready(runtime, model, augmentation, prepared.model, loaded.hash, _names(prepared), headless, asked.device)


def features_of(runtime: Runtime, model: Any, imgs: NDArray[np.float32], pooling: str = "gap") -> NDArray[np.float32]:
    """As Ready.features, of a model of a framework."""
    with runtime.no_grad():
        tensor = runtime.tensors(model, {"imgs": imgs})["imgs"]
        found = model.encode(tensor, pooling) if isinstance(model.config, MAEConfig) else model.encode(tensor)
        return runtime.to_numpy(found).astype(np.float32)


def _file_of(weights: Path) -> tuple[Path, Augmentation | None]:
    """The file, and how the images of its run were prepared, without what was random, if it is of a run."""
    if not ((weights / checkpoints.FOLDER).is_dir() or (weights / checkpoints.STATE).is_file()):
        return weights, None
    folder = checkpoints.find(weights)
    facts = checkpoints.facts_of(folder)
    recipe = read_any_recipe(facts.recipe)
    if isinstance(recipe, Classifying) and facts.config is not None:
        return folder / checkpoints.WEIGHTS, recipe.evaluation_of(ViTConfig(**facts.config))
    return folder / checkpoints.WEIGHTS, recipe.augmentation.plain if isinstance(recipe, Recipe) else None


def _augmentation(config: Config, asked: Asked, trained_with: Augmentation | None) -> Augmentation:
    """The official evaluation's, or that of the run, for the model's size and channels."""
    channels = config.in_chans
    if trained_with is None:
        grey = channels == 1
        mean, std = (((sum(values) / 3,) if grey else values) for values in (MEAN, STD))
        trained_with = Augmentation(input_size=config.img_size, channels=channels, mean=mean, std=std).plain
    if asked.crop_ratio is not None:
        trained_with = replace(trained_with, crop="centre", crop_ratio=asked.crop_ratio)
    return replace(
        trained_with,
        input_size=config.img_size,
        mean=asked.mean or trained_with.mean,
        std=asked.std or trained_with.std,
    )


def _names(prepared: Prepared) -> tuple[str, ...]:
    """The names of classes in the checkpoint's config.json, if it has some that are not only numbers."""
    text = prepared.checkpoint.evidence.config_text
    return () if text is None else names_in(json.loads(text))


def names_in(config: Any) -> tuple[str, ...]:
    """The names of classes in a transformers config.json (id2label), in order; () where it has none but LABEL_0, ..."""
    labels = config.get("id2label") if isinstance(config, dict) else None
    if not isinstance(labels, dict) or set(labels) != set(map(str, range(len(labels)))):
        return ()
    names = tuple(str(labels[str(number)]) for number in range(len(labels)))
    return () if names == tuple(f"LABEL_{number}" for number in range(len(names))) else names


def require_pooling(pooling: str | None, config: Config) -> str:
    """The pooling of features; None: gap. Raises Problem for another name, or one for a classifier, which has its own."""
    if pooling is not None and not isinstance(config, MAEConfig):
        raise Problem(
            f"The pooling {pooling} is for autoencoders; this classifier's features are pooled as its head needs them "
            f"({config.pooling}). Leave it out."
        )
    if pooling not in (None, *POOLINGS):
        raise Problem(f"The pooling is {pooling!r}; it must be one of {', '.join(POOLINGS)}.")
    return pooling or "gap"
