"""A model that is measured or used, in any framework, from a file of any dialect or from a run; and its images' way to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.config import Config, MAEConfig, ViTConfig
from ..backends.initial import initial_weights
from ..backends.presets import preset_name
from ..backends.runtime import Runtime, framework_of, load_backend, require_device, require_dtype
from ..convert.checkpoint import Checkpoint, open_checkpoint
from ..convert.conversion import Prepared, Wish, prepare
from ..data.augment import Augmentation
from ..data.images import MEAN, STD
from ..files.errors import Problem
from . import checkpoints
from .classifying import Classifying
from .reading import read_any_recipe
from .recipe import Common, Recipe

POOLINGS = ("gap", "cls")  # of an autoencoder's tokens
MASK_RATIO = 0.75  # the official one, where nothing tells another


@dataclass(frozen=True)
class Asked:
    """A model to be loaded.

    weights: a checkpoint of any format and dialect, or a run's folder (its newest checkpoint). model: as -m takes it; None:
    what the file shows. image_size: (height, width) in pixels, to which position tables are interpolated; None: the
    model's. mean, std: of each channel, of values in [0, 1]; None: the run's, or ImageNet's. crop_ratio: the share of the
    resized image's sides that is kept; None: the run's, or the official 224/256. device, threads, dtype: of the framework.
    norm_pix_loss: whether the decoder was trained on normalised patches, where that is known from elsewhere; None: as the
    file tells.
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
    norm_pix_loss: bool | None = None


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
    """A loaded model. augmentation: the evaluation's. hash: of its weights. names: of its classes, where the file has them.

    headless, encoder_only: what the file lacks has initial values, and is not to be used. mask_ratio: that it was trained
    with, where something tells. origin: where its weights are from, for messages.
    """

    runtime: Runtime
    model: Any
    augmentation: Augmentation
    name: str
    hash: str
    names: tuple[str, ...] = ()
    headless: bool = False
    device: str = "cpu"
    encoder_only: bool = False
    mask_ratio: float = MASK_RATIO
    origin: str = "the model"

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
        environment = self.runtime.environment(self.device)
        kept = {name: environment[name] for name in ("framework", "version", "device")}
        prepared = self.augmentation
        kept |= {"crop_ratio": prepared.crop_ratio, "mean": list(prepared.mean), "std": list(prepared.std)}
        return {**kept, "model": self.name, "weights_hash": self.hash, "input_size": list(self.config.img_size)}


def ready(asked: Asked | Ready) -> Ready:
    """Load a model; one that is loaded stays as it is.

    Raises Problem for a framework, device, file or size that cannot be had, with every problem of the file.
    """
    if isinstance(asked, Ready):
        return asked
    runtime = load_backend(asked.framework)
    require_device(runtime, asked.framework, asked.device)
    require_dtype(asked.framework, runtime.DTYPES, asked.dtype)
    told = told_of(asked.weights)
    contents = told.checkpoint.contents
    prepared = prepare(told.file, Wish(asked.model, encoder_only=contents == "encoder", image_size=asked.image_size))
    loaded, config = prepared.load(), prepared.config
    if asked.norm_pix_loss is not None and isinstance(config, MAEConfig):
        config = replace(config, norm_pix_loss=asked.norm_pix_loss)
    weights: Mapping[str, Any] = loaded.weights
    if contents in ("encoder", "headless"):  # what is not there is not used: neither a decoder nor a head
        weights = {**initial_weights(config, 0), **weights}
    runtime.setup(asked.device, asked.threads)
    model = runtime.build(config, weights, asked.device, asked.dtype)
    return Ready(
        runtime, model, _augmentation(config, told.images, asked.mean, asked.std, asked.crop_ratio), prepared.model, loaded.hash,
        _names(prepared), contents == "headless", asked.device, contents == "encoder", told.mask_ratio, str(asked.weights),
    )  # fmt: skip


