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


def initial_weights(config: Config, seed: int = 0) -> Weights:
    """Every parameter of a freshly initialised model, float32, by spec name.

    Each tensor has a random stream of its own, derived from the seed and its place in the spec.
    """
    streams = np.random.SeedSequence(seed).spawn(len(params(config)))
    return {
        param.name: _initial(config, param, np.random.Generator(np.random.Philox(stream)))
        for param, stream in zip(params(config), streams)
    }


def _initial(config: Config, param: Param, rng: np.random.Generator) -> NDArray[np.float32]:
    shape, fan_in = param.shape, math.prod(param.shape[1:])
    if param.role == "position":
        return sincos_table(shape[-1], config.grid)
    if param.role == "token":
        return _normal(rng, shape, std=0.02)
    if param.role == "norm.weight":
        return np.ones(shape, np.float32)
    if param.name == "head.weight" and isinstance(config, ViTConfig):
        return _normal(rng, shape, std=2e-5)  # as official fine-tuning starts its head
    if param.role in ("conv.weight", "linear.weight"):
        # Xavier uniform on the matrix view: qkv as one fused matrix, the convolution as [D, C*p*p].
        return _uniform(rng, shape, bound=math.sqrt(6.0 / (shape[0] + fan_in)))
    if param.role == "conv.bias":
        # Left at the framework default upstream (Conv2d): uniform within 1/sqrt(fan in). The only bias not zero.
        return _uniform(rng, shape, bound=1.0 / math.sqrt(config.patch_dim))
    return np.zeros(shape, np.float32)


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], bound: float) -> NDArray[np.float32]:
    return (rng.random(shape, np.float32) * np.float32(2) - np.float32(1)) * np.float32(bound)


def _normal(rng: np.random.Generator, shape: tuple[int, ...], std: float) -> NDArray[np.float32]:
    return rng.standard_normal(shape, np.float32) * np.float32(std)
