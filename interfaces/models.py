"""`ViTMAEForPreTraining` and `ViTForImageClassification`: models with weights, in any framework, by the names that people know.

What `from_pretrained` gives is the framework's own model (a torch.nn.Module, a MindSpore Cell, ...) that is also of the class
it was asked from, and so can `save_pretrained` (docs/decisions/interfaces.md).
"""

from __future__ import annotations

import functools
import importlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

from ..backends import FRAMEWORKS
from ..backends.config import Config, Encoder, MAEConfig, ViTConfig
from ..backends.presets import ALIASES, NAMED, preset_name
from ..backends.runtime import framework_of, load_backend
from ..convert.checkpoint import Checkpoint
from ..convert.targets import default_ending
from ..convert.writing import write_checkpoint
from ..data.augment import Augmentation
from ..files.errors import Problem
from ..hub import list_models, load
from ..hub.registry import of_model
from ..training.measured import MASK_RATIO, noted, told_of
from .advice import require_known
from .sources import Found, find, is_model, our_name

_LOADS = (
    "device",
    "dtype",
    "image_size",
    "seed",
    "prefix",
    "dialect",
    "verbose",
)  # of hub.load, beside a model's settings


class Pretrained:
    """What both kinds of model can.

    mask_ratio: of an autoencoder's training, where something tells, else 0.75. images: how its images were prepared, without
    what was random, for `pipeline`; None: nothing tells, and the official evaluation's is taken.
    """

    kind: ClassVar[type[Config]]
    config: Any
    mask_ratio: float = MASK_RATIO
    images: Augmentation | None = None

    def __new__(cls, *given: Any, **options: Any) -> Any:
        """Raises Problem where somebody constructs one: it would have weights of no training."""
        if cls.__name__ in _PUBLIC:
            raise Problem(
                f"{cls.__name__} is not constructed: {cls.__name__}.from_pretrained(NAME or PATH, framework=...) gives one with "
                "weights, polymae.load(NAME, framework) one with initial weights.",
                code="bad-argument",
            )
        return super().__new__(cls, *given, **options)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, framework: str = "torch", *, model: str | None = None, **options: Any
    ) -> Any:
        """The framework's own model, in eval mode, with the weights that are meant.

        name: a model's (get_support_list, mindformers' too), which means the best weights that are published for it; a
        published checkpoint's; a file or folder of any framework and dialect, a run's, or that save_pretrained wrote; a URL; a
        Hugging Face id. model: as -m takes it, where a file does not tell. options: device, dtype, image_size, seed, prefix,
        dialect, verbose of polymae.load, and settings of the model (num_classes=10, norm_pix_loss=True).
        Raises Problem for what cannot be had, a failed download among it: there is never a random model in its place.
        """
        settings = [one.name for one in fields(cls.kind)]
        require_known(f"{cls.__name__}.from_pretrained", options, [*_LOADS, *settings, "global_pool"])
        named = cls._named(str(name))
        found = find(name)
        told = told_of(found.path, options.get("dialect"), options.get("prefix"))
        if cls.kind is MAEConfig and told.checkpoint.contents not in ("mae", "encoder"):
            raise Problem(
                f"{name} holds a classifier: ViTForImageClassification.from_pretrained loads it.", code="does-not-fit"
            )
        sizes = our_name(model) if model is not None else named or cls._told(found, told.checkpoint)
        weights: Any = found.row.name if found.row is not None and found.path != Path(name).expanduser() else told.file
        built = load(sizes, framework, weights, **options)
        base: Any = type(built)
        built.__class__ = _joined(cls.__name__, framework, base)
        built.mask_ratio, built.images = told.mask_ratio, told.images
        return built

    def save_pretrained(self, directory: str | Path, name: str | None = None) -> Path:
        """Write the weights as the framework's own file, DIRECTORY/<name> with its ending, and their origin; returns its path.

        name: None: the model's, or "mae" or "vit" where it has none. from_pretrained reads the file again, in any framework,
        as the same model bit for bit. Raises CheckpointProblem; then an older file is untouched.
        """
        framework = framework_of(self)
        usual = preset_name(self.config)
        chosen = name or (usual if usual in NAMED else "mae" if self.kind is MAEConfig else "vit")
        if chosen != Path(chosen).name:
            raise Problem(
                f"The name is {chosen!r}; it is a file's without folders: save_pretrained(FOLDER, name='mae').",
                code="bad-argument",
            )
        path = Path(directory) / f"{chosen}{default_ending(framework)}"
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = load_backend(framework).weights(self)
        note = {"name": "save_pretrained", "framework": framework, **noted(self.mask_ratio, self.images)}
        write_checkpoint(framework, path, self.config, weights, source=note)
        return path

    @classmethod
    def get_support_list(cls) -> list[str]:
        """The models that weights are published for. mindformers' names for them are understood, too."""
        names = [name for name in list_models() if isinstance(NAMED[ALIASES.get(name, name)], cls.kind)]
        whole = {"mae"} if cls.kind is MAEConfig else {"mae", "encoder", "classifier"}
        return [
            name for name in names if any(row.contents in whole for row in of_model(ALIASES.get(name, name)).values())
        ]

    @classmethod
    def show_support_list(cls) -> None:
        """Print that list, a name a line."""
        print("\n".join(cls.get_support_list()))

    @classmethod
    def _named(cls, name: str) -> str | None:
        """The model that a name means; None where it is no model's. Raises Problem for one of the other kind."""
        if not is_model(name) or Path(name).exists():
            return None
        model = ALIASES.get(our_name(name), our_name(name))
        if not isinstance(NAMED[model], cls.kind):
            raise Problem(
                f"{name} is {_KINDS[type(NAMED[model])]}; {cls.__name__} takes {_other(model)}.", code="does-not-fit"
            )
        return model

    @classmethod
    def _told(cls, found: Found, checkpoint: Checkpoint) -> str:
        """The model to load, as hub.load takes it, as the file tells."""
        told = found.row.model if found.row is not None else checkpoint.model
        config = NAMED.get(told or "", checkpoint.config)
        if config is None:
            checkpoint.resolve()  # raises, with what the file shows
        assert config is not None
        if isinstance(config, cls.kind):
            return told if told in NAMED else as_text(config, type(config))
        if told in NAMED and (classifier := told.replace("mae_", "", 1)) in NAMED:
            return classifier
        return f"{as_text(config, Encoder)},num_classes={ViTConfig.num_classes}"


