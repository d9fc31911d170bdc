"""Which model a checkpoint is, and whether it is the requested one.

Three things can tell: the request (`Wish`), the file's own words (a config.json, or the provenance of an earlier conversion), and
the names and shapes of its tensors. `read_evidence` gathers the last two when a file is opened. `resolve` is then asked once,
with the request, and nothing is guessed before. Whether the tensors fit the answer is Checkpoint.select's question.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ..backends.config import Config, ConfigError, MAEConfig, ViTConfig
from ..backends.presets import ALIASES, FAMILY_PRESETS, NAMED, PRESETS, model_config, preset_name
from ..backends.spec import Shape
from ..files.errors import option
from .dialects import OF_CLASSIFIERS, Contents, Dialect, encoder_config, expected_params, settings_in
from .huggingface import FILE as HF_CONFIG
from .huggingface import read_config, read_timm_config, without_qkv_bias
from .identify import Identified
from .problems import unknown_model
from .provenance import Provenance
from .tensors import CheckpointProblem, State, map_file

AnyConfig = TypeVar("AnyConfig", bound=Config)
Shapes = Mapping[str, Shape]

# The settings that decide how a program computes, and not which parameters there are.
COMPUTED = ("norm_eps", "block_norm_eps", "positions", "masking", "loss_over", "train_positions")
_OPTIONS = ("norm_pix_loss",)  # the settings among the options (args) that the official script saves
_LONGEST_TEXT = 1 << 20  # bytes of a config.json


@dataclass(frozen=True)
class Wish:
    """A request: the model of a checkpoint, and the changes to its weights. None leaves them as they are."""

    model: str | None = None  # as --model takes it
    source_dialect: str | None = None  # the dialect to read the file in
    encoder_only: bool = False
    dtype: str | None = None
    image_size: tuple[int, int] | None = None  # (height, width) in pixels
    num_classes: int | None = None
    prefix: str | None = None  # the beginning of the model's names, in a file that holds several models
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the configuration, beside those that `model` has
    # Whether the weights are for a model that is built now, and not for another file: then a file of another image size is
    # taken as it is, and a classifier takes the encoder of an autoencoder's file.
    adapt: bool = False


@dataclass(frozen=True)
class Resolved:
    """The answer: the model of a checkpoint, as far as it is used."""

    name: str  # as it was requested, else that of the preset, else "own model"
    config: Config  # of the tensors that are taken from the file
    encoder_only: bool = False  # whether only the encoder is taken
    classifier: ViTConfig | None = None  # the requested one that is built on this encoder


@dataclass(frozen=True)
class Evidence:
    """All that a file tells of its model, before anybody requests one."""

    identified: Identified
    declared: Config | None = None  # by a config.json or a provenance
    # The program's settings without a place in a configuration, as {"gelu": "tanh"}, as far as the file declares them.
    function: Mapping[str, str] = field(default_factory=dict)
    config_text: str | None = None  # the config.json, if it is of transformers
    no_qkv_bias: bool = False  # whether the program adds no bias to q, k and v, which computes as biases of 0
    options: Mapping[str, Any] = field(default_factory=dict)  # settings that training saved in the file as its options

    @cached_property
    def shown(self) -> tuple[str | None, Config | None]:
        """The model that the file tells by itself: preset and configuration, None where it tells nothing.

        It is the declared one, or the only preset with exactly these shapes. No shape shows head counts: they are the
        preset's then.
        """
        contents, dialect = self.identified.contents, self.identified.dialect
        if self.declared is not None:
            return _name_of(self.declared, contents), self.declared
        models = fitting_models(self.identified.spec_shapes, contents, _settings_of(dialect, contents), dialect.derived)
        if len(models) != 1:
            return None, None
        ((name, config),) = models.items()
        if contents == "mae":
            config = replace(config, **self.options)
        return _name_of(config, contents) or name, config


def read_evidence(path: Path, state: State, identified: Identified, provenance: Provenance | None) -> Evidence:
    """The evidence in an opened file and in the config.json in its folder.

    Raises CheckpointProblem for a config.json that cannot be read, that contradicts the provenance, or that does not fit
    the tensors.
    """
    contents, dialect = identified.contents, identified.dialect
    options = {name: state.settings[name] for name in _OPTIONS if isinstance(state.settings.get(name), bool)}
    of_timm = dialect.name in ("official", "timm") and contents != "mae"
    text = None
    if dialect.config_file or of_timm:
        text = state.metadata.get(HF_CONFIG) or _config_beside(path)
    config: Config | None = None
    function: dict[str, Any] = {}
    no_bias = False
    if text and of_timm:
        config, text = _of_these_shapes(read_timm_config(text, contents), identified), None
    elif text:
        config, function = read_config(text, contents, f"{path}: {HF_CONFIG}")
        no_bias = without_qkv_bias(text)
    if provenance is not None and provenance.config is not None:
        if config is not None:
            _require_same(config, provenance.config, identified)
        config, function = provenance.config, dict(provenance.function)
    if config is not None:
        _require_plausible(config, identified, HF_CONFIG if provenance is None else "provenance")
    return Evidence(identified, config, function, text or None, no_bias, options)


def resolve(evidence: Evidence, wish: Wish) -> Resolved:
    """The model of a file, for a request.

    A name says the size; the file says how many classes and which pooling a classifier has, and, if the request does not,
    how the program computes. Raises CheckpointProblem if nothing was requested and the file does not tell, and if request
    and file contradict each other; ConfigError for an unusable request.
    """
    contents = evidence.identified.contents
    has_encoder = contents in ("mae", "encoder")
    encoder_only = wish.encoder_only or (wish.num_classes is not None and has_encoder)
    if wish.model is None:
        name, config = evidence.shown
        if config is None:
            raise CheckpointProblem(unknown_model(evidence.identified), code="unknown-model")
        # Without a request an encoder's file is taken for what it is; one that was requested by name should be whole.
        return Resolved(name or "own model", config, encoder_only or contents == "encoder")
    requested, settings = model_config(wish.model, **wish.settings), {*wish.settings}
    if wish.adapt or wish.image_size is not None:  # the file may be of the requested size already
        requested = replace(requested, img_size=_size_in_file(evidence, requested, wish.image_size))
        settings.add("img_size")
    if wish.adapt and has_encoder and isinstance(requested, ViTConfig):
        if wish.num_classes is not None:
            requested = replace(requested, num_classes=wish.num_classes)
        classifier = _on_encoder(evidence, wish.model, requested, settings)
        return Resolved(wish.model, encoder_config(classifier), True, classifier)
    return Resolved(wish.model, _requested(evidence, wish.model, requested, settings), encoder_only)


def with_requested_head(evidence: Evidence, config: Config, wish: Wish) -> Config:
    """The configuration of the model that is built with a classifier's weights: with the requested classes.

    Raises CheckpointProblem for another kind of head or pooling than the file's.
    """
    if not isinstance(config, ViTConfig):
        return config
    if evidence.identified.contents == "headless" and isinstance(evidence.declared, ViTConfig):
        config = replace(config, num_classes=evidence.declared.num_classes)
    # A new head is of the usual kind, unless another one is requested.
    if wish.num_classes not in (None, config.num_classes):
        config = replace(config, num_classes=wish.num_classes, head_norm=wish.settings.get("head_norm", False))
    for name in ("pooling", "head_norm"):
        requested, actual = wish.settings.get(name), getattr(config, name)
        if requested not in (None, actual):
            raise CheckpointProblem(
                f"{evidence.identified.where} is a classifier with {name}={actual}, not {requested}: it has nothing trained for "
                f"that. Leave out {name}, or begin from a pre-trained encoder.",
                code="does-not-fit",
            )
    return config


def fitting_models(
    shapes: Shapes, contents: Contents, settings: Mapping[str, Any] = {}, derived: Collection[str] = ()
) -> dict[str, Config]:
    """The presets whose parameters have exactly these names and shapes, as configurations.

    settings: others that are known of the model, as the eps of its dialect's program. derived: tensors that may be missing.
    """
    models: dict[str, Config] = {}
    conv = "unconv.weight" in shapes  # a convolution as head is FlyEgle's, whatever spells it
    for name, preset in (FAMILY_PRESETS if conv else PRESETS).items():
        other_family = conv and not name.startswith("flyegle_")
        if other_family or isinstance(preset, MAEConfig) == (contents in OF_CLASSIFIERS):
            continue
        try:
            config = _adapted(preset, shapes, settings)
        except ConfigError:  # shapes that no model can have
            continue
        expected = {p.name: p.shape for p in expected_params(config, contents) if p.name not in derived}
        if expected == dict(shapes):
            models[name] = config
    return models


def unlike(
    one: Config, other: Config, contents: Contents, aside: Collection[str] = COMPUTED
) -> dict[str, tuple[Any, Any]]:
    """The settings in which two configurations of a file differ, with both values, but for the settings set aside.

    Only settings that such a file shows count, and two ratios with the same hidden layers are the same. Configurations of
    two kinds of model give nothing: their tensors tell.
    """
    if type(one) is not type(other):
        return {}
    counted = settings_in(contents) - {*aside}
    pairs = {f.name: (getattr(one, f.name), getattr(other, f.name)) for f in fields(one) if f.name in counted}
    widths = [getattr(one, name) for name in ("embed_dim", "decoder_embed_dim") if name in settings_in(contents)]
    if all(one.mlp_dim(width) == other.mlp_dim(width) for width in widths):
        pairs.pop("mlp_ratio", None)
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _requested(evidence: Evidence, model: str, requested: Config, settings: Collection[str]) -> Config:
    """The requested model, as the file's shapes show it and as its program computes.

    model: as --model takes it; requested: its configuration, with the other requested settings, of these names.
    """
    shapes, contents = evidence.identified.spec_shapes, evidence.identified.contents
    named = model.partition(",")[0] in {*NAMED, *ALIASES}
    config = _adapted(requested, shapes) if named or isinstance(requested, MAEConfig) else requested
    _require_family(evidence, model, requested, config)
    written = _written(model, requested)
    config = replace(config, **{name: getattr(requested, name) for name in written & {"num_classes", "pooling"}})
    config = _as_computed(evidence, config, {*written, *settings})
    # Weights are of no loss: one that was requested is no contradiction.
    _require_agreement(evidence, model, config, contents, {"norm_pix_loss"}.intersection(settings))
    return config


def _on_encoder(evidence: Evidence, model: str, requested: ViTConfig, settings: Collection[str]) -> ViTConfig:
    """The requested classifier, as it computes on the encoder of an autoencoder's file. Arguments as _requested."""
    # Whether fine-tuning trains the positions is the classifier's own.
    config = _as_computed(evidence, requested, {*_written(model, requested), *settings, "train_positions"})
    _require_agreement(evidence, model, encoder_config(config), "encoder")
    return config


