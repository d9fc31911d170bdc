"""Faults of loading: weights that are not those of the checkpoint. All are exact, whatever they do to the outputs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from .planting import Fault, Weights

_fault = partial(Fault, level="weights")


def _transpose_position_table(weights: Weights) -> None:
    table = weights["pos_embed"]
    side = int((table.shape[1] - 1) ** 0.5)
    grid = table[:, 1:].reshape(1, side, -1, table.shape[2]).swapaxes(1, 2)
    weights["pos_embed"] = np.concatenate([table[:, :1], grid.reshape(1, -1, table.shape[2])], axis=1)


def _row_before_column(weights: Weights) -> None:
    half = weights["pos_embed"].shape[2] // 2
    weights["pos_embed"] = np.roll(weights["pos_embed"], half, axis=2)


def _shift_positions(weights: Weights) -> None:
    weights["pos_embed"] = np.roll(weights["pos_embed"], 1, axis=1)


def _swap_q_and_k(weights: Weights) -> None:
    for kind in ("weight", "bias"):
        q, k, v = np.split(weights[f"blocks.1.attn.qkv.{kind}"], 3)
        weights[f"blocks.1.attn.qkv.{kind}"] = np.concatenate([k, q, v])


def _transpose_proj(weights: Weights) -> None:
    weights["blocks.1.attn.proj.weight"] = weights["blocks.1.attn.proj.weight"].T.copy()


def _swap_scale_and_shift(weights: Weights) -> None:
    scale, shift = weights["norm.weight"], weights["norm.bias"]
    weights["norm.weight"], weights["norm.bias"] = shift.copy(), scale.copy()


def _left(name: str, value: float) -> Callable[[Weights], None]:
    """One tensor left as its layer was built."""

    def spoil(weights: Weights) -> None:
        weights[name] = np.full_like(weights[name], value)

    return spoil


def _of_another_epoch(weights: Weights) -> None:
    rng = np.random.default_rng(0)
    for name, array in weights.items():
        weights[name] = (array * (1 + 1e-4 * rng.standard_normal(array.shape))).astype(np.float32)


def _bfloat16(weights: Weights) -> None:
    for name, array in weights.items():
        bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
        even = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
        weights[name] = even.view(np.float32)


def _float16(weights: Weights) -> None:
    for name, array in weights.items():
        weights[name] = array.astype(np.float16).astype(np.float32)


FAULTS = (
    _fault(
        "position table transposed",
        located_at="weights/pos_embed",
        about="The table was made with rows and columns exchanged.",
        weights=_transpose_position_table,
    ),
    _fault(
        "position table row before column",
        located_at="weights/pos_embed",
        about="The table's first half of channels encodes the row; the official one's encodes the column.",
        weights=_row_before_column,
    ),
    _fault(
        "position table shifted by one",
        located_at="weights/pos_embed",
        about="The class token's row was put last.",
        weights=_shift_positions,
    ),
    _fault(
        "q and k swapped",
        located_at="weights/blocks.1.attn.qkv.weight",
        about="Separate matrices were joined in the order k, q, v.",
        weights=_swap_q_and_k,
    ),
    _fault(
        "square matrix transposed",
        located_at="weights/blocks.1.attn.proj.weight",
        about="A matrix [D, D] was transposed on the way, which no shape gives away.",
        weights=_transpose_proj,
    ),
    _fault(
        "norm scale and shift swapped",
        located_at="weights/norm.weight",
        about="gamma was loaded as beta, and beta as gamma.",
        weights=_swap_scale_and_shift,
    ),
    _fault(
        "norm scale not loaded",
        located_at="weights/blocks.0.norm1.weight",
        about="The checkpoint says weight where the framework says gamma: it stayed at 1.",
        weights=_left("blocks.0.norm1.weight", 1.0),
    ),
    _fault(
        "mask token not loaded",
        located_at="weights/mask_token",
        about="It stayed at 0, as it was built.",
        weights=_left("mask_token", 0.0),
    ),
    _fault(
        "weights of another epoch",
        located_at="weights/cls_token",
        about="The checkpoint beside it was loaded: every value is a ten-thousandth off.",
        size=1e-4,
        weights=_of_another_epoch,
    ),
    _fault(
        "weights in bfloat16",
        located_at="weights/cls_token",
        about="They went through bfloat16, which keeps 8 bits.",
        size=2.0**-9,
        weights=_bfloat16,
    ),
    _fault(
        "weights in float16",
        located_at="weights/cls_token",
        about="They went through float16, which keeps 11 bits.",
        size=2.0**-12,
        weights=_float16,
    ),
)