class ViTMAEForPreTraining(Pretrained):
    """A masked autoencoder: model(imgs, noise, mask_ratio) gives loss [], pred [N, L, P] and mask [N, L]."""

    kind = MAEConfig


class ViTForImageClassification(Pretrained):
    """A classifier: model(imgs) gives logits [N, classes]."""

    kind = ViTConfig


_KINDS = {MAEConfig: "an autoencoder", ViTConfig: "a classifier"}
_PUBLIC = {kind.__name__: kind for kind in (ViTMAEForPreTraining, ViTForImageClassification)}


def _other(name: str) -> str:
    """The model of the other kind on the same encoder."""
    return name.replace("mae_vit_", "vit_", 1) if "mae_vit_" in name else name.replace("vit_", "mae_vit_", 1)


def as_text(config: Config, kind: type[Any]) -> str:
    """The settings of a configuration that a kind has, as -m takes them."""
    values = {one.name: getattr(config, one.name) for one in fields(kind)}
    return ",".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()
    )


@functools.cache  # a class is made once, so that two models of a kind are of one class
def _joined(public: str, framework: str, base: type[Any]) -> type[Any]:
    """The class of a framework's models that are also of the public one, under the name by which pickle finds it again."""
    return type(f"{public}_{framework}", (_PUBLIC[public], base), {"__module__": __name__})


def __getattr__(name: str) -> Any:
    """Those classes by name, for pickle."""
    public, _, framework = name.partition("_")
    if public not in _PUBLIC or framework not in FRAMEWORKS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    load_backend(framework)
    own = importlib.import_module(f"..backends.{framework}.model", __package__)
    return _joined(public, framework, own.MAE if _PUBLIC[public].kind is MAEConfig else own.ViT)
