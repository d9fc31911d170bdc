"""Recipes of classifiers: fine-tuning of a whole model, and the linear probe of a frozen encoder. A setting is one line here.

Defaults are the official ones (facebookresearch/mae main_finetune.py and main_linprobe.py, FINETUNE.md; He et al. 2021,
tables 9 and 10). What both have in common with pre-training is in recipe.py.
"""

# ruff: noqa: RUF009  (`setting` gives a field, not a value)
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from ..backends.averaging import Averaging
from ..backends.config import MAEConfig, ViTConfig
from ..backends.optimization import Settings
from ..backends.presets import model_config
from ..data.augment import Augmentation, Crop
from ..data.mixing import Mixing
from ..files.errors import Problem
from .recipe import AdamW, Batch, Common, Computing, Data, Images, Rate, Saving, above_0, group, mistakes, setting


@dataclass(frozen=True)
class Labelled(Data):
    """How images and their classes are read."""

    labels_per_class: int | None = setting(None, "train on so many images of each class, drawn once; null: on all")
    labels_seed: int = setting(0, "of the drawing of these images; the run's seed does not change them")


@dataclass(frozen=True)
class TrainedImages(Images):
    """From a decoded image to the model's input, in training."""

    scale: tuple[float, float] = setting((0.08, 1.0), "least and largest share of the area of a random box")
    auto_augment: str | None = setting("rand-m9-mstd0.5-inc1", "RandAugment's policy, in timm's words; null: none")
    erase: float = setting(0.25, "probability that boxes of an image become noise")
    erase_count: int = setting(1, "boxes of an image that may be erased, at most")


@dataclass(frozen=True)
class ProbedImages(Images):
    """From a decoded image to the model's input, in a probe's training."""

    crop: Crop = setting(
        "first_box",
        "first_box (the official probe's: a box that does not fit is cut off), random_resized (it is drawn again), centre, "
        "shift or none",
    )
    scale: tuple[float, float] = setting((0.08, 1.0), "least and largest share of the area of a random box")


@dataclass(frozen=True)
class Mixed:
    """The targets, and images mixed with others of the batch."""

    smoothing: float = setting(0.1, "share of a target that is spread over all classes")
    mixup: float = setting(0.0, "alpha of the share by which two images are added up; 0: they are not")
    cutmix: float = setting(0.0, "alpha of the area of the box that is put into another image; 0: none is")
    cutmix_minmax: tuple[float, float] | None = setting(
        None, "in place of cutmix's alpha, least and largest share of an image's sides that the box has; null: by alpha"
    )
    mix_prob: float = setting(1.0, "probability that a batch is mixed")
    mix_switch_prob: float = setting(0.5, "probability of cutmix where both are on")

    @property
    def pairs(self) -> bool:
        """Whether images are mixed with others of the batch."""
        return bool(self.mixup or self.cutmix or self.cutmix_minmax)


@dataclass(frozen=True)
class TunedAdamW(AdamW):
    """The optimizer of fine-tuning."""

    blr: float = setting(1e-3, "learning rate for 256 images a step")
    betas: tuple[float, float] = setting((0.9, 0.999), "of the moments")
    layer_decay: float = setting(0.75, "a layer's rate is that of the layer above it, times this; 1: all have one rate")


@dataclass(frozen=True)
class Lars:
    """The optimizer of the probe: LARS by the official law, momentum 0.9 and trust 0.001."""

    lr: float | None = setting(None, "the highest learning rate; null: blr x batch_size / 256")
    blr: float = setting(0.1, "learning rate for 256 images a step")
    weight_decay: float = setting(0.0, "of the head's matrix; its bias has none")
    clip_grad: float | None = setting(
        None, "global norm to which larger gradients are scaled down; null: they are left"
    )


@dataclass(frozen=True)
class TunedRate(Rate):
    """The schedule of fine-tuning."""

    epochs: int = setting(50, "passes over the data")
    warmup_epochs: float = setting(5.0, "passes in which the rate rises from 0")
    min_lr: float = setting(1e-6, "where the cosine ends")


@dataclass(frozen=True)
class ProbedRate(Rate):
    """The schedule of the probe."""

    epochs: int = setting(90, "passes over the data")
    warmup_epochs: float = setting(10.0, "passes in which the rate rises from 0")


@dataclass(frozen=True)
class TunedBatch(Batch):
    """The images of a step of fine-tuning."""

    batch_size: int = setting(1024, "images of a step, over all parts and processes")


