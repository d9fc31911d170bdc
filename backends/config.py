"""The sizes of a model: what a constructor takes, in the official constructor's own names.

The letters used everywhere: N batch, L patches, K kept patches, D width, H heads.
Masked Autoencoders Are Scalable Vision Learners, He et al. 2021, arXiv 2111.06377.
"""

from __future__ import annotations

from dataclasses import dataclass
from reprlib import repr as shortened
from typing import Any, Literal, Union, get_args

from ..files.errors import Problem

Pooling = Literal["gap", "cls", "mean"]
Positions = Literal["2d", "1d"]
Head = Literal["linear", "conv"]
Masking = Literal["shuffled", "raster"]
LossOver = Literal["removed", "all"]


class ConfigError(Problem, ValueError):
    """A configuration that no model can have; the message says which value, and what it must be."""

    code = "bad-argument"


MOST_PIXELS = 65_536  # of an image's side
# What no model comes near: whoever asks for more, by mistake or in a hostile file, must not cost more.
_MOST, _MOST_BLOCKS, _MOST_PATCHES = 1_000_000, 1_000, 1 << 20


@dataclass(frozen=True)
class Encoder:
    """What the autoencoder's encoder and the classifier share.

    img_size is (height, width) in pixels; one number means a square.
    block_norm_eps is that of the norms inside the blocks (LiBai), None means norm_eps.
    positions: the 2-D sin-cos table, or FlyEgle's 1-D one, in which the class token is position 0.
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
    block_norm_eps: float | None = None
    positions: Positions = "2d"

    def __post_init__(self) -> None:
        size = (self.img_size, self.img_size) if isinstance(self.img_size, int) else tuple(self.img_size)
        object.__setattr__(self, "img_size", size)
        self._require_positive("patch_size", "in_chans", "embed_dim", "depth", "num_heads")
        if len(size) != 2 or any(not 1 <= side <= MOST_PIXELS or side % self.patch_size for side in size):
            raise ConfigError(
                f"img_size={shortened(size)} does not fit patch_size={self.patch_size}; "
                f"both sides must be positive multiples of the patch size, up to {MOST_PIXELS:,}."
            )
        if self.num_patches > _MOST_PATCHES:
            raise ConfigError(
                f"img_size={size} has {self.num_patches:,} patches of {self.patch_size} pixels; there can be up to "
                f"{_MOST_PATCHES:,}."
            )
        numbers = {"norm_eps": self.norm_eps, "block_norm_eps": self.eps_of_blocks, "mlp_ratio": self.mlp_ratio}
        fit = all(0 < value <= _MOST for value in numbers.values())
        if not (fit and self.mlp_dim(self.embed_dim)):
            raise ConfigError(
                f"{', '.join(f'{name}={shortened(value)}' for name, value in numbers.items())} must be finite numbers above 0, "
                f"up to {_MOST:,}, and mlp_ratio large enough for a hidden layer."
            )
        self._require_choice("positions", Positions)
        self._require_divisible("embed_dim", "num_heads")

    def _require_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            most = _MOST_BLOCKS if name.endswith("depth") else _MOST
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise ConfigError(
                    f"{name} is {shortened(value)}; it must be a whole number of at least 1, up to {most:,}."
                )

    def _require_choice(self, name: str, choices: Any) -> None:
        value, allowed = getattr(self, name), get_args(choices)
        if value not in allowed:
            listed = " or ".join([", ".join(map(repr, allowed[:-1])), repr(allowed[-1])])
            raise ConfigError(f"{name} is {value!r}; it must be {listed}.")

    def _require_bool(self, *names: str) -> None:
        for name in names:
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be True or False.")

    def _require_divisible(self, width_name: str, heads_name: str) -> None:
        width, heads = getattr(self, width_name), getattr(self, heads_name)
        if width % heads:
            raise ConfigError(f"{heads_name}={heads} does not divide {width_name}={width}; heads are equally wide.")
        multiple = {"2d": 4, "1d": 2}[self.positions]
        if width % multiple:
            table = f"{self.positions[0]}-D position table"
            raise ConfigError(f"{width_name}={width} is not a multiple of {multiple}, as the {table} needs.")

    @property
    def eps_of_blocks(self) -> float:
        """What the norms inside the blocks, of the encoder and of the decoder, add to the variance."""
        return self.norm_eps if self.block_norm_eps is None else self.block_norm_eps

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
    """A masked autoencoder for pre-training (official `MaskedAutoencoderViT`).

    decoder_norm: a norm after the decoder's blocks. head: conv is FlyEgle's, where decoder_pred is followed by a norm
    and a transposed convolution. masking: shuffled keeps patches in the order of their noise; raster keeps those of
    the first image's noise in the whole batch, in their order in the image. loss_over: all divides the removed
    patches' sum of squares by every value of the batch. train_positions: whether training changes the tables.
    """

    decoder_embed_dim: int = 512
    decoder_depth: int = 8
    decoder_num_heads: int = 16
    norm_pix_loss: bool = False
    decoder_norm: bool = True
    head: Head = "linear"
    masking: Masking = "shuffled"
    loss_over: LossOver = "removed"
    train_positions: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_positive("decoder_embed_dim", "decoder_depth", "decoder_num_heads")
        self._require_divisible("decoder_embed_dim", "decoder_num_heads")
        self._require_choice("head", Head)
        self._require_choice("masking", Masking)
        self._require_choice("loss_over", LossOver)
        self._require_bool("norm_pix_loss", "decoder_norm", "train_positions")
        if self.patch_dim < 2:
            raise ConfigError(
                "patch_size=1 with in_chans=1 has patches of one value, and the variance of a patch, which the loss needs, "
                "that of at least two; give a larger patch_size or more in_chans."
            )


@dataclass(frozen=True)
class ViTConfig(Encoder):
    """A classifier on the MAE encoder (official `VisionTransformer`).

    gap: mean of the patch tokens, then fc_norm. cls: norm, then the class token. mean: norm, then mean of all tokens.
    train_positions: whether training changes the position table. head_norm: the official linear probe's, a batch norm
    before the head, in training by the batch's statistics, else by running ones. train_encoder: False is the linear probe,
    where training changes nothing but the head.
    """

    num_classes: int = 1000
    pooling: Pooling = "gap"
    train_positions: bool = True
    head_norm: bool = False
    train_encoder: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_positive("num_classes")
        self._require_choice("pooling", Pooling)
        self._require_bool("train_positions", "head_norm", "train_encoder")


Config = Union[MAEConfig, ViTConfig]


def keep_length(num_patches: int, mask_ratio: float) -> int:
    """K, the number of patches that stay visible.

    int(L * (1 - ratio)) in binary floating point, as upstream: L=100 at ratio .9 keeps 9, not 10.
    Raises ConfigError where nothing would stay visible.
    """
    kept = int(num_patches * (1 - mask_ratio)) if 0 <= mask_ratio < 1 else 0
    if kept < 1:
        raise ConfigError(
            f"mask_ratio={mask_ratio} keeps none of {num_patches} patches; it must be at least 0, below 1, and leave one."
        )
    return kept
