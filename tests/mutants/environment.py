"""Faults of the environment: less precision than float32 has. Emulated, so that they need no GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from polymae.backends.denormals import keep_denormals

from .planting import Edit, Fault, edited_copy, in_all, in_each

_fault = partial(Fault, level="forward")

# Veltkamp's splitting: x * (2^13 + 1) - (x * (2^13 + 1) - x) is x with 11 bits, as TF32 and float16 have.
_ROUNDED = """

def rounded(x):
    return x * 8193 - (x * 8193 - x)


def summed(a, b):
    total = rounded(a[..., :1] * b[..., :1, :])
    for k in range(1, a.shape[-1]):
        total = rounded(total + rounded(a[..., k : k + 1] * b[..., k : k + 1, :]))
    return total


class Mlp("""
_DEFINED = ("\n\nclass Mlp(", _ROUNDED)

_OTHERS = ("torch", "megengine", "mindspore", "oneflow")


def _summed(product: str) -> tuple[tuple[str, str], ...]:
    return _DEFINED, (product, "summed(attn, v)")


@contextmanager
def _flushed() -> Iterator[None]:
    """Denormal numbers become zero: what keeps them, with its sign turned."""
    module = "backends.denormals"
    edited_copy(f"polymae.{module}", [Edit(module, "&= ~_FLUSHING", "|= _FLUSHING")]).keep_denormals()
    try:
        yield
    finally:
        keep_denormals()


FAULTS = (
    Fault(
        "denormal numbers flushed",
        level="environment",
        located_at="environment/denormals",
        about="A library built with -ffast-math, as MegEngine is, changed the processor's mode for the whole process.",
        process=_flushed,
    ),
    _fault(
        "TF32 in the linear layers",
        located_at="blocks.0.attn.qkv",
        about="The GPU rounds what it multiplies to 11 bits, and nobody switched that off.",
        size=2.0**-12,
        edits=in_all("blocks", _DEFINED, ("self.qkv(x)", "self.qkv(rounded(x))")),
    ),
    _fault(
        "TF32 in the attention scores",
        located_at="blocks.0.attn.softmax",
        about="TF32 was switched off for linear layers, and not for batched products.",
        size=2.0**-12,
        edits=in_all("blocks", _DEFINED, ("  # each [N, H, T, D/H]", "\n        q, k = rounded(q), rounded(k)")),
    ),
    _fault(
        "float16 accumulation",
        located_at="blocks.0.attn.proj",
        about="Sums of products are kept in float16.",
        size=2.0**-12,
        edits=in_each("blocks", numpy=_summed("matmul(attn, v)"), **dict.fromkeys(_OTHERS, _summed("(attn @ v)"))),
    ),
)