@dataclass(frozen=True)
class ProbedBatch(Batch):
    """The images of a step of the probe."""

    batch_size: int = setting(16384, "images of a step, over all parts and processes")
    accumulate: int = setting(1, "parts that a step is computed in; the batch norm takes the statistics of each part")
    micro_batch_size: int | None = setting(
        None, "images of a part, at most, and so of those statistics; null: no limit"
    )


@dataclass(frozen=True)
class Evaluating:
    """The measurement on the val part of the data."""

    evaluate_every_epochs: int | None = setting(1, "top-1, top-5 and loss after each so many epochs", free=True)
    evaluation_batch: int = setting(64, "images that are evaluated at once", free=True)
    crop_ratio: float | None = setting(
        None, "share of the resized image's sides that is measured on; null: 224/256, and 1 above 224 pixels", free=True
    )


@dataclass(frozen=True)
class SavedBest(Saving):
    """When checkpoints are written, and which are kept. The last is always kept."""

    save_every_epochs: int | None = setting(1, "a checkpoint after each so many epochs", free=True)
    keep_best: bool = setting(True, "that of the best top-1 is kept, and `best` leads to it", free=True)


@dataclass(frozen=True)
class Board:
    """What is written to be looked at."""

    tensorboard: bool = setting(True, "write RUN/tensorboard, where tensorboardX is installed", free=True)


class Classifying(Common):
    """What the recipes of both tasks say of their model and images."""

    def config_of(self, classes: int) -> ViTConfig:
        """The model with so many classes. Raises ConfigError for one that does not exist, Problem for an autoencoder."""
        given = self._settings
        if "=" not in given.model and isinstance(model_config(given.model), MAEConfig):
            raise Problem(
                f"The recipe's model is {given.model}, an autoencoder; {self.task} takes the classifier on its encoder: "
                f"{given.model.replace('mae_', '')}."
            )
        config = model_config(given.model, num_classes=classes, **self.model_settings)
        assert isinstance(config, ViTConfig)
        size = config.img_size if given.input_size is None else (given.input_size, given.input_size)
        return replace(config, img_size=size)

    @property
    def model_settings(self) -> dict[str, Any]:
        """The settings of the model that the recipe gives, beside its name."""
        return {"pooling": self._settings.pooling}

    def evaluation_of(self, config: ViTConfig) -> Augmentation:
        """Of the images of the val part."""
        return replace(self.augmentation_of(config).plain, crop_ratio=self._settings.evaluation.crop_ratio)

    def _mistakes(self) -> dict[str, bool]:
        given = self._settings
        positive = {
            "evaluate_every_epochs": given.evaluation.evaluate_every_epochs,
            "evaluation_batch": given.evaluation.evaluation_batch, "num_classes": given.num_classes,
            "labels_per_class": given.data.labels_per_class,
        }  # fmt: skip
        return {**mistakes(given), **above_0(positive)}


