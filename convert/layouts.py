"""From the spec's layout of a tensor to another and back, by patterns in the notation of einops.

Every axis of a pattern may be a product, as in "(t h s) d -> (h t s) d"; a product's letters stay together, so that shapes
follow from the pattern alone. The letters with a size of their own: t the parts of qkv, h heads, p and q the rows and
columns of a patch, c channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from einops import rearrange

from ..backends.config import Config, MAEConfig
from ..backends.spec import Shape
from .tensors import Array

Sizes = Mapping[str, int]  # a letter's size


def heads_of(config: Config, name: str) -> int:
    """How many heads the stack has that the tensor of this spec name is in."""
    in_decoder = isinstance(config, MAEConfig) and name.startswith("decoder_")
    return config.decoder_num_heads if in_decoder else config.num_heads  # type: ignore[union-attr]


def sizes_of(config: Config, name: str) -> dict[str, int]:
    """The size of each letter in the layout of the tensor that the spec calls `name`."""
    return {"t": 3, "h": heads_of(config, name), "p": config.patch_size, "q": config.patch_size, "c": config.in_chans}


def to_layout(array: Array, layout: str, sizes: Sizes) -> Array:
    """An array in the spec's layout, in this one; a view if that is possible."""
    return rearrange(array, layout, **_needed(layout, sizes))


def to_spec(array: Array, layout: str, sizes: Sizes) -> Array:
    """The inverse of to_layout."""
    return rearrange(array, inverse(layout), **_needed(layout, sizes))


def inverse(layout: str) -> str:
    """The pattern that undoes a pattern."""
    left, right = layout.split(" -> ")
    return f"{right} -> {left}"


def shape_after(layout: str, shape: Shape) -> Shape | None:
    """The shape that a pattern gives; None for a shape that it does not fit."""
    left, right = (_axes(side) for side in layout.split(" -> "))
    if len(shape) != len(left) or any(size != 1 for axis, size in zip(left, shape) if not axis):
        return None
    known = dict(zip(left, shape))
    return tuple(known[axis] if axis else 1 for axis in right)


def _axes(side: str) -> list[frozenset[str]]:
    """The letters of each axis; none for an axis of size 1."""
    return [frozenset(re.findall("[a-z]", axis)) for axis in re.findall(r"\([^)]*\)|\S+", side)]


def _needed(layout: str, sizes: Sizes) -> dict[str, int]:
    """The sizes that einops needs: the letters of the products, but for one in each."""
    letters = {letter for product in re.findall(r"\(([^)]*)\)", layout) for letter in product.split()}
    return {letter: size for letter, size in sizes.items() if letter in letters}