def ready_model(
    model: Any,
    mask_ratio: float = MASK_RATIO,
    images: Augmentation | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Ready:
    """A model of any framework that somebody has loaded, as it is. Its hash is not computed, and is "".

    images: how its images are prepared; None: as in the official evaluation. Raises Problem for what is no model of ours.
    """
    runtime = load_backend(framework_of(model))
    augmentation = _augmentation(model.config, images, mean, std)
    return Ready(runtime, model, augmentation, preset_name(model.config), "", mask_ratio=mask_ratio)


@dataclass(frozen=True)
class Told:
    """What is known of weights beside the model. file: that holds them. mask_ratio: that an autoencoder was trained with.

    images: how a trained model's images are prepared, without what was random; None: nothing tells.
    """

    file: Path
    checkpoint: Checkpoint
    mask_ratio: float = MASK_RATIO
    images: Augmentation | None = None


def noted(mask_ratio: float, images: Augmentation | None) -> dict[str, Any]:
    """What told_of reads again from the note of a file's origin (`source` of write_checkpoint)."""
    return {"mask_ratio": mask_ratio, "images": None if images is None else asdict(images)}


def told_of(weights: Path, dialect: str | None = None, prefix: str | None = None) -> Told:
    """What is known of a file or a run's folder: by the run's recipe, or as the file says.

    A file says it in the note of its origin, in its config.json, or in the options that the official script saves.
    Raises CheckpointProblem for what is no checkpoint.
    """
    file, recipe, images = _file_of(weights)
    checkpoint = open_checkpoint(file, dialect, prefix)
    source = checkpoint.provenance.source if checkpoint.provenance is not None else {}
    config_json = json.loads(checkpoint.evidence.config_text or "{}")
    ratios = [
        getattr(recipe, "mask_ratio", None),
        *(one.get("mask_ratio") for one in (source, config_json, checkpoint.settings)),
    ]
    sound = (one for one in ratios if isinstance(one, float) and 0 < one < 1)
    if images is None and isinstance(source.get("images"), dict):
        images = _augmentation_in(source["images"], file)
    return Told(file, checkpoint, next(sound, MASK_RATIO), images)


def _augmentation_in(values: dict[str, Any], file: Path) -> Augmentation:
    """How images are prepared, from a note. Raises Problem for values that are none."""
    try:
        given: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in values.items()}
        return Augmentation(**given)
    except TypeError as problem:
        raise Problem(
            f"The note of {file} says of its images what is not understood here ({problem}); it is of another version of "
            "PolyMAE. Remove the note's images, and give mean and std.",
            code="bad-note",
        ) from None


def features_of(runtime: Runtime, model: Any, imgs: NDArray[np.float32], pooling: str = "gap") -> NDArray[np.float32]:
    """As Ready.features, of a model of a framework."""
    with runtime.no_grad():
        tensor = runtime.tensors(model, {"imgs": imgs})["imgs"]
        features = model.encode(tensor, pooling) if isinstance(model.config, MAEConfig) else model.encode(tensor)
        return runtime.to_numpy(features).astype(np.float32)


def _file_of(weights: Path) -> tuple[Path, Common | None, Augmentation | None]:
    """The file; of a run also its recipe, and how its images were prepared, without what was random."""
    folder = checkpoints.meant_by(weights)
    if folder is None:
        return weights, None, None
    facts = checkpoints.facts_of(folder)
    recipe = read_any_recipe(facts.recipe)
    if isinstance(recipe, Classifying) and facts.config is not None:
        return folder / checkpoints.WEIGHTS, recipe, recipe.evaluation_of(ViTConfig(**facts.config))
    return folder / checkpoints.WEIGHTS, recipe, recipe.augmentation.plain if isinstance(recipe, Recipe) else None


def _augmentation(
    config: Config,
    trained_with: Augmentation | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    crop_ratio: float | None = None,
) -> Augmentation:
    """The official evaluation's, or that of the run, for the model's size and channels."""
    channels = config.in_chans
    if trained_with is None:
        usual = [
            values if channels == len(values) else (sum(values) / len(values),) * channels for values in (MEAN, STD)
        ]
        trained_with = Augmentation(input_size=config.img_size, channels=channels, mean=usual[0], std=usual[1]).plain
    if crop_ratio is not None:
        trained_with = replace(trained_with, crop="centre", crop_ratio=crop_ratio)
    return replace(
        trained_with, input_size=config.img_size, mean=mean or trained_with.mean, std=std or trained_with.std
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
