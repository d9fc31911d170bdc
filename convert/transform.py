"""Changes of weights in a conversion (fewer tensors, another dtype or image size), and settings no dialect expresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..backends.config import Config, ConfigError, ViTConfig
from .dialects import KINDS, OF_CLASSIFIERS, Contents, Dialect, encoder_config
from .dialects.dialect import EXACT
from .interpolation import resize_positions
from .tensors import CheckpointProblem, Tensor, cast

# The settings that programs may compute differently with, in words.
_FUNCTION = {
    "norm_eps": "eps of the final norms", "block_norm_eps": "eps of the norms inside the blocks",
    "gelu": "GELU", "variance": "variance of a patch (norm_pix_loss)", "precision": "arithmetic",
    "loss_over": "values that the loss is averaged over", "masking": "order of the kept patches",
    "train_positions": "position tables",
}  # fmt: skip
_VALUES = {True: "trained ones", False: "fixed ones", "erf": "the exact one", "tanh": "its tanh approximation"}


@dataclass(frozen=True)
class WeightSet:
    """The tensors of a model, not loaded, and the changes made to them."""

    config: Config
    contents: Contents
    tensors: Mapping[str, Tensor]  # by spec name
    done: tuple[str, ...] = ()  # a phrase for each transformation
    # The settings without a place in a configuration that the weights were trained with, as {"gelu": "tanh"}; for a missing
    # name, the official program's.
    function: Mapping[str, str] = field(default_factory=dict)
    config_text: str | None = None  # the config.json that they came with

    def without_decoder(self, done: str = "encoder only") -> WeightSet:
        """The same tensors, which were selected without the decoder, as an encoder's. done: a phrase for it."""
        return replace(self, contents="encoder", done=(*self.done, done))

    def with_classes(self, count: int) -> WeightSet:
        """Ready for fine-tuning to `count` classes, as the official script does it: without a head of another size.

        Raises CheckpointProblem for a count below 1.
        """
        if count < 1:
            raise CheckpointProblem(f"--num-classes is {count}; it must be at least 1.", code="bad-argument")
        if isinstance(self.config, ViTConfig):
            if self.contents == "headless" or self.config.num_classes == count:
                return self
            kept = {name: t for name, t in self.tensors.items() if not name.startswith(("head.", "head_norm."))}
            dropped = f"head of {self.config.num_classes} classes dropped"
            contents: Contents = "headless" if self.config.pooling == "gap" else "encoder"
            config: Config = replace(self.config, num_classes=count, head_norm=False)
            if contents == "encoder":  # a classifier on the class token, without its head, is an encoder's file
                config = encoder_config(self.config)
            return replace(self, config=config, contents=contents, tensors=kept, done=(*self.done, dropped))
        return self

    def with_dtype(self, dtype: str) -> WeightSet:
        """All floating tensors in another dtype."""
        changed = sorted({t.dtype for t in self.tensors.values()} - {dtype})
        if not changed:
            return self
        tensors = {name: cast(tensor, dtype) for name, tensor in self.tensors.items()}
        return replace(self, tensors=tensors, done=(*self.done, f"{', '.join(changed)} to {dtype}"))

    def with_image_size(self, size: tuple[int, int]) -> WeightSet:
        """With position tables for another image size in pixels (height, width), interpolated as the official script does.

        Raises CheckpointProblem if the patches do not fit it.
        """
        if size == self.config.img_size:
            return self
        try:
            config = replace(self.config, img_size=size)
        except ConfigError as problem:
            raise CheckpointProblem(f"--image-size: {problem}", code="bad-argument") from None
        tensors = dict(self.tensors)
        for name in ("pos_embed", "decoder_pos_embed"):
            if name in tensors:
                tensors[name] = _resized(tensors[name], self.config, config)
        (a, b), (c, d) = self.config.img_size, size
        done = f"position tables interpolated from {a}x{b} to {c}x{d} pixels"
        return replace(self, config=config, tensors=tensors, done=(*self.done, done))


def _resized(tensor: Tensor, old: Config, new: Config) -> Tensor:
    single, dtype = cast(tensor, "float32"), tensor.dtype
    shape = (1, new.num_patches + 1, tensor.shape[-1])
    resized = Tensor(shape, "float32", lambda: resize_positions(single.load(), old.grid, new.grid))
    return cast(resized, dtype)


def refuse_inexpressible(dialect: Dialect, weights: WeightSet) -> None:
    """Raise CheckpointProblem, with every reason, if a dialect has no way to express these weights."""
    config, contents = weights.config, weights.contents
    reasons = []
    if contents not in dialect.spellings:
        hint = "; --encoder-only leaves out the decoder" if contents == "mae" and "encoder" in dialect.spellings else ""
        known = ", ".join(KINDS[kind] for kind in dialect.spellings)
        reasons.append(f"it has no file of the kind {KINDS[contents]}, only {known}{hint}")
    actual: dict[str, Any] = {"square": config.img_size[0] == config.img_size[1], "in_chans": config.in_chans}
    if contents in OF_CLASSIFIERS:
        actual["pooling"] = config.pooling  # type: ignore[union-attr]
    elif contents == "mae":
        actual |= {"head": config.head, "decoder_norm": config.decoder_norm}  # type: ignore[union-attr]
    for name, value in actual.items():
        allowed = {**dialect.allows, **dialect.allows_in.get(contents, {})}.get(name, (value,))
        if value not in allowed:
            setting = "images that are not square" if name == "square" else f"{name}={value}"
            if name == "pooling" and value == "gap":
                setting += " (timm and the official dialect can)"
            choices = "" if name == "square" else f", only {' or '.join(map(str, allowed))}"
            reasons.append(f"it cannot express {setting}{choices}")
    if reasons:
        raise CheckpointProblem(
            f"These weights cannot be written in the {dialect.name} dialect ({dialect.title}): {'; '.join(reasons)}.",
            code="not-expressible",
        )


def notices(target: Dialect, weights: WeightSet) -> tuple[str, ...]:
    """A sentence for each setting that the target's program computes differently from the weights' own."""
    trained, computed = _function(None, weights), _function(target, weights)
    return tuple(
        f"{_FUNCTION[name]}: these weights are for {_VALUES.get(trained[name], trained[name])}, {target.name} computes with "
        f"{_VALUES.get(computed[name], computed[name])}"
        for name in _FUNCTION
        if name in trained and name in computed and trained[name] != computed[name]
    )


def as_computed(dialect: Dialect, weights: WeightSet) -> Config:
    """The configuration with the settings of a dialect's program, whatever the weights were trained with."""
    settings = {n: value for n, value in _function(dialect, weights).items() if hasattr(weights.config, n)}
    if settings["block_norm_eps"] == settings["norm_eps"]:
        settings["block_norm_eps"] = None
    return replace(weights.config, **settings)


def _function(dialect: Dialect | None, weights: WeightSet) -> dict[str, Any]:
    """The settings that a dialect's program computes with, for these weights; None: those that they were trained with."""
    config = weights.config
    settings = {name: getattr(config, name) for name in _FUNCTION if hasattr(config, name)}
    settings |= {"block_norm_eps": config.eps_of_blocks, **EXACT, **weights.function}
    if dialect is not None:
        settings |= dialect.function(weights.contents)
        if dialect.one_eps:
            settings["norm_eps"] = settings["block_norm_eps"]
    if weights.contents != "mae":
        return {n: value for n, value in settings.items() if n.endswith("eps") or n in ("gelu", "precision")}
    return settings
