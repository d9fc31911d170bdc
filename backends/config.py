"""The sizes of a model: what a constructor takes, in the official constructor's own names.

The letters used everywhere: N batch, L patches, K kept patches, D width, H heads.
Masked Autoencoders Are Scalable Vision Learners, He et al. 2021, arXiv 2111.06377.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Union

from .errors import Problem

Pooling = Literal["gap", "cls"]


class ConfigError(Problem, ValueError):
    """A configuration that no model can have; the message says which value, and what it must be."""


@dataclass(frozen=True)
class Encoder:
    """What the autoencoder's encoder and the classifier share.

    img_size is (height, width) in pixels; one number means a square.
    Raises ConfigError where the sizes do not fit together.
    """

    img_size: tuple[int, int] = (224, 224)
    patch_size: int = 16
    in_chans: int = 3
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        size = (self.img_size, self.img_size) if isinstance(self.img_size, int) else tuple(self.img_size)
        object.__setattr__(self, "img_size", size)
        self._require_positive("patch_size", "in_chans", "embed_dim", "depth", "num_heads")
        if len(size) != 2 or any(side < 1 or side % self.patch_size for side in size):
            raise ConfigError(
                f"img_size={size} does not fit patch_size={self.patch_size}; "
                "both sides must be positive multiples of the patch size."
            )
        if not (0 < self.norm_eps < math.inf and 0 < self.mlp_ratio < math.inf and self.mlp_dim(self.embed_dim)):
            raise ConfigError(
                f"norm_eps={self.norm_eps} and mlp_ratio={self.mlp_ratio} must be finite numbers above 0, "
                "and mlp_ratio large enough for a hidden layer."
            )
        self._require_divisible("embed_dim", "num_heads")

    def _require_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least 1.")

    def _require_divisible(self, width_name: str, heads_name: str) -> None:
        width, heads = getattr(self, width_name), getattr(self, heads_name)
        if width % heads:
            raise ConfigError(f"{heads_name}={heads} does not divide {width_name}={width}; heads are equally wide.")
        if width % 4:
            raise ConfigError(f"{width_name}={width} is not a multiple of 4, as the 2-D position table needs.")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.img_size[0] // self.patch_size, self.img_size[1] // self.patch_size

    @property
    def num_patches(self) -> int:
        """L."""
        return self.grid[0] * self.grid[1]

    @property
    def patch_dim(self) -> int:
        """Values in one patch: patch_size * patch_size * in_chans."""
        return self.patch_size**2 * self.in_chans

    def mlp_dim(self, dim: int) -> int:
        """Width of the hidden layer of the MLP in a block of width `dim`."""
        return int(dim * self.mlp_ratio)


@dataclass(frozen=True)
class MAEConfig(Encoder):
    """A masked autoencoder for pre-training (official `MaskedAutoencoderViT`)."""

    decoder_embed_dim: int = 512
    decoder_depth: int = 8
    decoder_num_heads: int = 16
    norm_pix_loss: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_positive("decoder_embed_dim", "decoder_depth", "decoder_num_heads")
        self._require_divisible("decoder_embed_dim", "decoder_num_heads")


@dataclass(frozen=True)
class ViTConfig(Encoder):
    """A classifier on the MAE encoder (official `VisionTransformer`).

    gap: mean of the patch tokens, then fc_norm. cls: norm, then the class token.
    """

    num_classes: int = 1000
    pooling: Pooling = "gap"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_positive("num_classes")
        if self.pooling not in ("gap", "cls"):
            raise ConfigError(f"pooling is {self.pooling!r}; it must be 'gap' or 'cls'.")


Config = Union[MAEConfig, ViTConfig]


def keep_length(num_patches: int, mask_ratio: float) -> int:
    """K, the number of patches that stay visible.

    int(L * (1 - ratio)) in binary floating point, as upstream: L=100 at ratio .9 keeps 9, not 10.
    Raises ConfigError where nothing would stay visible.
    """
    kept = int(num_patches * (1 - mask_ratio)) if 0 <= mask_ratio < 1 else 0
    if kept < 1:
        raise ConfigError(
            f"mask_ratio={mask_ratio} keeps none of {num_patches} patches; give one from 0 that keeps a patch."
        )
    return kept
