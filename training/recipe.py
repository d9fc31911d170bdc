"""A recipe: everything that decides what a training computes, as data. A setting is one line here.

Defaults are the official pre-training's (facebookresearch/mae main_pretrain.py and PRETRAIN.md; He et al. 2021, table 8);
those of fine-tuning and of the linear probe are in classifying.py.
"""

# ruff: noqa: RUF009  (`setting` gives a field, not a value)
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar, Literal

from ..backends.averaging import Averaging
from ..backends.config import Config, MAEConfig
from ..backends.optimization import Decayed, Schedule, Settings
from ..backends.presets import model_config
from ..data.augment import Augmentation, Crop
from ..data.images import MEAN, STD
from ..data.mixing import Mixing
from ..files.errors import Problem

Precision = Literal["float32", "bfloat16", "float16"]


def setting(default: Any, about: str, free: bool = False) -> Any:
    """A field of a recipe. free: it does not change what is computed, and may be another when a run is resumed."""
    return field(default=default, metadata={"about": about, "free": free})


def group(kind: type[Any], about: str) -> Any:
    """A field of a recipe that holds settings."""
    return field(default_factory=kind, metadata={"about": about})


@dataclass(frozen=True)
class Data:
    """How images are read."""

    data_format: str | None = setting(None, "folder, tree, flat, list, tar, parquet or npz; null: found out by looking")
    split: Literal["train", "val"] = setting("train", "which part, where the data set has several")
    skip_broken: bool = setting(False, "put the next image in the place of one that cannot be decoded, and count it")
    workers: int = setting(2, "threads that decode ahead; 0: decode between steps", free=True)
    ahead: int = setting(2, "batches that are made ahead", free=True)


@dataclass(frozen=True)
class Images:
    """From a decoded image to the model's input; its size and channels are the model's."""

    crop: Crop = setting(
        "random_resized",
        "random_resized (torchvision's law), first_box (the official probe's), centre (the evaluation's), shift or none",
    )
    scale: tuple[float, float] = setting((0.2, 1.0), "least and largest share of the area of a random box")
    ratio: tuple[float, float] = setting((3 / 4, 4 / 3), "narrowest and widest shape of a random box, width by height")
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = setting("bicubic", "of the resizing")
    shift: int = setting(2, "pixels that crop shift moves an image by at most, each way")
    flip: float = setting(0.5, "probability that left and right are exchanged")
    auto_augment: str | None = setting(None, "RandAugment's policy, in timm's words; null: none")
    mean: tuple[float, ...] | None = setting(None, "of each channel, of values in [0, 1]; null: ImageNet's")
    std: tuple[float, ...] | None = setting(None, "of each channel; null: ImageNet's")
    upright: bool = setting(False, "apply EXIF rotations, which the official code does not")


@dataclass(frozen=True)
class AdamW:
    """The optimizer."""

    lr: float | None = setting(None, "the highest learning rate; null: blr x batch_size / 256")
    blr: float = setting(1.5e-4, "learning rate for 256 images a step")
    weight_decay: float = setting(0.05, "of matrices and tokens; vectors and biases have none")
    decayed: Decayed = setting(
        "official",
        "official: no vectors and biases. all: FlyEgle's mistake, these too. first_groups: mindformers' mistake, only groups "
        "of layer decay that come before the first parameter without decay",
    )
    betas: tuple[float, float] = setting((0.9, 0.95), "of the moments")
    eps: float = setting(1e-8, "added to the root of the second moment")
    clip_grad: float | None = setting(
        None, "global norm to which larger gradients are scaled down; null: they are left"
    )


