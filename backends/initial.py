"""Initial weights in NumPy, by the official rules, from a seed: every backend starts from the same numbers.

Source: facebookresearch/mae models_mae.py `initialize_weights` and util/pos_embed.py; timm 0.3.2 for the classifier.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .config import Config, ViTConfig
from .spec import Param, params

Weights = dict[str, NDArray[np.float32]]


def sincos_table(dim: int, grid: tuple[int, int]) -> NDArray[np.float32]:
    """The fixed 2-D sin-cos position table, [1, 1 + rows * columns, dim] float32, with a zero row for the class token.

    The first half of the channels encodes the column and the second the row, each as [sin..., cos...]:
    the published weights expect this order. Computed in float64, then rounded once.
    """
    rows, columns = np.mgrid[: grid[0], : grid[1]].astype(np.float64)
    frequency = 1.0 / 10000 ** (np.arange(dim // 4, dtype=np.float64) / (dim / 4))
    halves = []
    for position in (columns, rows):
        angle = position.reshape(-1, 1) * frequency  # [L, dim/4]
        halves += [np.sin(angle), np.cos(angle)]
    table = np.concatenate(halves, axis=1)  # [L, dim]
    return np.concatenate([np.zeros((1, dim)), table])[None].astype(np.float32)


def sinusoid_table(dim: int, positions: int) -> NDArray[np.float32]:
    """The fixed 1-D position table of Transformers, [1, positions, dim] float32: sine and cosine interleaved.

    FlyEgle's models have it, with the class token at position 0 and the patches from 1 on, in raster order. Rounded to
    float32 at every step, as the published weights were trained with it: from float64 it would differ by up to 1e-5.
    """
    exponent = np.arange(0, dim, 2, dtype=np.float32) * np.float32(-math.log(10000.0) / dim)
    frequency = np.exp(exponent.astype(np.float64)).astype(np.float32)
    angle = np.arange(positions, dtype=np.float32)[:, None] * frequency  # [positions, dim/2]
    table = np.stack([np.sin(angle.astype(np.float64)), np.cos(angle.astype(np.float64))], axis=-1)
    return table.reshape(1, positions, dim).astype(np.float32)


def initial_weights(config: Config, seed: int = 0, head_std: float | None = None) -> Weights:
    """Every parameter of a freshly initialised model, float32, by spec name.

    Each tensor has a random stream of its own, derived from the seed and its place in the spec. head_std: standard deviation
    of a classifier's head; None: the official one.
    """
    streams = np.random.SeedSequence(seed).spawn(len(params(config)))
    return {
        param.name: _initial(config, param, np.random.Generator(np.random.Philox(stream)), head_std)
        for param, stream in zip(params(config), streams)
    }


def _initial(config: Config, param: Param, rng: np.random.Generator, head_std: float | None) -> NDArray[np.float32]:
    shape, fan_in = param.shape, math.prod(param.shape[1:])
    if param.role == "position":
        two_d = config.positions == "2d"
        return sincos_table(shape[-1], config.grid) if two_d else sinusoid_table(shape[-1], shape[1])
    if param.role == "token":
        return _normal(rng, shape, std=0.02)
    if param.role in ("norm.weight", "norm.var"):
        return np.ones(shape, np.float32)
    if param.name == "head.weight" and isinstance(config, ViTConfig):
        official = 0.01 if config.head_norm else 2e-5  # as official probe and fine-tuning start it
        return _normal(rng, shape, std=official if head_std is None else head_std)
    if param.role in ("conv.weight", "linear.weight"):
        # Xavier uniform on the matrix view: qkv as one fused matrix, the convolution as [D, C*p*p].
        return _uniform(rng, shape, bound=math.sqrt(6.0 / (shape[0] + fan_in)))
    if param.role in ("conv.bias", "unconv.weight"):
        # Left at the framework default upstream (Conv2d): uniform within 1/sqrt(fan in). The only bias not zero.
        # FlyEgle's transposed convolution, too: what PyTorch calls its fan in is C*p*p as well.
        return _uniform(rng, shape, bound=1.0 / math.sqrt(config.patch_dim))
    return np.zeros(shape, np.float32)


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], bound: float) -> NDArray[np.float32]:
    return (rng.random(shape, np.float32) * np.float32(2) - np.float32(1)) * np.float32(bound)


def _normal(rng: np.random.Generator, shape: tuple[int, ...], std: float) -> NDArray[np.float32]:
    return rng.standard_normal(shape, np.float32) * np.float32(std)