@dataclass(frozen=True)
class FineTuning(Classifying):
    """A fine-tuning as data; frozen, and YAML in and out (training/reading.py)."""

    task: ClassVar[str] = "finetune"
    usual: ClassVar[str] = "finetune-base"

    about: str = setting("", "its source, in a sentence", free=True)
    reaches: str = setting("", "the result to expect", free=True)
    model: str = setting("vit_base_patch16", "as -m takes it: a preset, a JSON file or img_size=...,...")
    input_size: int | None = setting(None, "side of the images in pixels; null: the model's")
    pooling: Literal["gap", "cls", "mean"] = setting(
        "gap", "what the head sees: mean of the patches, class token, mean of all"
    )
    num_classes: int | None = setting(None, "classes of the head; null: those of the data")
    drop_path: float = setting(
        0.1, "share of images in which the last block's branches are left out; less in those before"
    )
    head_std: float = setting(2e-5, "standard deviation of a fresh head; LiBai's with weight_style=oneflow is 0.02")
    norm_from_encoder: bool = setting(
        False, "LiBai's with weight_style=oneflow: the norm behind the pooled patches begins as the encoder's norm"
    )
    ema: float | None = setting(None, "decay of an average of the weights, which is evaluated, too; null: none is kept")
    ema_warmup: bool = setting(False, "let that decay rise from 0, for runs that are short for it")
    seed: int = setting(0, "of the head, order, crops, flips, operations, mixing and drop path")
    data: Labelled = group(Labelled, "how images and their classes are read")
    images: TrainedImages = group(TrainedImages, "from a decoded image to the model's input")
    mixing: Mixed = group(Mixed, "the targets, and images mixed with others")
    optimizer: TunedAdamW = group(TunedAdamW, "AdamW")
    schedule: TunedRate = group(TunedRate, "the learning rate's schedule and the run's length")
    batch: TunedBatch = group(TunedBatch, "the images of a step")
    computing: Computing = group(Computing, "how the step computes")
    evaluation: Evaluating = group(Evaluating, "the measurement on the val part")
    checkpoints: SavedBest = group(SavedBest, "when checkpoints are written, and which are kept")
    watching: Board = group(Board, "files to be looked at")

    @property
    def settings(self) -> Settings:
        """Of the optimizer."""
        given = self.optimizer
        return Settings(
            given.betas,
            given.eps,
            given.weight_decay,
            given.clip_grad,
            spare_tokens=True,
            layer_decay=given.layer_decay,
            decayed=given.decayed,
        )

    @property
    def averaging(self) -> Averaging | None:
        """Of the weights; None where no average is kept."""
        return None if self.ema is None else Averaging(self.ema, self.ema_warmup)

    def mixing_of(self, classes: int) -> Mixing | None:
        """The targets of a batch for so many classes; None where they are the labels."""
        given = self.mixing
        if not (given.smoothing or given.pairs):
            return None
        return Mixing(
            classes,
            given.smoothing,
            given.mixup,
            given.cutmix,
            given.cutmix_minmax,
            given.mix_prob,
            given.mix_switch_prob,
        )

    def _mistakes(self) -> dict[str, bool]:
        given, size = self.mixing, self.batch.batch_size
        shares = {
            "smoothing": given.smoothing, "drop_path": self.drop_path, "ema": self.ema or 0.0, "head_std": self.head_std,
        }  # fmt: skip
        chances = {"mix_prob": given.mix_prob, "mix_switch_prob": given.mix_switch_prob, "erase": self.images.erase}
        return {
            **super()._mistakes(),
            **above_0({"layer_decay": self.optimizer.layer_decay}),
            **{
                f"{name} is {value}; it must be 0 or more and below 1": not 0 <= value < 1
                for name, value in shares.items()
            },
            **{f"{name} is {value}; it must be from 0 to 1": not 0 <= value <= 1 for name, value in chances.items()},
            f"norm_from_encoder is true and its pooling {self.pooling}, which has the encoder's norm anyway; leave one out": (
                self.norm_from_encoder and self.pooling != "gap"
            ),
            f"mixup is {given.mixup} and its cutmix {given.cutmix}; both must be 0 or more": min(
                given.mixup, given.cutmix
            )
            < 0,
            f"batch_size is {size}, an odd number, and mixup or cutmix pairs the images of a batch; give an even one": bool(
                given.pairs and size % 2
            ),
        }


@dataclass(frozen=True)
class Probe(Classifying):
    """A linear probe as data; frozen, and YAML in and out (training/reading.py)."""

    task: ClassVar[str] = "linprobe"
    usual: ClassVar[str] = "linprobe-base"

    about: str = setting("", "its source, in a sentence", free=True)
    reaches: str = setting("", "the result to expect", free=True)
    model: str = setting("vit_base_patch16", "as -m takes it: a preset, a JSON file or img_size=...,...")
    input_size: int | None = setting(None, "side of the images in pixels; null: the model's")
    pooling: Literal["gap", "cls", "mean"] = setting(
        "cls", "what the head sees: mean of the patches, class token, mean of all"
    )
    num_classes: int | None = setting(None, "classes of the head; null: those of the data")
    seed: int = setting(0, "of the head, order, crops and flips")
    data: Labelled = group(Labelled, "how images and their classes are read")
    images: ProbedImages = group(ProbedImages, "from a decoded image to the model's input")
    optimizer: Lars = group(Lars, "LARS")
    schedule: ProbedRate = group(ProbedRate, "the learning rate's schedule and the run's length")
    batch: ProbedBatch = group(ProbedBatch, "the images of a step")
    computing: Computing = group(Computing, "how the step computes")
    evaluation: Evaluating = group(Evaluating, "the measurement on the val part")
    checkpoints: SavedBest = group(SavedBest, "when checkpoints are written, and which are kept")
    watching: Board = group(Board, "files to be looked at")

    drop_path: ClassVar[float] = 0.0
    head_std: ClassVar[None] = None
    norm_from_encoder: ClassVar[bool] = False

    @property
    def model_settings(self) -> dict[str, Any]:
        """The settings of the model that the recipe gives, beside its name: only the head is trained, behind a batch norm."""
        return {**super().model_settings, "head_norm": True, "train_encoder": False, "train_positions": False}

    @property
    def settings(self) -> Settings:
        """Of the optimizer."""
        given = self.optimizer
        return Settings(weight_decay=given.weight_decay, clip=given.clip_grad, kind="lars")

    def mixing_of(self, classes: int) -> Mixing | None:
        """None: the targets are the labels."""
        return None
