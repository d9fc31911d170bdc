"""What a conversion does to the weights, and what it cannot: fewer tensors, another dtype, a larger image, a dialect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..backends.config import Config, ConfigError, MAEConfig, ViTConfig
from .dialects import KINDS, OF_CLASSIFIERS, Contents, Dialect
from .dialects.dialect import EXACT
from .interpolation import resize_positions
from .tensors import CheckpointProblem, Tensor, cast

# What the programs may compute differently, in words.
_FUNCTION = {
    "norm_eps": "eps of the final norms", "block_norm_eps": "eps of the norms inside the blocks",
    "gelu": "GELU", "variance": "variance of a patch (norm_pix_loss)", "precision": "arithmetic",
    "loss_over": "values that the loss is averaged over", "masking": "order of the kept patches",
    "train_positions": "position tables",
}  # fmt: skip
_SAID = {True: "trained ones", False: "fixed ones", "erf": "the exact one", "tanh": "its tanh approximation"}


@dataclass(frozen=True)
class WeightSet:
    """The tensors of a model by spec name, not loaded, and what was done to them so far, in words.

    function: what they were trained for beside the configuration, as {"gelu": "tanh"}; where a name is missing, what the
    official program computes. config_text: the config.json they came with.
    """

    config: Config
    contents: Contents
    tensors: Mapping[str, Tensor]
    done: tuple[str, ...] = ()
    function: Mapping[str, str] = field(default_factory=dict)
    config_text: str | None = None

    def without_decoder(self) -> WeightSet:
        """The encoder alone: it was selected so."""
        return replace(self, contents="encoder", done=(*self.done, "encoder only"))

    def with_classes(self, count: int) -> WeightSet:
        """Ready for fine-tuning to `count` classes, as the official script does it: a head of another size is dropped.

        An autoencoder becomes its encoder. Raises CheckpointProblem for a count below 1.
        """
        if count < 1:
            raise CheckpointProblem(f"--num-classes is {count}; it must be at least 1.")
        if isinstance(self.config, ViTConfig):
            if self.contents == "headless" or self.config.num_classes == count:
                return self
            kept = {name: t for name, t in self.tensors.items() if not name.startswith(("head.", "head_norm."))}
            dropped = f"head of {self.config.num_classes} classes dropped"
            contents: Contents = "headless" if self.config.pooling == "gap" else "encoder"
            config: Config = replace(self.config, num_classes=count, head_norm=False)
            if contents == "encoder":  # what is left of a classifier on the class token is an encoder's file
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
        """The position tables interpolated for another image size in pixels (height, width), as the official script does.

        Raises CheckpointProblem where the patches do not fit it.
        """
        if size == self.config.img_size:
            return self
        try:
            config = replace(self.config, img_size=size)
        except ConfigError as problem:
            raise CheckpointProblem(f"--image-size: {problem}") from None
        tensors = dict(self.tensors)
        for name in ("pos_embed", "decoder_pos_embed"):
            if name in tensors:
                tensors[name] = _resized(tensors[name], self.config, config)
        (a, b), (c, d) = self.config.img_size, size
        said = f"position tables interpolated from {a}x{b} to {c}x{d} pixels"
        return replace(self, config=config, tensors=tensors, done=(*self.done, said))


def encoder_config(config: ViTConfig) -> MAEConfig:
    """The autoencoder of which a classifier's encoder may come; its decoder is the usual one."""
    shared = ("img_size", "patch_size", "in_chans", "embed_dim", "depth", "num_heads", "mlp_ratio", "norm_eps")
    return MAEConfig(**{name: getattr(config, name) for name in (*shared, "block_norm_eps", "positions")})


def _resized(tensor: Tensor, old: Config, new: Config) -> Tensor:
    single, dtype = cast(tensor, "float32"), tensor.dtype
    shape = (1, new.num_patches + 1, tensor.shape[-1])
    resized = Tensor(shape, "float32", lambda: resize_positions(single.load(), old.grid, new.grid))
    return cast(resized, dtype)


def refuse_inexpressible(dialect: Dialect, weights: WeightSet) -> None:
    """Raise CheckpointProblem, with every reason, where a dialect has no way to say what these weights are."""
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
            said = "images that are not square" if name == "square" else f"{name}={value}"
            if name == "pooling" and value == "gap":
                said += " (timm and the official dialect can)"
            choices = "" if name == "square" else f", only {' or '.join(map(str, allowed))}"
            reasons.append(f"it cannot express {said}{choices}")
    if reasons:
        raise CheckpointProblem(
            f"These weights cannot be written in the {dialect.name} dialect ({dialect.title}): {'; '.join(reasons)}."
        )


def notices(target: Dialect, weights: WeightSet) -> tuple[str, ...]:
    """A sentence for each thing that the target's program computes otherwise than what the weights are for."""
    own, there = _function(None, weights), _function(target, weights)
    return tuple(
        f"{_FUNCTION[name]}: these weights are for {_SAID.get(own[name], own[name])}, {target.name} computes with "
        f"{_SAID.get(there[name], there[name])}"
        for name in _FUNCTION
        if name in own and name in there and own[name] != there[name]
    )


def as_computed(dialect: Dialect, weights: WeightSet) -> Config:
    """The configuration with the settings that a dialect's program computes with, whatever the weights came from."""
    found = {n: value for n, value in _function(dialect, weights).items() if hasattr(weights.config, n)}
    if found["block_norm_eps"] == found["norm_eps"]:
        found["block_norm_eps"] = None
    return replace(weights.config, **found)


def _function(dialect: Dialect | None, weights: WeightSet) -> dict[str, Any]:
    """What a dialect's program computes with these weights; None: what they are for."""
    config = weights.config
    found = {name: getattr(config, name) for name in _FUNCTION if hasattr(config, name)}
    found |= {"block_norm_eps": config.eps_of_blocks, **EXACT, **weights.function}
    if dialect is not None:
        found |= dialect.function(weights.contents)
        if dialect.one_eps:
            found["norm_eps"] = found["block_norm_eps"]
    if weights.contents != "mae":
        return {name: value for name, value in found.items() if name.endswith("eps") or name in ("gelu", "precision")}
    return found
