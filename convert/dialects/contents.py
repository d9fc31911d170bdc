"""The kinds of file, and which of a model's parameters and settings each kind holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Literal

from ...backends.config import Config, Encoder, MAEConfig, ViTConfig
from ...backends.spec import Param, encoder_params, params
from ..tensors import CheckpointProblem

Contents = Literal["mae", "encoder", "classifier", "headless", "probe"]
# The kinds of file, for people. A linear probe is a classifier whose head normalises its input.
KINDS: dict[Contents, str] = {
    "mae": "autoencoder",
    "encoder": "encoder alone",
    "classifier": "classifier",
    "headless": "classifier without a head",
    "probe": "linear probe",
}
OF_CLASSIFIERS: tuple[Contents, ...] = ("classifier", "headless", "probe")


def contents_of(names: Mapping[str, object], where: str) -> Contents:
    """The kind of a file with these spec names. Raises CheckpointProblem for signs of two kinds."""
    decoder, head, pooled = (any(n.startswith(s) for n in names) for s in ("decoder_", "head.", "fc_norm."))
    if decoder and (head or pooled):
        raise CheckpointProblem(
            f"{where} holds both a decoder and a classifier's head; it can be mae or classifier.", code="unknown-model"
        )
    if any(name.startswith("head_norm.") for name in names):
        return "probe"
    return "mae" if decoder else "classifier" if head else "headless" if pooled else "encoder"


def expected_params(config: Config, contents: Contents | None = None) -> tuple[Param, ...]:
    """The parameters that a file of this model and kind holds; contents None means the whole model."""
    if contents == "encoder" and isinstance(config, MAEConfig):
        return encoder_params(config)
    whole = params(config)
    if contents != "headless":
        return whole
    return tuple(p for p in whole if not p.name.startswith(("head.", "head_norm.")))


def settings_in(contents: Contents) -> frozenset[str]:
    """The settings of a configuration that a file of this kind shows.

    An encoder has no decoder and no loss, and a classifier without its head has no classes. A configuration's values for
    those come from somewhere else, so two configurations of such a file may differ in them.
    """
    kind = ViTConfig if contents in OF_CLASSIFIERS else Encoder if contents == "encoder" else MAEConfig
    of_head = {"num_classes", "head_norm"} if contents == "headless" else set()
    return frozenset(f.name for f in fields(kind)) - of_head


def encoder_config(config: ViTConfig) -> MAEConfig:
    """An autoencoder with a classifier's encoder; its decoder is the usual one."""
    shared = ("img_size", "patch_size", "in_chans", "embed_dim", "depth", "num_heads", "mlp_ratio", "norm_eps")
    return MAEConfig(**{name: getattr(config, name) for name in (*shared, "block_norm_eps", "positions")})