@dataclass(frozen=True)
class Rate:
    """The learning rate's schedule and the run's length."""

    epochs: int = setting(800, "passes over the data")
    warmup_epochs: float = setting(40.0, "passes in which the rate rises from 0")
    min_lr: float = setting(0.0, "where the cosine ends")
    shape: Literal["cosine", "cosine_from_start"] = setting(
        "cosine",
        "cosine: from the warm-up's end to the last epoch. cosine_from_start: LiBai's and FlyEgle's mistake, counted from "
        "the run's start: it jumps after the warm-up and rises again at the end",
    )
    steps: int | None = setting(None, "stop after so many steps; the schedule stays that of all epochs", free=True)


@dataclass(frozen=True)
class Batch:
    """The images of a step."""

    batch_size: int = setting(4096, "images of a step, over all parts and processes")
    accumulate: int = setting(1, "parts that a step's images are computed in", free=True)
    micro_batch_size: int | None = setting(
        None, "images of a part, at most, which makes more parts where it must; null: no limit", free=True
    )

    @property
    def parts(self) -> int:
        """That a step is computed in."""
        return max(self.accumulate, -(-self.batch_size // (self.micro_batch_size or self.batch_size)))


@dataclass(frozen=True)
class Computing:
    """How the step computes."""

    precision: Precision = setting("float32", "of products in the step; weights, moments and updates are float32")
    compiled: bool | None = setting(None, "compile the step; null: where that pays in the framework", free=True)

    def options(self, device: str) -> dict[str, Any]:
        """Those of backends' Training."""
        return {"precision": self.precision, "compiled": self.compiled, "device": device}


@dataclass(frozen=True)
class Saving:
    """When checkpoints are written, and which are kept. The last is always kept."""

    save_every_steps: int | None = setting(None, "a checkpoint after each so many steps", free=True)
    save_every_epochs: int | None = setting(20, "a checkpoint after each so many epochs", free=True)
    keep_last: int = setting(2, "so many of the newest are kept", free=True)
    keep_every_epochs: int | None = setting(None, "those after each so many epochs are kept", free=True)
    keep_best: bool = setting(False, "that of the epoch of least mean loss is kept", free=True)


@dataclass(frozen=True)
class Watching:
    """What is written to be looked at."""

    tensorboard: bool = setting(True, "write RUN/tensorboard, where tensorboardX is installed", free=True)
    pictures_every_epochs: int | None = setting(20, "reconstructions of fixed images under fixed masks", free=True)
    pictures: int = setting(8, "images that are reconstructed", free=True)
    knn_every_epochs: int | None = setting(
        None, "accuracy of nearest neighbours by the encoder's features, where the data has labels", free=True
    )
    knn_images: int = setting(2000, "images of the bank, and as many that are classified by it, at most", free=True)


class Common:
    """What a recipe of any task says by its settings, which a frozen dataclass below this class holds."""

    task: ClassVar[str]  # the subcommand of polymae that takes it
    usual: ClassVar[str]  # the name of the recipe that it takes where none is given

    def __post_init__(self) -> None:
        """Raises Problem for values that no run can have."""
        for name, wrong in self._mistakes().items():
            if wrong:
                raise Problem(f"The recipe's {name}.")

    @property
    def averaging(self) -> Averaging | None:
        """Of the weights; None: no average is kept."""
        return None

    def _mistakes(self) -> dict[str, bool]:
        """Mistakes that a recipe may have, in words, and whether it has them."""
        return mistakes(self)

    def augmentation_of(self, config: Config, **more: Any) -> Augmentation:
        """Of the images, for a model's size and channels. Raises Problem where mean and std do not fit."""
        given, channels = self._settings.images, config.in_chans
        values = {one.name: getattr(given, one.name) for one in fields(given) if one.name not in ("mean", "std")}
        mean, std = (_of_channels(*pair, channels) for pair in ((given.mean, MEAN), (given.std, STD)))
        return Augmentation(input_size=config.img_size, channels=channels, mean=mean, std=std, **values | more)

    @property
    def lr(self) -> float:
        """The highest learning rate: blr x batch_size / 256 where none is given."""
        given = self._settings.optimizer
        rate: float = given.blr * self._settings.batch.batch_size / 256 if given.lr is None else given.lr
        return rate

    def schedule_of(self, steps_per_epoch: int) -> Schedule:
        """The learning rate of every step."""
        given = self._settings.schedule
        return Schedule(
            self.lr,
            given.warmup_epochs,
            given.epochs,
            steps_per_epoch,
            given.min_lr,
            given.shape == "cosine_from_start",
        )

    def steps(self, steps_per_epoch: int) -> int:
        """The number of steps of the whole run."""
        given = self._settings.schedule
        whole: int = given.epochs * steps_per_epoch
        return whole if given.steps is None else min(whole, given.steps)

    @property
    def _settings(self) -> Any:
        """Itself, as the dataclass that it is."""
        return self


@dataclass(frozen=True)
class Recipe(Common):
    """A pre-training as data; frozen, and YAML in and out (training/reading.py)."""

    task: ClassVar[str] = "pretrain"
    usual: ClassVar[str] = "official-base"

    about: str = setting("", "its source, in a sentence", free=True)
    reaches: str = setting("", "the result to expect", free=True)
    model: str = setting("mae_vit_base_patch16", "as -m takes it: a preset, a JSON file or img_size=...,...")
    input_size: int | None = setting(None, "side of the images in pixels; null: the model's")
    norm_pix_loss: bool = setting(False, "score patches normalised by their mean and variance")
    mask_ratio: float = setting(0.75, "share of the patches that is removed")
    cutmix: float = setting(
        0.0, "FlyEgle's mistake: alpha of the area of a box of another image that an image is given; 0: none"
    )
    seed: int = setting(0, "of initial weights, order, crops, flips and masks")
    data: Data = group(Data, "how images are read")
    images: Images = group(Images, "from a decoded image to the model's input")
    optimizer: AdamW = group(AdamW, "AdamW")
    schedule: Rate = group(Rate, "the learning rate's schedule and the run's length")
    batch: Batch = group(Batch, "the images of a step")
    computing: Computing = group(Computing, "how the step computes")
    checkpoints: Saving = group(Saving, "when checkpoints are written, and which are kept")
    watching: Watching = group(Watching, "files to be looked at")

    def _mistakes(self) -> dict[str, bool]:
        watching = self.watching
        positive = {
            "pictures_every_epochs": watching.pictures_every_epochs, "pictures": watching.pictures,
            "knn_every_epochs": watching.knn_every_epochs, "knn_images": watching.knn_images,
        }  # fmt: skip
        return {
            **mistakes(self),
            **above_0(positive),
            f"mask_ratio is {self.mask_ratio}; it must be above 0 and below 1": not 0 < self.mask_ratio < 1,
            f"cutmix is {self.cutmix}; it must be 0 or more": not self.cutmix >= 0,
        }

    @property
    def config(self) -> MAEConfig:
        """The model. Raises ConfigError for one that does not exist, Problem for a classifier."""
        config: Config = model_config(self.model)
        if not isinstance(config, MAEConfig):
            raise Problem(
                f"The recipe's model is {self.model}, a classifier; pre-training takes an autoencoder (mae_...)."
            )
        size = config.img_size if self.input_size is None else (self.input_size, self.input_size)
        return replace(config, img_size=size, norm_pix_loss=self.norm_pix_loss or config.norm_pix_loss)

    @property
    def augmentation(self) -> Augmentation:
        """Of the images, for the model's size and channels. Raises Problem where mean and std do not fit."""
        return self.augmentation_of(self.config)

    @property
    def settings(self) -> Settings:
        """Of the optimizer."""
        given = self.optimizer
        return Settings(given.betas, given.eps, given.weight_decay, given.clip_grad, decayed=given.decayed)

    @property
    def mixing(self) -> Mixing | None:
        """Of the images, without targets; None: they are as they are."""
        return Mixing(0, 0.0, cutmix=self.cutmix) if self.cutmix else None


def leaves(recipe: Common | type[Common] = Recipe) -> Iterator[tuple[str, Any]]:
    """Every setting's dotted name ("schedule.epochs") and its dataclass field, in order. Their last names are unique."""

    def visit(kind: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for one in fields(kind):
            default = one.default_factory if callable(one.default_factory) else None
            if default is not None and is_dataclass(default):
                yield from visit(default, f"{prefix}{one.name}.")
            else:
                yield prefix + one.name, one

    return visit(recipe, "")


def values(recipe: Common) -> dict[str, Any]:
    """Every setting by its dotted name."""
    flat: dict[str, Any] = {}

    def visit(tree: Mapping[str, Any], prefix: str) -> None:
        for name, value in tree.items():
            if isinstance(value, dict):
                visit(value, f"{prefix}{name}.")
            else:
                flat[prefix + name] = value

    visit(asdict(recipe), "")  # type: ignore[call-overload]
    return flat


def tree_of(recipe: Common) -> dict[str, Any]:
    """A recipe as nested settings; its task beside them, unless it is pre-training."""
    tree: dict[str, Any] = asdict(recipe)  # type: ignore[call-overload]
    return tree if isinstance(recipe, Recipe) else {"task": recipe.task, **tree}


def differences(one: Common, other: Common) -> dict[str, tuple[Any, Any]]:
    """The settings that change what is computed and differ, by dotted name, with both values.

    Of recipes of two tasks: the tasks, and the settings that both have.
    """
    mine, theirs = values(one), values(other)
    bound = [name for name, leaf in leaves(one) if not leaf.metadata["free"] and name in theirs]
    tasks = {} if one.task == other.task else {"task": (one.task, other.task)}
    return tasks | {name: (mine[name], theirs[name]) for name in bound if mine[name] != theirs[name]}


def _of_channels(given: tuple[float, ...] | None, imagenet: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if given is not None:
        return given
    return imagenet if channels == len(imagenet) else (sum(imagenet) / len(imagenet),) * channels


def above_0(numbers: Mapping[str, float | None]) -> dict[str, bool]:
    """A sentence for each number, and whether it is one that is not above 0."""
    return {
        f"{name} is {value}; it must be above 0": value is not None and not value > 0 for name, value in numbers.items()
    }


def mistakes(recipe: Any) -> dict[str, bool]:
    """The mistakes that a recipe of any task may have, in words, and whether it has them."""
    schedule, batch, saving = recipe.schedule, recipe.batch, recipe.checkpoints
    positive = {
        "epochs": schedule.epochs, "batch_size": batch.batch_size, "accumulate": batch.accumulate,
        "micro_batch_size": batch.micro_batch_size, "lr": recipe.optimizer.lr,
        "steps": schedule.steps, "save_every_steps": saving.save_every_steps, "keep_last": saving.keep_last,
        "save_every_epochs": saving.save_every_epochs, "keep_every_epochs": saving.keep_every_epochs,
        "input_size": recipe.input_size, "ahead": recipe.data.ahead, "eps": getattr(recipe.optimizer, "eps", None),
        "clip_grad": recipe.optimizer.clip_grad,
    }  # fmt: skip
    at_least_0 = {
        "blr": recipe.optimizer.blr, "weight_decay": recipe.optimizer.weight_decay, "warmup_epochs": schedule.warmup_epochs,
        "min_lr": schedule.min_lr, "workers": recipe.data.workers, "seed": recipe.seed,
    }  # fmt: skip
    betas = getattr(recipe.optimizer, "betas", ())
    return {
        **above_0(positive),
        **{f"{name} is {value}; it must be 0 or more": not value >= 0 for name, value in at_least_0.items()},
        f"betas are {betas}; both must be 0 or more and below 1": not all(0 <= beta < 1 for beta in betas),
        f"accumulate is {batch.accumulate}, and its batch_size {batch.batch_size}; there cannot be more parts than images": (
            batch.accumulate > batch.batch_size
        ),
    }