def _size_in_file(evidence: Evidence, requested: Config, wanted: tuple[int, int] | None) -> tuple[int, int]:
    """The image size of a file's position table, (height, width) in pixels: the declared one, or the likeliest of its length."""
    if evidence.declared is not None:
        return evidence.declared.img_size
    table, p = evidence.identified.spec_shapes.get("pos_embed", ()), requested.patch_size
    patches = table[1] - 1 if len(table) == 3 else requested.num_patches
    for size in (requested.img_size, wanted):
        if size is not None and (size[0] // p) * (size[1] // p) == patches:
            return size
    side = math.isqrt(max(patches, 0))
    return (side * p, side * p) if side and side**2 == patches else requested.img_size


def _adapted(config: Config, shapes: Shapes, settings: Mapping[str, Any] = {}) -> Config:
    """A configuration with these settings, as far as it has them, and with classes, pooling and kind of head as in the shapes."""
    shown = dict(settings)
    if isinstance(config, ViTConfig):
        head = shapes.get("head.weight", ())
        if len(head) == 2 and head[0]:
            shown["num_classes"] = head[0]
        shown["head_norm"] = any(name.startswith("head_norm.") for name in shapes)
        if "fc_norm.weight" in shapes:
            shown["pooling"] = "gap"
        elif "norm.weight" in shapes and config.pooling == "gap":
            shown["pooling"] = "cls"
    elif any(name.startswith("decoder_") for name in shapes):
        shown["head"] = "conv" if "unconv.weight" in shapes else "linear"
        shown["decoder_norm"] = "decoder_norm.weight" in shapes or "decoder_norm.bias" in shapes
        if not shown["decoder_norm"] and shown["head"] == "linear" and config.decoder_norm:
            shown["decoder_norm"] = True  # rather a missing tensor than a rare family
    return replace(config, **{name: value for name, value in shown.items() if hasattr(config, name)})


def _as_computed(evidence: Evidence, config: AnyConfig, explicit: Collection[str]) -> AnyConfig:
    """The configuration with the settings that the file's program computes with, but for explicit ones."""
    known = {name: value for name, value in _computed(evidence).items() if hasattr(config, name)}
    return replace(config, **{name: value for name, value in known.items() if name not in explicit})


def _computed(evidence: Evidence) -> dict[str, Any]:
    """How the program of a file computes, as far as the file tells: by its declaration, or by its dialect."""
    config, identified = evidence.declared, evidence.identified
    names: tuple[str, ...] = (*COMPUTED, "norm_pix_loss")
    if config is None and "unconv.weight" in identified.readings:  # FlyEgle's, whose settings no other dialect fixes
        config, names = evidence.shown[1], COMPUTED
    if config is None:
        return {**_settings_of(identified.dialect, identified.contents), **evidence.options}
    return {**evidence.options, **{name: getattr(config, name) for name in names if hasattr(config, name)}}


def _settings_of(dialect: Dialect, contents: Contents) -> dict[str, Any]:
    """The settings of a model's configuration that a dialect's program fixes."""
    fixed = dialect.function(contents)
    if "norm_eps" in fixed and fixed.get("block_norm_eps") == fixed["norm_eps"]:
        fixed["block_norm_eps"] = None
    kind = ViTConfig if contents in OF_CLASSIFIERS else MAEConfig
    return {name: value for name, value in fixed.items() if hasattr(kind, name)}


def _written(model: str, config: Config) -> set[str]:
    """The settings that --model gives itself: those that are written there, or that make a preset a family's own."""
    if "=" in model:
        return {part.partition("=")[0].strip() for part in model.split(",") if "=" in part}
    if model.endswith(".json"):
        return set(json.loads(Path(model).read_text()))
    return {f.name for f in fields(config) if f.name in COMPUTED and getattr(config, f.name) != f.default}


def _name_of(config: Config, contents: Contents) -> str | None:
    """The preset of a configuration, or that which differs only in how it computes, pools and classifies.

    contents: the kind of file; for an encoder's, a preset with such an encoder will do.
    """
    usual: dict[str, Any] = {f.name: f.default for f in fields(config) if f.name in COMPUTED}
    likely = [config, replace(config, **usual)]
    if isinstance(config, ViTConfig):
        likely += [replace(config, num_classes=n, pooling="gap", head_norm=False, **usual) for n in (1000, 10)]
    names = [name for one in likely if (name := preset_name(one)) in NAMED]
    if contents == "encoder":
        presets = {name: preset for name, preset in NAMED.items() if isinstance(preset, MAEConfig)}
        names += [name for one in likely for name, preset in presets.items() if not unlike(one, preset, contents, ())]
    return next(iter(names), None)


def _config_beside(path: Path) -> str | None:
    """The config.json in the folder of a single file."""
    beside = path.parent / HF_CONFIG
    if path.is_dir() or not beside.is_file() or beside.stat().st_size > _LONGEST_TEXT:
        return None
    return bytes(map_file(beside)).decode(errors="replace")


def _of_these_shapes(config: Config | None, identified: Identified) -> Config | None:
    """The configuration, if the tensors are of it: a config.json beside a file need not be the file's."""
    shapes = identified.spec_shapes
    expected = () if config is None else expected_params(config, identified.contents)
    return config if all(shapes.get(param.name, param.shape) == param.shape for param in expected) else None


def _require_same(config: Config, noted: Config, identified: Identified) -> None:
    """Raise CheckpointProblem if a config.json contradicts the provenance of the same file."""
    pairs = unlike(config, noted, identified.contents)
    if config.norm_eps != noted.eps_of_blocks:  # the one that a config.json has
        pairs["norm eps"] = (config.norm_eps, noted.eps_of_blocks)
    differ = [f"{name} {one}, not {other}" for name, (one, other) in pairs.items()]
    if differ:
        raise CheckpointProblem(
            f"{identified.where}: {HF_CONFIG} says otherwise than the provenance of the conversion that wrote the weights: "
            f'{"; ".join(differ)}. Undo the change, or take the provenance ("polymae") out of the file\'s metadata.',
            code="bad-note",
        )


def _require_plausible(config: Config, identified: Identified, source: str) -> None:
    """Raise CheckpointProblem if the tensors cannot be of a declared model. source: a config.json or a provenance."""
    decoder = config.decoder_depth if isinstance(config, MAEConfig) and identified.contents == "mae" else 0
    depth, count = config.depth + decoder, len(identified.readings)
    if depth > count or (identified.contents in OF_CLASSIFIERS) != isinstance(config, ViTConfig):
        raise CheckpointProblem(
            f"What the {source} of {identified.where} says of the model ({type(config).__name__}, {depth} blocks) does not fit "
            f"its {count} tensors ({identified.contents}). Remove it, and say with {option('-m')} what the model is.",
            code="bad-note",
        )


def _require_family(evidence: Evidence, model: str, requested: Config, shown: Config) -> None:
    """Raise CheckpointProblem if a name means another kind of autoencoder than that of the file's tensors."""
    identified = evidence.identified
    if model not in NAMED or identified.contents != "mae" or not isinstance(requested, MAEConfig):
        return
    differ = [words for name, words in _differing(shown, requested, "mae").items() if name in ("head", "decoder_norm")]
    if differ:
        raise CheckpointProblem(
            f"{identified.where} is not of {model}'s family: its tensors show {' and '.join(differ)}. Leave out -m, or name "
            "another model (`polymae models`).",
            code="does-not-fit",
        )


def _require_agreement(
    evidence: Evidence, model: str, config: Config, contents: Contents, aside: Collection[str] = ()
) -> None:
    """Raise CheckpointProblem if a request contradicts the file's declaration, but for the settings set aside.

    contents: the part of the file that is used.
    """
    if evidence.declared is None:
        return
    differ = _differing(evidence.declared, config, contents, aside).values()
    if differ:
        raise CheckpointProblem(
            f"{evidence.identified.where} says of itself (in its config.json or provenance) {', '.join(differ)} as in {model}. "
            f"Leave out {option('-m')} to take it for what it says; if that is wrong, correct it there.",
            code="bad-note",
        )


def _differing(one: Config, other: Config, contents: Contents, aside: Collection[str] = ()) -> dict[str, str]:
    """The settings in which two configurations of a file differ, in words."""
    pairs = unlike(one, other, contents, {*COMPUTED, *aside})
    return {name: f"{name}={value}, not {another}" for name, (value, another) in pairs.items()}
